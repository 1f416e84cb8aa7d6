"""Statements: durable before they return, sealed with their body and references, found again by their root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Settings
from bridge.errors import RequestError
from bridge.index.record_source import SqlRecordSource
from bridge.ledger_reading import index_place, ledger_home, opener
from bridge.model import OPERATOR
from bridge.node import Node
from ledger import entry, record
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.sealer import Sealer
from ledger.store import LedgerStore

TO = bytes(range(16))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def seal(settings: Settings) -> list[entry.Entry]:
    """Do what the ledger process does; every entry so far."""
    engine = SoloEngine(ledger_home(settings), KEY, "node.example/ledger")
    source = SqlRecordSource(index_place(settings), lambda what, text: bytes(16))
    while Sealer(source, engine, KEY).step():
        pass
    engine.close()
    source.close()
    store = LedgerStore(ledger_home(settings) / DATABASE, readonly=True)
    found = [entry.read(row.envelope) for row in store.all_entries()]
    store.close()
    return found


def test_what_is_stated_becomes_one_entry_that_is_found_by_its_root(node: Node) -> None:
    key = node.keys.study_key("1.2.3")
    body = {"to": TO, "x": 7, "g": None}
    root = node.statements.make("consent.grant", OPERATOR, body, study=key, purpose="TREAT", detail={"member": "h1"})
    assert node.statements.entry_id(root, 0.0) is None
    (said,) = seal(node.settings)
    id = node.statements.entry_id(root, 5.0)
    assert id is not None and said.records_root == root
    assert (said.type, said.terms, said.study, said.purpose) == ("consent.grant", {"to": TO, "x": 7}, key.tag, "TREAT")
    node.statements.make("consent.revoke", OPERATOR, None, [id], key)
    assert seal(node.settings)[-1].refs == (id,)


def test_the_record_holds_what_only_this_node_keeps_and_is_gone_with_the_studys_key(node: Node) -> None:
    key = node.keys.study_key("1.2.3")
    node.statements.make("consent.grant", OPERATOR, {"to": TO}, study=key, detail={"member": "h1"})
    node.statements.make("gov.vote", OPERATOR, {"y": True}, [bytes(32)])
    source = SqlRecordSource(index_place(node.settings), lambda what, text: bytes(16), opener(node.keys, node.keystore))
    try:
        opened = [source.records(number)[0].record for number in (1, 2)]
        told = [record.decode(each).body for each in opened if each is not None]
        assert told[0]["study"] == "1.2.3" and told[0]["member"] == "h1" and told[0]["body"] == {"to": TO}
        assert told[1]["refs"] == [bytes(32)] and "study" not in told[1] and told[1]["actor"]["name"] == "operator"  # type: ignore[call-overload, index]
    finally:
        source.close()


@pytest.mark.parametrize(
    ("kind", "body", "refs"),
    [
        ("consent.grant", {"to": b"short"}, ()),
        ("consent.grant", {"who": "h1"}, ()),
        ("consent.grant", {"to": "free text"}, ()),
        ("app.start", {"to": TO}, ()),
        ("gov.vote", {"y": True}, ()),
        ("gov.vote", None, (bytes(32),)),
        ("share.receipt", None, (b"short",)),
    ],
)
def test_what_a_type_does_not_state_is_refused_and_leaves_nothing(
    node: Node, kind: str, body: dict[str, object] | None, refs: tuple[bytes, ...]
) -> None:
    with pytest.raises(RequestError):
        node.statements.make(kind, OPERATOR, body, refs)
    with pytest.raises(ValueError, match="fields of its own"):
        node.statements.make("app.start", OPERATOR, detail={"actor": "somebody else"})
    assert node.index.open_batches("command") == [] and node.index.counts()["closed_batches"] == 0


def test_a_statement_that_a_crash_left_open_is_closed_with_its_body(open_node: Callable[[], Node], home: Path) -> None:
    first = open_node()
    left = first.batches.open(
        "gov.vote", OPERATOR, None, "HOPERAT", body=entry.terms.encode("gov.vote", {"y": False}), refs=(b"r" * 32,)
    )
    first.batches.append(left, [first.statements._provenance.seal("gov.vote", {}, bytes(32))])
    second = open_node()  # as after a kill: the first has closed nothing
    (said,) = seal(second.settings)
    assert (said.type, said.terms, said.refs) == ("gov.vote", {"y": False}, (b"r" * 32,))


def test_how_far_something_was_followed_is_durable(open_node: Callable[[], Node]) -> None:
    node = open_node()
    assert node.index.followed.position("shares") == -1
    node.index.followed.advance("shares", 17)
    node.index.followed.advance("replicas", 3)
    node.index.followed.advance("shares", 18)
    node.close()
    assert open_node().index.followed.position("shares") == 18
