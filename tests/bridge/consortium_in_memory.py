"""A consortium in one process: real nodes and their real statements, sealed into one log without consensus.

`Consortium.seal` does what the ledger process and CometBFT do: closed batches become signed entries, final at once.
Members reach each other's listeners by calls, under the rules of the gateway, and each may be `down`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Content, Replication, Settings
from bridge.content import cid as cids
from bridge.crypto.hpke import Recipient
from bridge.crypto.keystore import open_keystore
from bridge.errors import CapacityError, CarInvalid, ContentMissing, EngineFault, Forbidden, NotFound
from bridge.index.record_source import SqlRecordSource
from bridge.ledger_reading import index_place
from bridge.model import Actor, ActorKind
from bridge.node import Node
from bridge.sharing import sharing_of
from ledger import entry, keys
from ledger.block import FinalEntry
from ledger.engine import Position
from ledger.genesis import Card
from ledger.members import Member, MemberKey
from ledger.sealer import entry_of
from ledger.source import Cursor
from tests.bridge.services.conftest import CHEAP

LEDGER = bytes(8)


class Clock:
    """Microseconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


class Hospital:
    """A member: its node, what it sees of the log (`bridge.ports.Consortium`), whether it answers (`down`)."""

    def __init__(self, consortium: Consortium, name: str, home: Path, settings: Replication) -> None:
        self.consortium, self.name, self.down = consortium, name, False
        whole = Settings(home=home, content=Content(reserve_bytes=0), replication=settings)
        keystore = open_keystore(home, cost=CHEAP)
        self.node = Node(whole, keystore, "command")
        self.signer = Ed25519PrivateKey.from_private_bytes(keystore.signing_seed)
        public = keys.raw(self.signer.public_key())
        to = Recipient.of(keystore.node_id, keystore.agreement_seed)
        card = Card(name, public, public, to.node + to.key, b"certificate", f"https://{name}", public, 1, "address")
        self.member = Member(card.node, card, (MemberKey(public, 0),), 1)
        self.sequence, self.previous, self.cursor = 0, entry.GENESIS, 0
        self.source = SqlRecordSource(index_place(whole), lambda what, text: bytes(16))
        self.node.consortium = self  # type: ignore[assignment]
        self.node.gateways = Gateways(self)  # type: ignore[assignment]
        self.node.statements._made = self.made
        sharing = sharing_of(self.node)
        assert sharing is not None
        self.node.sharing = replace(sharing, clock=consortium.clock)

    def own(self) -> Member | None:
        return self.consortium.members[self.name]

    def members(self) -> Sequence[Member]:
        return sorted(self.consortium.members.values(), key=lambda member: (not member.active, member.name))

    def entry(self, id: bytes) -> FinalEntry | None:
        return next((final for final in self.consortium.entries if final.id == id), None)

    def follow(self, after: int, types: Sequence[str]) -> Sequence[FinalEntry]:
        return [final for final in self.consortium.entries if final.index > after and final.entry.type in types]

    def proposals(self) -> Sequence[Any]:
        return ()

    def made(self, root: bytes, final: bool) -> bytes | None:
        for one in self.consortium.entries:
            if one.entry.node == self.member.node and one.entry.records_root == root:
                return one.id
        return None

    def seal(self) -> None:
        position = Position(LEDGER, self.member.node, self.sequence, self.previous, Cursor(b"", 0))
        for batch in self.source.closed_batches(self.cursor, 1000):
            stated = entry_of(batch, position, self.sequence, self.previous)
            kid = keys.key_id(self.signer.public_key())
            envelope = entry.sign(entry.encode(stated), self.signer, kid)
            self.consortium.add(envelope, stated)
            self.sequence, self.previous, self.cursor = self.sequence + 1, entry.envelope_hash(envelope), batch.id

    def close(self) -> None:
        self.source.close()
        self.node.consortium = self.node.gateways = None
        self.node.close()


class Consortium:
    """Some hospitals, `h0`, `h1` ..., and the log that they share."""

    def __init__(self, folder: Path, settings: Sequence[Replication]) -> None:
        self.entries: list[FinalEntry] = []
        self.clock = Clock()
        self.quiet_us = 0
        """For how long nothing had happened before what is sealed next: its block's time is so far behind."""
        self.members: dict[str, Member] = {}
        self.hospitals: dict[str, Hospital] = {}
        for number, one in enumerate(settings):
            name = f"h{number}"
            self.hospitals[name] = Hospital(self, name, folder / name, one)
            self.members[name] = self.hospitals[name].member

    def add(self, envelope: bytes, stated: entry.Entry) -> None:
        index = len(self.entries)
        now = self.clock()
        said = replace(stated, time_us=now)
        self.entries.append(FinalEntry(index, entry.leaf_hash(envelope), envelope, said, index, now - self.quiet_us))

    def seal(self) -> None:
        """All that was closed becomes final."""
        for hospital in self.hospitals.values():
            hospital.seal()

    def retire(self, name: str) -> None:
        self.members[name] = replace(self.members[name], retired=1)

    def of_type(self, kind: str) -> list[FinalEntry]:
        return [final for final in self.entries if final.entry.type == kind]

    def close(self) -> None:
        for hospital in self.hospitals.values():
            hospital.close()


class Gateways:
    """As `bridge.member_sources.MemberGateways`, by calls."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital = hospital

    def others(self) -> list[Member]:
        return [member for member in self.hospital.members() if member.name != self.hospital.name]

    def of(self, node: bytes) -> Listener:
        for member in self.others():
            if member.node == node and member.active:
                return Listener(self.hospital, self.hospital.consortium.hospitals[member.name])
        raise EngineFault("no such member")

    def close(self) -> None:
        pass


class Listener:
    """One member's listener as another reaches it."""

    def __init__(self, asking: Hospital, asked: Hospital) -> None:
        self.asking, self.asked = asking, asked
        self.actor = Actor(ActorKind.PEER, asking.name, None, "192.0.2.1", "members")

    def ask(self, method: str, path: str, body: object = None) -> Any:
        node = self._node()
        parts = urlsplit(path)
        if (method, parts.path) == ("GET", "/consortium/replicas"):
            told = node.replicas_wanted(self.asking.name, int(parse_qs(parts.query)["after"][0]))
        elif (method, parts.path) == ("POST", "/consortium/shares"):
            assert isinstance(body, bytes)
            return {"state": self._accepted(node, body)}
        else:
            raise ContentMissing(f"{method} {path}")
        return json.loads(json.dumps(told))

    def __call__(self, cid: bytes) -> bytes:
        node = self._node()
        try:
            granted = node.gateway.grant(self.actor, cids.to_text(cid))
            return node.gateway.block(self._viewing(granted), granted)
        except NotFound as error:
            raise ContentMissing(error.detail) from None

    def tree(self, root: bytes, file: BinaryIO, most: int) -> int:
        node = self._node()
        try:
            granted = node.gateway.grant(self.actor, cids.to_text(root))
            size = 0
            for chunk in node.gateway.car(self._viewing(granted), granted, (), "all", None, False).chunks:
                size += file.write(chunk)
                if size > most:
                    raise CarInvalid("more than announced")
            return size
        except NotFound as error:
            raise ContentMissing(error.detail) from None

    def _accepted(self, node: Node, body: bytes) -> str:
        try:
            return node.accept_share(self.actor, body)
        except Forbidden as error:
            raise ContentMissing(f"403: {error.detail}") from None
        except CapacityError as error:
            raise EngineFault(f"503: {error.detail}") from None

    def _node(self) -> Node:
        if self.asked.down or self.asking.down:
            raise EngineFault("it does not answer")
        return self.asked.node

    def _viewing(self, granted: Any) -> Any:
        access = self.asked.node.access
        if granted.study is not None:
            return access.view(self.actor, granted.study, "HOPERAT")
        return access.view_kept(self.actor, granted.tag, "HOPERAT")
