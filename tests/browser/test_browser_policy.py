"""The browser's verdict on a shared log's proofs is Python's: members' keys, cosignatures and quorum of a policy."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger import checkpoint, cosignature, entry, keys, merkle, policy, proof, terms
from ledger.entry import leaf_hash
from ledger.errors import LedgerError
from ledger.shared_policy import policy_text
from tests.browser.test_browser_verify import Case, in_chromium
from tests.ledger.ledger_source import KEY, ORIGIN
from tests.ledger.shared_log import Network, seed_of, witnessed


def made(folder: Path) -> tuple[list[str], str, str]:
    """Proofs of every entry under a note of east's with three cosignatures and with two, and the policy."""
    with closing(Network(folder, copies=1)) as network:
        network.join()
        body = terms.encode("consent.grant", {"to": network["north"].node})
        grant = network.sign("west", "consent.grant", study=bytes(16), body=body)
        network.decide([[network.sign("south")], [grant]])
        revoke = network.sign("west", "consent.revoke", study=bytes(16), refs=(leaf_hash(grant),))
        network.decide([[revoke]])
        east = network["east"]
        note = east.store.checkpoint()
        assert note is not None
        two = witnessed(note, network["north"])
        three = witnessed(two, network["south"])
        leaves = east.store.leaves(0, 7)
        read = merkle.node_reader(leaves)
        envelopes = [stored.envelope for stored in east.store.all_entries()]
        proofs = [proof.make(index, envelope, three, read) for index, envelope in enumerate(envelopes)]
        return (
            proofs,
            proof.make(3, envelopes[3], two, read),
            policy_text(east.application.state, network.genesis.origin),
        )


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    proofs, short, trust = made(tmp_path_factory.mktemp("network"))
    text = proofs[5]
    lines = text.splitlines(keepends=True)
    cosigned = next(at for at, line in enumerate(lines) if line.startswith("— south "))
    flipped = lines[cosigned][:-8] + ("A" if lines[cosigned][-8] != "A" else "B") + lines[cosigned][-7:]
    west = [line for line in trust.splitlines() if not line.startswith("log ")]
    logs = [line for line in trust.splitlines() if line.startswith("log ")]
    return [
        *((one, trust) for one in proofs),
        (short, trust),
        ("".join([*lines[:cosigned], flipped, *lines[cosigned + 1 :]]), trust),
        ("".join([*lines[:cosigned], *lines[cosigned + 1 :]]), trust),
        (text, trust.replace("group members 3", "group members 4")),
        (text, trust.replace("group members 3", "group members any")),
        (text, trust.replace("group members 3", "group members all")),
        (text, trust.replace("quorum members", "quorum none")),
        (text, "\n".join([*west[:1], *logs[1:], *west[1:], ""])),
        (text.replace("index 5", "index 4"), trust),
    ]


def witnessed_alone() -> list[Case]:
    """A proof from the log of one node that two others witness: with both cosignatures, with one, and one forged."""
    said = entry.Entry(
        *(bytes(16), 0, bytes(32), "app.start", bytes(8), 1_700_000_000_000_000, "HOPERAT", 0),
        *(entry.Who(0, bytes(16)), None, None, bytes(32)),
    )
    envelope = entry.sign(entry.encode(said), KEY)
    leaves = [leaf_hash(envelope)]
    note = checkpoint.make(ORIGIN, 1, merkle.root(leaves), KEY)
    names = {name: keys.SigningKey(seed_of(name)) for name in ("west.example/witness", "south.example/witness")}
    one, both = [
        note
        + "".join(cosignature.line(checkpoint.split_note(note)[0], name, names[name], 1_700_000_100) for name in some)
        for some in (list(names)[:1], names)
    ]
    forged = note + cosignature.line("another\n", *next(iter(names.items())), 1_700_000_100)
    lines = [f"log {checkpoint.vkey(ORIGIN, KEY.public_key())}"]
    lines += [
        f"witness w{at} {cosignature.cosigner(name, key.public_key()).vkey()}"
        for at, (name, key) in enumerate(names.items())
    ]
    trust = "\n".join([*lines, "group witnesses 2 w0 w1", "quorum witnesses", ""])
    read = merkle.node_reader(leaves)
    return [(proof.make(0, envelope, text, read), trust) for text in (both, one, forged)]


def test_the_witnesses_of_a_log_that_one_node_keeps_are_asked_for_too(tmp_path: Path) -> None:
    cases = witnessed_alone()
    seen: dict[str, Any] = in_chromium(cases, tmp_path)
    assert (
        [one["step"] for one in seen["verdicts"]] == [verdict(case) for case in cases] == ["done", *["witnesses"] * 2]
    )
    assert sorted(seen["verdicts"][0]["facts"]["cosigned"]) == ["south.example/witness", "west.example/witness"]


def verdict(case: Case) -> str:
    try:
        proof.verify_under(case[0], policy.parse(case[1].encode()))
    except LedgerError as error:
        return error.place
    return "done"


def test_the_browser_and_python_agree_on_every_proof_under_a_policy(cases: list[Case], tmp_path: Path) -> None:
    seen: dict[str, Any] = in_chromium(cases, tmp_path)
    given = [one["step"] for one in seen["verdicts"]]
    assert given == [verdict(case) for case in cases]
    assert given.count("done") >= 9 and {"witnesses", "inclusion"} <= set(given)
    assert seen["verdicts"][0]["facts"]["cosigned"] == ["east", "north", "south"]
    assert seen["without"][0]["step"] == "browser"
