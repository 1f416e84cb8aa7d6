"""The verifier that runs in a browser gives Python's verdict: on whole proofs, on every way a proof can be off by one
character, on proofs that somebody with the key has made badly. In a real Chromium, on its WebCrypto."""

import base64
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import checkpoint, codec, entry, merkle, proof, record
from ledger.entry import Entry, Who
from ledger.errors import LedgerError
from ledger.record import Record

HERE = Path(__file__).resolve().parent
VERIFIER = HERE.parents[1] / "dicomweb" / "console" / "static" / "verify.js"
SCRIPTS = ("verify.js", "policy.js")
ORIGIN = "node.example/ledger"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
VKEY = checkpoint.vkey(ORIGIN, SIGNER.public_key())
LOG = 11
Case = tuple[str, str]


def said(index: int, root: bytes, **fields: Any) -> Entry:
    """An entry of the log, with some fields of its own."""
    given: dict[str, Any] = {
        "node": b"\x0e" * 16,
        "sequence": index,
        "previous": bytes(32),
        "type": "study.access",
        "ledger": b"\x1d" * 8,
        "time_us": 1_700_000_000_000_000 + index,
        "purpose": "TREAT",
        "outcome": 0,
        "who": Who(1, b"\xa1" * 16, "viewer", b"\xad" * 16),
        "study": b"\x57" * 16,
        "commitment": b"\xc0" * 32,
        "records_root": root,
    }
    return Entry(**{**given, **fields})


RECORDS = [
    record.encode(Record("study.access", n, bytes([n]) * 16, {"näme": n, "l": [1, -2, None, True, b"\0"]}))
    for n in range(5)
]
LEAVES = [record.leaf_hash(one) for one in RECORDS]
ENVELOPES = [entry.sign(entry.encode(said(index, merkle.root(LEAVES))), SIGNER) for index in range(LOG)]


def bundle(envelope: bytes, index: int, extra: bytes, note: str | None = None, size: int = LOG) -> str:
    """A proof of one envelope at an index of the log, with whatever extra data and note."""
    leaves = [entry.leaf_hash(one) for one in [*ENVELOPES[:index], envelope, *ENVELOPES[index + 1 :]]][:size]
    path = merkle.inclusion_proof(index, size, merkle.node_reader(leaves))
    note = checkpoint.make(ORIGIN, size, merkle.root(leaves), SIGNER) if note is None else note
    lines = [proof.FIRST_LINE, f"extra {encoded(extra)}", f"index {index}", *map(encoded, path)]
    return "\n".join(lines) + "\n\n" + note


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def of_record(position: int, withheld: bool = False) -> dict[str, Any]:
    of = proof.record_path(LEAVES, position, None if withheld else RECORDS[position])
    path = {"i": of.position, "l": of.leaf, "n": of.count, "p": list(of.path)}
    return path if withheld else {**path, "b": of.record}


def valid() -> list[str]:
    """Proofs of entries and records at every place of the tree and of the batch."""
    of_entries = [bundle(one, index, codec.encode({"e": one})) for index, one in enumerate(ENVELOPES)]
    of_records = [
        bundle(ENVELOPES[3], 3, codec.encode({"e": ENVELOPES[3], "r": of_record(at, withheld)}))
        for at in range(len(RECORDS))
        for withheld in (False, True)
    ]
    alone = bundle(ENVELOPES[0], 0, codec.encode({"e": ENVELOPES[0]}), size=1)
    return [*of_entries, *of_records, alone]


def off_by_one(text: str, step: int) -> Iterator[str]:
    """The text with one character changed, left out or put in, at every `step`th place."""
    for at in range(0, len(text), step):
        before, letter, after = text[:at], text[at], text[at + 1 :]
        for other in (chr(ord(letter) ^ 1), "A" if letter != "A" else "B", "\n" if letter != "\n" else " "):
            yield before + other + after
        yield before + after
        yield before + letter + letter + after


def badly_made() -> Iterator[str]:
    """Proofs of entries, signed and included, that are not the strict encoding of what an entry may say."""
    good: Any = codec.decode(entry.unwrap(ENVELOPES[3])[1])
    changes: list[dict[str, Any]] = [
        {"x": 1},
        {"oc": 1},
        {"v": 2},
        {"q": -1},
        {"q": 2**63},
        {"q": True},
        {"pu": "x" * 65},
        {"pu": "x" * 64},
        {"pu": "ß" * 64},
        {"n": b"short"},
        {"sub": {}},
        {"sub": {"s": b"s" * 16, "p": b"p" * 16}},
        {"who": {**good["who"], "r": ""}},
        {"who": {**good["who"], "k": 4}},
        {"who": [1]},
        {"obj": None},
        {"rr": b"r" * 31},
    ]
    payloads = [codec.encode({**good, **change}) for change in changes]
    payloads += [codec.encode({name: value for name, value in good.items() if name != left}) for left in good]
    payloads += [cbor2.dumps({**good, "q": 3}), b"", b"\xf6", codec.encode(good) + b"\0", codec.encode([1])]
    for payload in payloads:
        envelope = entry.sign(payload, SIGNER)
        yield bundle(envelope, 3, codec.encode({"e": envelope}))
    forged = entry.sign(entry.encode(said(3, merkle.root(LEAVES))), OTHER)
    unwrapped: Any = codec.decode(ENVELOPES[3])
    for envelope in (
        forged,
        codec.encode([*unwrapped, 1]),
        codec.encode(unwrapped[:3]),
        codec.encode([unwrapped[0], {"x": 1}, *unwrapped[2:]]),
        codec.encode([*unwrapped[:3], unwrapped[3][:63]]),
        codec.encode({"e": 1}),
        b"",
        b"\xd2" + ENVELOPES[3],
    ):
        yield bundle(envelope, 3, codec.encode({"e": envelope}))


def odd_extras() -> Iterator[str]:
    """A good entry with extra data that are not what the format says, or not its one encoding."""
    envelope = ENVELOPES[3]
    of = of_record(1)
    for value in (
        {"e": envelope, "x": 1},
        {"r": of},
        {"e": envelope, "r": None},
        {"e": encoded(envelope)},
        {"e": envelope, "r": {**of, "i": 2}},
        {"e": envelope, "r": {**of, "i": 5}},
        {"e": envelope, "r": {**of, "i": -1}},
        {"e": envelope, "r": {**of, "n": 6}},
        {"e": envelope, "r": {**of, "n": 2**64 - 1}},
        {"e": envelope, "r": {**of, "p": of["p"][:-1]}},
        {"e": envelope, "r": {**of, "p": [*of["p"], bytes(32)]}},
        {"e": envelope, "r": {**of, "p": [b"x"]}},
        {"e": envelope, "r": {**of, "b": None}},
        {"e": envelope, "r": {**of, "b": RECORDS[2]}},
        {"e": envelope, "r": {**of, "x": 1}},
        {"e": envelope, "r": [1]},
        [envelope],
        None,
    ):
        yield bundle(envelope, 3, codec.encode(value, 65536))
    canonical = codec.encode({"e": envelope})
    head = b"\xa1\x61e\x59" + len(envelope).to_bytes(2, "big")
    assert canonical == head + envelope
    for extra in (
        canonical + b"\0",
        canonical[:-1],
        b"\xbf\x61e\x59" + head[-2:] + envelope + b"\xff",
        b"\xb8\x01" + canonical[1:],
        b"\xa1\x78\x01e" + canonical[3:],
        b"\xa1\x61e\x5a\0\0" + head[-2:] + envelope,
        b"\xa2" + canonical[1:] + canonical[1:],
        b"\xc1" + canonical,
        cbor2.dumps({"r": of, "e": envelope}),
        cbor2.dumps({"e": envelope, "f": 1.5}),
        cbor2.dumps({"e": envelope, 1: 1}),
        b"\xa2" + canonical[1:] + b"\x61\xff\x01",
        b"\x81" * 17 + b"\x01",
        b"\x9b" + b"\xff" * 8,
        b"\xa2" + canonical[1:] + b"\x61r\xf7",
        b"",
    ):
        yield bundle(envelope, 3, extra)


def odd_notes() -> Iterator[str]:
    """A good entry under checkpoints signed by others, by several, or not well-formed."""
    extra = codec.encode({"e": ENVELOPES[3]})
    leaves = [entry.leaf_hash(one) for one in ENVELOPES]
    body = f"{ORIGIN}\n{LOG}\n{encoded(merkle.root(leaves))}\n"
    own = checkpoint.sign_note(body, ORIGIN, SIGNER)
    line = own.removeprefix(body + "\n")
    witness = checkpoint.sign_note(body, "witness.example", OTHER).removeprefix(body + "\n")
    extended = body + "extension line — ü\n"
    notes = [
        own + witness,
        f"{body}\n{witness}{line}",
        own + line,
        f"{body}\n{witness}",
        own + checkpoint.sign_note(body + "x\n", ORIGIN, SIGNER).removeprefix(body + "x\n\n"),
        checkpoint.sign_note(body, ORIGIN, OTHER),
        checkpoint.sign_note(body, "other.example", SIGNER),
        checkpoint.sign_note(extended, ORIGIN, SIGNER),
        checkpoint.sign_note(extended + "\n", ORIGIN, SIGNER),
        checkpoint.sign_note(body.replace(ORIGIN, "other.example"), ORIGIN, SIGNER),
        own + "— witness.example AAAA\n",
        own + "— witness.example AAAAAAAA\n",
        own + "— wit ness AAAAAAAA\n",
        own + "— wit+ness AAAAAAAA\n",
        own + "-- witness.example AAAAAAAA\n",
        own + "\n",
        own[:-1],
        own.replace("\n", "\r\n"),
        body,
        "",
    ]
    for size in (f"0{LOG}", f"+{LOG}", f"{LOG}.0", "3", "0", str(LOG + 1), "9" * 20, "\u0661"):
        notes.append(checkpoint.sign_note(body.replace(f"\n{LOG}\n", f"\n{size}\n"), ORIGIN, SIGNER))
    for note in notes:
        yield bundle(ENVELOPES[3], 3, extra, note)


def odd_keys() -> Iterator[Case]:
    """A good proof under keys that are others, or no keys."""
    text = valid()[0]
    name, id, key = VKEY.split("+", 2)
    raw = base64.b64decode(key)
    for vkey in (
        checkpoint.vkey(ORIGIN, OTHER.public_key()),
        checkpoint.vkey("other.example", SIGNER.public_key()),
        f"{name}+00000000+{key}",
        f"{name}+{id.upper()}+{key}",
        f"{name}+{id}+{key}=",
        f"{name}+{id}+{encoded(bytes([2]) + raw[1:])}",
        f"{name}+{id}+{encoded(raw[:-1])}",
        f" {VKEY}\n",
        "",
    ):
        yield text, vkey


def verdict(case: Case) -> str:
    """Python's: the step that failed, or "done"."""
    text, vkey = case
    try:
        key = checkpoint.parse_vkey(vkey)
    except LedgerError:
        return "key"
    try:
        proof.verify(text, key.name, key.key)
    except LedgerError as error:
        return error.place
    return "done"


@contextmanager
def served() -> Iterator[str]:
    """A server of the page and of the verifier, and of nothing else; the page's URL."""
    scripts = {f"/console/static/{name}": (VERIFIER.with_name(name), "text/javascript") for name in SCRIPTS}
    files = {"/": (HERE / "verify.html", "text/html"), **scripts}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.get(self.path)
            self.send_response(200 if found else 404)
            self.send_header("content-type", found[1] if found else "text/plain")
            self.end_headers()
            self.wfile.write(found[0].read_bytes() if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def in_chromium(cases: Sequence[Case], directory: Path) -> dict[str, Any]:
    """What the driver saw."""
    file = directory / "cases.json"
    file.write_text(json.dumps(cases), "utf-8")
    with served() as url:
        done = subprocess.run(
            ["node", HERE / "verify.mjs", url, file], capture_output=True, text=True, check=False, timeout=280
        )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["errors"] == []
    return seen


def every_case() -> list[Case]:
    whole = valid()
    longest, shortest = max(whole, key=len), whole[-1]
    texts = [*whole, *off_by_one(longest, 1), *off_by_one(shortest, 7), *badly_made(), *odd_extras(), *odd_notes()]
    return [*((text, VKEY) for text in texts), *odd_keys()]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return every_case()


@pytest.fixture(scope="module")
def seen(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_chromium(cases, tmp_path_factory.mktemp("verify"))


def test_the_browser_and_python_agree_on_every_proof_and_on_the_step_that_failed(
    cases: list[Case], seen: dict[str, Any]
) -> None:
    assert len(seen["verdicts"]) == len(cases) > 5000
    differing = [
        (case, given) for case, given in zip(cases, seen["verdicts"], strict=True) if given["step"] != verdict(case)
    ]
    assert not differing, differing[:3]


def test_whole_proofs_hold_and_show_the_same_facts(cases: list[Case], seen: dict[str, Any]) -> None:
    for case, given in zip(valid(), seen["verdicts"], strict=False):
        proved = proof.verify(case, ORIGIN, SIGNER.public_key())
        assert (given["ok"], given["step"]) == (True, "done")
        facts = given["facts"]
        assert (facts["index"], facts["id"]) == (proved.index, proved.leaf.hex())
        assert (facts["origin"], facts["size"], facts["root"]) == (ORIGIN, proved.head.size, proved.head.root.hex())
        assert (facts["entry"]["t"], facts["entry"]["ts"]) == (proved.entry.type, proved.entry.time_us)
        assert facts.get("leaf") == (proved.record_leaf.hex() if proved.record_leaf else None)
        body = proved.record.body if proved.record else None
        assert facts.get("record", {}).get("b") == (None if body is None else {**body, "l": [1, -2, None, True, "00"]})


def test_one_character_changed_anywhere_is_refused_with_the_step_that_failed(seen: dict[str, Any]) -> None:
    whole = valid()
    longest = max(whole, key=len)
    changed = len(list(off_by_one(longest, 1)))
    given = seen["verdicts"][len(whole) : len(whole) + changed]
    assert not any(one["ok"] for one in given)
    assert {one["step"] for one in given} == {"format", "checkpoint", "inclusion", "batch", "record"}
    assert all(one["reason"] for one in given)


def test_nothing_unproved_is_shown(seen: dict[str, Any]) -> None:
    proved_by = {
        "key": set(),
        "browser": set(),
        "format": set(),
        "checkpoint": set(),
        "inclusion": {"origin", "size", "root"},
        "entry": {"origin", "size", "root", "index", "id"},
        "batch": {"origin", "size", "root", "index", "id", "entry"},
        "record": {"origin", "size", "root", "index", "id", "entry", "leaf", "position", "count"},
    }
    for one in seen["verdicts"]:
        if not one["ok"]:
            assert set(one["facts"]) == proved_by[one["step"]]


def test_a_browser_that_cannot_judge_says_so(seen: dict[str, Any]) -> None:
    lacking, insecure = seen["without"]
    for one in (lacking, insecure):
        assert (one["ok"], one["step"], one["facts"]) == (False, "browser", {})
        assert "Ed25519" in one["reason"] and "https" in one["reason"]


def test_verifying_asks_nothing_of_the_server(seen: dict[str, Any]) -> None:
    assert set(seen["requests"]) <= {"/", "/favicon.ico", *(f"/console/static/{name}" for name in SCRIPTS)}


def test_the_verifier_is_a_hundred_lines_that_one_can_read() -> None:
    lines = VERIFIER.read_text("utf-8").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 120
    assert not any("import" in line and "importKey" not in line for line in lines)
