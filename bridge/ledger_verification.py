"""`cairn ledger verify`: this node's ledgers, whole, with the records behind them, whether a node runs or not.

It needs no node that opens: of a database that is damaged it says what and where, instead of ending with that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any, Final, NamedTuple

from bridge.config import Settings
from bridge.consortium import CARD, SharedConsortium, folder, own_consortium
from bridge.consortium_log import OwnNode, former_key, own_node
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore, open_keystore
from bridge.errors import DatabaseDamaged, StorageFault
from bridge.ledger_reading import current_database, ledger_home, origin_of, public_key, record_source
from bridge.ledger_reading import shared_ledger_home as shared_home
from bridge.node import Node
from bridge.runlock import RunLock
from ledger import audit as ledger_audit
from ledger import audit_shared, checkpoint, genesis, kept, keys, merkle, proof
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.policy import Policy
from ledger.shared_policy import log_policy
from ledger.source import RecordSource
from ledger.store import LedgerStore
from ledger.verify import Trust

Report = Callable[[str], None]
TOLD_EVERY: Final = 10_000
PATIENCE_S: Final = 15.0


class _Home(NamedTuple):
    """What is asked of a node: its settings, its keys, those of studies, its consortium if it is in one."""

    settings: Settings
    keystore: Keystore
    keys: Keyring
    consortium: SharedConsortium | None


class _Found(NamedTuple):
    """Findings; how many entries there are (None: that cannot be read), wait, and are of a state that comes yet."""

    findings: list[Finding]
    entries: int | None
    waiting: int = 0
    arriving: int = 0


def verify(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Every finding about this node's ledger and the records behind it, also against an older checkpoint (`since`).

    In a consortium: about its own log, the shared one, the outbox, and the records behind all of them. With `hashes`,
    of the tree and files alone. {"findings": [{"place", "what"}], "entries", "waiting" (for consensus), "arriving" (of
    a state that is being taken over from other members)}.
    """
    return _verified(_Home(node.settings, node.keystore, node.keys, node.consortium), arguments, report)


def verify_damaged(settings: Settings, arguments: Mapping[str, Any], report: Report) -> object:
    """`verify` where no node runs, and none opens because a database is damaged.

    Raises InUse when one runs after all, DatabaseDamaged when it is the database of keys.
    """
    with ExitStack() as opened:
        opened.enter_context(RunLock(settings.home, PATIENCE_S))
        keystore = open_keystore(settings.home, settings.keys.passphrase_file)
        held = opened.enter_context(closing(Keyring(settings.home / "keys" / "keys.db", keystore)))
        consortium = own_consortium(settings, keystore)
        if consortium is not None:
            opened.callback(consortium.close)
        return _verified(_Home(settings, keystore, held, consortium), arguments, report)


def _verified(home: _Home, arguments: Mapping[str, Any], report: Report) -> object:
    def progress(what: str, done: int, of: int) -> None:
        if done % TOLD_EVERY == 0 and done:
            report(f"{done:,} of {of:,} {what} verified")

    told = {
        "progress": partial(progress, "entries"),
        "progress_of_records": partial(progress, "entries' records"),
        "signatures": not arguments.get("hashes"),
    }
    try:
        with closing(record_source(home.settings, home.keys, home.keystore)) as source:
            found = _audited(home, source, told)
    except DatabaseDamaged as error:  # of the index
        found = _audited(home, None, told)
        found.findings.append(Finding("index.db", f"{error.detail}; records were not compared"))
    if arguments.get("since") is not None:
        found.findings.extend(_since(home, arguments["since"]))
    return {
        "findings": [{"place": finding.place, "what": finding.what} for finding in found.findings],
        "entries": found.entries,
        "waiting": found.waiting,
        "arriving": found.arriving,
    }


def _audited(home: _Home, source: RecordSource | None, told: Mapping[str, Any]) -> _Found:
    settings, keystore, consortium = home.settings, home.keystore, home.consortium
    place, origin = ledger_home(settings), origin_of(settings, keystore)
    if consortium is None:
        findings = ledger_audit.audit(place, public_key(keystore), origin, source, **told)
        return _Found(findings, _size(settings))
    own = _own(home, consortium)
    found = audit_shared.audit_shared(
        shared_home(settings),
        consortium.genesis,
        own.id,
        keys.raw(public_key(keystore)),
        (place, Trust.solo(_former_key(home, consortium), origin)),
        source,
        **told,
    )
    return _Found(found.findings, found.entries, found.waiting, found.arriving)


def _own(home: _Home, consortium: SharedConsortium) -> OwnNode:
    """This node in the shared log; where that cannot be read, as its genesis has it, or as this key alone says."""
    with suppress(StorageFault):
        return own_node(consortium, home.keystore)
    first = keys.raw(public_key(home.keystore))
    with suppress(OSError, ValueError, LedgerError):
        name = genesis.parse_card((folder(home.settings.home) / CARD).read_text("ascii")).name
        first = next((card.key for card in consortium.genesis.cards if card.name == name), first)
    return OwnNode(keys.node_id(first), first)


def _former_key(home: _Home, consortium: SharedConsortium) -> bytes:
    """The key of the log that the node kept alone."""
    with suppress(StorageFault):
        return former_key(home.settings, home.keystore, consortium)
    return _own(home, consortium).first


def _since(home: _Home, text: str) -> list[Finding]:
    """What of this node's ledger contradicts an older checkpoint, or the checkpoint of an older proof."""
    own = Policy.of_log(origin_of(home.settings, home.keystore), public_key(home.keystore))
    asked, database = own, current_database(home.settings)
    try:
        if home.consortium is not None:
            asked = _shared_trust(home.consortium, home.keystore)
            if _origin(text) == own.logs[0].name:  # of the log that was closed
                asked = Policy.of_log(own.logs[0].name, _former_key(home, home.consortium))
                database = ledger_home(home.settings) / database.name
        older = kept.read(text, asked).head
    except LedgerError as error:
        return [kept.unreadable(error)]
    except StorageFault as error:
        return [Finding(database.name, error.detail)]
    try:
        with closing(LedgerStore(database, readonly=True)) as store:
            return kept.contradictions(older, store.size(), lambda size: merkle.root(store.leaves(0, size)))
    except (LedgerError, OSError) as error:
        return [Finding(database.name, f"it cannot be read: {error}")]


def _shared_trust(consortium: SharedConsortium, keystore: Keystore) -> Policy:
    """The checkpoints of any member, and this node's own before the log has its key. Raises StorageFault."""
    return log_policy(consortium.state(), consortium.genesis.origin, key=keys.raw(public_key(keystore)))


def _origin(text: str) -> str | None:
    """Of which log a checkpoint, or a proof, is; None when it is neither."""
    try:
        note = proof.parse(text).note if text.startswith(proof.FIRST_LINE) else text
        return checkpoint.parse(checkpoint.split_note(note)[0]).origin
    except LedgerError:
        return None


def _size(settings: Settings) -> int | None:
    """How many entries the ledger holds; None when it cannot be read, which a finding has said."""
    try:
        with closing(LedgerStore(current_database(settings), readonly=True)) as store:
            return store.size()
    except (LedgerError, OSError):
        return None
