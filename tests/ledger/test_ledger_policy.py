"""Trust policies (C2SP tlog-policy): what a file may say, and which checkpoints one accepts."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_source import KEY, ORIGIN, octets

from ledger import checkpoint, cosignature, merkle, policy
from ledger.errors import CodecError, LedgerError, SignatureInvalid
from ledger.policy import Group, Policy

LOG = checkpoint.vkey(ORIGIN, KEY.public_key())
NOTE = checkpoint.make(ORIGIN, 1, merkle.leaf_hash(b""), KEY)
TIME = 1_700_000_000
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
WITNESSES = {name: Ed25519PrivateKey.from_private_bytes(octets(name, 32)) for name in NAMES}


def vkey(name: str) -> str:
    return cosignature.cosigner(f"{name}.example", WITNESSES[name].public_key()).vkey()


# The example of the specification, its elided keys filled in.
EXAMPLE = f"""log {LOG}

witness X1 {vkey("X1")}
witness X2 {vkey("X2")}
witness X3 {vkey("X3")}
group X-witnesses 2 X1 X2 X3

witness Y1 {vkey("Y1")}
witness Y2 {vkey("Y2")}
witness Y3 {vkey("Y3")}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def cosign(*names: str) -> str:
    note = NOTE
    for number, name in enumerate(names):
        note = cosignature.sign(note, f"{name}.example", WITNESSES[name], TIME + number)
    return note


def test_the_specifications_example_is_read() -> None:
    read = policy.parse(EXAMPLE.encode())
    assert [log.vkey() for log in read.logs] == [LOG]
    assert [name.decode() for name in read.witnesses] == list(NAMES)
    assert read.groups[b"X-witnesses"] == Group(2, (b"X1", b"X2", b"X3"))
    assert read.groups[b"Y-witnesses"].threshold == 1
    assert read.groups[b"X-and-Y"] == Group(2, (b"X-witnesses", b"Y-witnesses"))
    assert read.quorum == b"X-and-Y"


def test_the_examples_quorum_is_two_of_one_group_and_one_of_the_other() -> None:
    read = policy.parse(EXAMPLE.encode())
    for size in range(len(NAMES) + 1):
        for names in itertools.combinations(NAMES, size):
            enough = sum(name < "Y" for name in names) >= 2 and any(name > "Y" for name in names)
            if enough:
                accepted = read.accept(cosign(*names))
                assert {item.witness for item in accepted.cosigned} == {f"{name}.example" for name in names}
                assert (accepted.head.size, accepted.log.name) == (1, ORIGIN)
            else:
                with pytest.raises(SignatureInvalid) as refused:
                    read.accept(cosign(*names))
                assert refused.value.place == "witnesses"


def test_a_witness_that_signs_twice_counts_once_and_for_the_latest_time() -> None:
    read = policy.parse(EXAMPLE.encode())
    with pytest.raises(SignatureInvalid):
        read.accept(cosign("X1", "X1", "Y1"))
    accepted = read.accept(cosign("X1", "X1", "X2", "Y1"))
    assert [item.time_s - TIME for item in accepted.cosigned] == [1, 2, 3]


def test_without_a_quorum_the_log_alone_is_enough_and_unknown_cosigners_are_ignored() -> None:
    for known in (policy.parse(f"log {LOG}\nquorum none\n".encode()), Policy.of_log(ORIGIN, KEY.public_key())):
        assert known.accept(NOTE).cosigned == ()
        assert known.accept(cosign("X1", "Y2")).cosigned == ()


def test_a_known_witness_whose_line_does_not_verify_spoils_the_checkpoint() -> None:
    read = policy.parse(f"log {LOG}\nwitness X1 {vkey('X1')}\nquorum none\n".encode())
    witness = read.witnesses[b"X1"]
    with pytest.raises(SignatureInvalid) as refused:
        read.accept(NOTE + checkpoint.signature_line(witness, bytes(72)))
    assert refused.value.place == "witnesses"


def test_any_of_the_logs_is_accepted_and_no_other() -> None:
    other = Ed25519PrivateKey.from_private_bytes(octets("other log", 32))
    read = policy.parse(
        f"log {checkpoint.vkey('b.example', other.public_key())}\nlog {LOG} https://x\nquorum none".encode()
    )
    assert read.accept(NOTE).log.name == ORIGIN
    assert read.accept(checkpoint.make("b.example", 0, merkle.EMPTY_ROOT, other)).log.name == "b.example"
    for foreign in (
        checkpoint.make("c.example", 0, merkle.EMPTY_ROOT, other),  # no such log
        checkpoint.make(ORIGIN, 0, merkle.EMPTY_ROOT, other),  # another key under a known name
        checkpoint.sign_note(checkpoint.Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT).body(), "b.example", other),
    ):
        with pytest.raises(LedgerError) as refused:
            read.accept(foreign)
        assert refused.value.place == "checkpoint"


def test_blanks_comments_and_octets_beyond_ascii_are_as_the_specification_allows() -> None:
    name = b"\xff\xe2\x84\xaa"
    text = (
        b"\t# caf\xe9\n  log\t" + LOG.encode() + b" \n\nwitness " + name + b" " + vkey("X1").encode() + b" http://w\n"
    )
    assert policy.parse(text + b"quorum " + name).quorum == name


def test_thirty_two_logs_witnesses_and_groups_are_read() -> None:
    lines = []
    for number in range(32):
        key = Ed25519PrivateKey.from_private_bytes(octets(f"{number}", 32)).public_key()
        lines += [f"log {checkpoint.vkey(f'log{number}', key)}"]
        lines += [f"witness w{number} {cosignature.cosigner(f'w{number}', key).vkey()}"]
        lines += [f"group g{number} all w{number}" + (f" g{number - 1}" if number else "")]
    read = policy.parse("\n".join([*lines, "quorum g31", ""]).encode())
    assert (len(read.logs), len(read.witnesses), len(read.groups)) == (32, 32, 32)


W1, W2 = f"witness a {vkey('X1')}\n", f"witness b {vkey('X2')}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "policy"),
        (f"log {LOG}\n", "policy"),
        ("quorum none\nquorum none\n", "policy"),
        ("quorum a\n", "line 1"),
        ("quorum a\n" + W1, "line 1"),
        ("quorum\n", "line 1"),
        ("quorum none none\n", "line 1"),
        ("cosigner a\nquorum none\n", "line 1"),
        (f"log {LOG}\nlog {LOG}\nquorum none\n", "line 2"),
        (f"log {LOG} a b\nquorum none\n", "line 1"),
        (f"log {vkey('X1')}\nquorum none\n", "line 1"),
        (f"witness a {LOG}\nquorum none\n", "line 1"),
        (W1 + f"witness c {vkey('X1')}\nquorum none\n", "line 2"),
        (W1 + f"witness a {vkey('X2')}\nquorum none\n", "line 2"),
        (f"witness none {vkey('X1')}\nquorum none\n", "line 1"),
        ("group none any a\nquorum none\n", "line 1"),
        (W1 + "group g 1 none\nquorum none\n", "line 2"),
        (W1 + "group g 1 g\nquorum none\n", "line 2"),
        (W1 + "group g 1\nquorum none\n", "line 2"),
        (W1 + "group g 0 a\nquorum none\n", "line 2"),
        (W1 + "group g 2 a\nquorum none\n", "line 2"),
        (W1 + "group g 01 a\nquorum none\n", "line 2"),
        (W1 + "group g one a\nquorum none\n", "line 2"),
        (W1 + "group g 1 b\n" + W2 + "quorum none\n", "line 2"),
        (W1 + "group a 1 a\nquorum none\n", "line 2"),
        (W1 + "group g any a a\nquorum none\n", "line 2"),
        (W1 + "group g any a\ngroup h any a\nquorum none\n", "line 3"),
        ("quorum none\r\n", "line 1"),
        ("quorum none\x7f\n", "line 1"),
        ("# \x00\nquorum none\n", "line 1"),
        ("quorum none\n" + "#" * (256 * 1024), "policy"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(text: str, line: str) -> None:
    with pytest.raises(CodecError) as refused:
        policy.parse(text.encode())
    assert refused.value.place == line


def test_a_key_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(CodecError):
        policy.parse(b"log \xff" + LOG.encode() + b"\nquorum none\n")
