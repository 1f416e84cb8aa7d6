"""What a member that is not honest may try, with its own keys and its own CometBFT."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.consensus.rpc import RpcFault
from ledger import entry, keys, transaction
from ledger.entry import Entry
from ledger.state import Code
from tests.cometbft_node import COMETBFT
from tests.network.hospital import Hospital
from tests.network.namespaces import Namespace
from tests.node.running_node import RunningNode

if TYPE_CHECKING:
    from tests.network.consortium import Consortium

DAY_US = 86_400_000_000


def _newest(one: Hospital, of: Hospital) -> bytes:
    """The newest envelope of a member in another's shared log."""
    path = one.home / "consortium/ledger/ledger.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT envelope FROM entries WHERE node = ? ORDER BY seq DESC LIMIT 1", (of.node,))
        return bytes(row.fetchone()[0])


def _next(one: Hospital, envelope: bytes, **fields: object) -> bytes:
    """What would follow an envelope, signed with a member's key, with some fields otherwise."""
    last = entry.read(envelope)
    following = replace(
        last, sequence=last.sequence + 1, previous=entry.envelope_hash(envelope), records_root=secrets.token_bytes(32)
    )
    return _signed(replace(following, **fields), one.signer)  # type: ignore[arg-type]


def _signed(made: Entry, signer: Ed25519PrivateKey) -> bytes:
    return entry.sign(entry.encode(made), signer)


def _forged(liar: Hospital, victim: Hospital) -> list[bytes]:
    """An entry in another member's name, signed with the liar's own key."""
    return [_next(liar, _newest(victim, victim))]


def _altered(liar: Hospital, victim: Hospital) -> list[bytes]:
    """What another member would say next, with a signature that it never made."""
    good = _next(victim, _newest(victim, victim))
    return [good[:-1] + bytes([good[-1] ^ 1])]


def _unknown(liar: Hospital, victim: Hospital) -> list[bytes]:
    """A node that is no member."""
    key = Ed25519PrivateKey.generate()
    stranger = keys.node_id(keys.raw(key.public_key()))
    return [_signed(replace(entry.read(_newest(victim, victim)), node=stranger, sequence=0, previous=bytes(32)), key)]


def _replayed(liar: Hospital, victim: Hospital) -> list[bytes]:
    """What another member said before, from its first entry on: CometBFT never saw it in one transaction."""
    path = liar.home / "consortium/ledger/ledger.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT envelope FROM entries WHERE node = ? ORDER BY seq LIMIT 10", (victim.node,))
        return [bytes(row[0]) for row in rows]


def _second(liar: Hospital, victim: Hospital) -> list[bytes]:
    """A second entry of the liar's own at a sequence that is taken."""
    return [_signed(replace(entry.read(_newest(liar, liar)), records_root=bytes(32)), liar.signer)]


def _unchained(liar: Hospital, victim: Hospital) -> list[bytes]:
    """An own entry that does not name the one before it."""
    return [_next(liar, _newest(liar, liar), previous=bytes(32))]


def _elsewhere(liar: Hospital, victim: Hospital) -> list[bytes]:
    """An own entry for another ledger."""
    return [_next(liar, _newest(liar, liar), ledger=bytes(8))]


REFUSED: Mapping[str, tuple[Callable[[Hospital, Hospital], list[bytes]], tuple[Code, ...]]] = {
    "forged": (_forged, (Code.UNKNOWN, Code.SIGNATURE)),
    "altered": (_altered, (Code.SIGNATURE,)),
    "unknown": (_unknown, (Code.UNKNOWN,)),
    "replayed": (_replayed, (Code.TAKEN,)),
    "second": (_second, (Code.TAKEN,)),
    "unchained": (_unchained, (Code.CHAIN,)),
    "elsewhere": (_elsewhere, (Code.LEDGER,)),
}


def tell(network: Consortium, liar: Hospital, to: Hospital, how: str) -> None:
    """One lie, straight to a member's CometBFT: refused with the code for it, or accepted and to be seen."""
    victim = next(one for one in network.members.values() if one not in (liar, to))
    if how == "back-dated":
        late = _next(liar, _newest(liar, liar), time_us=entry.read(_newest(liar, liar)).time_us - DAY_US)
        assert to.submit(transaction.encode([late])).code == Code.OK
        return
    make, codes = REFUSED[how]
    told = to.submit(transaction.encode(make(liar, victim)))
    assert told.code in codes, f"{how}: {told}"


def flood(liar: Hospital, to: Hospital, count: int) -> None:
    """Junk that is no transaction, and signed entries far ahead of the liar's own: none of it stays in the way."""
    newest = _newest(liar, liar)
    for number in range(count):
        ahead = _next(liar, newest, sequence=entry.read(newest).sequence + 2 + number)
        for tx in (secrets.token_bytes(1000), transaction.encode([ahead])):
            with suppress(RpcFault):  # the mempool is full
                to.submit(tx)


class Twin:
    """A clone of a member's machine that runs beside it, with the same keys, as after a careless restore.

    The clone reaches some of the others, the original the rest, for CometBFT has one connection to an identity. It
    waits for no proposal, so that it votes against most blocks that the original votes for.
    """

    def __init__(self) -> None:
        self._node: RunningNode | None = None
        self._namespace: Namespace | None = None
        self._original: Hospital | None = None

    def start(self, network: Consortium, one: Hospital) -> None:
        """Clone the member at rest, and start both."""
        if self._namespace is None:
            self._namespace = network.switch.attach("twin")
        place = self._namespace
        others = [other.namespace.address for other in network.members.values() if other is not one]
        one.power_cut()
        home = one.home.with_name("twin")
        shutil.copytree(one.home, home, ignore=shutil.ignore_patterns("run"))
        self._original = one
        one.namespace.refuse(others[1:])
        place.refuse([one.namespace.address, *others[:1]])
        self._node = RunningNode(
            home,
            CAIRN_MEMBERS__HOST=place.address,
            CAIRN_LEDGER__COMETBFT__P2P_HOST=place.address,
            CAIRN_LEDGER__COMETBFT__BINARY=str(_hasty(home.with_name("hasty-cometbft"))),
        )
        self._node.inside = place.command
        self._node.start(ready=False)
        one.start()

    def end(self) -> None:
        """End the clone, if there is one; the original reaches all again."""
        if self._node is not None and self._original is not None:
            self._node.kill()
            shutil.rmtree(self._node.home)
            self._original.namespace.refuse([])
            self._node = None


def _hasty(path: Path) -> Path:
    """CometBFT with another configuration than it was given."""
    change = 's/^timeout_propose = .*/timeout_propose = "1ms"/'
    path.write_text(f'#!/bin/sh\nsed -i \'{change}\' "$3/config/config.toml"\nexec {COMETBFT} "$@"\n')
    path.chmod(0o755)
    return path
