"""A small real log, its events and its proofs, in memory: what the node in memory offers to who audits."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from node_in_memory import SERIES, STUDY, FakeNode

from bridge.errors import NotFound
from ledger import checkpoint, entry, keys, merkle, proof, record, tiles
from ledger.entry import Entry, Who
from ledger.event import Detail, Event, Participant, Patient
from ledger.record import Record
from tests.contract.memory_trail import MemoryTrail

ORIGIN = "node.example/ledger"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MADE_US = 1_700_000_000_000_000
VIEWED = f"{SERIES}.7"


class MemoryLog:
    """The port LedgerLog over envelopes in a list, every hash computed anew."""

    def __init__(self) -> None:
        self.envelopes: list[bytes] = []
        self.records: dict[bytes, tuple[int, list[bytes]]] = {}

    @property
    def leaves(self) -> list[bytes]:
        return [entry.leaf_hash(envelope) for envelope in self.envelopes]

    def key(self, of: bytes | None = None) -> str:
        return checkpoint.vkey(ORIGIN, SIGNER.public_key())

    def checkpoint(self) -> str | None:
        return checkpoint.make(ORIGIN, len(self.leaves), merkle.root(self.leaves), SIGNER) if self.envelopes else None

    def signed(self, size: int | None = None) -> str | None:
        return self.checkpoint() if size in (None, len(self.envelopes)) else None

    def policy(self) -> str:
        return f"log {self.key()}\nquorum none\n"

    def file(self, path: str) -> bytes:
        tile = tiles.parse_path(path)
        level = max(tile.level, 0) if tile else 0
        if tile is None or tile.number * tiles.WIDTH + tile.width > len(self.envelopes) >> level * tiles.HEIGHT:
            raise NotFound("no such tile")
        if tile.level == tiles.ENTRIES:
            return tiles.bundle_bytes(self.envelopes[tile.number * tiles.WIDTH :][: tile.width])
        return tiles.tile_bytes(tile, merkle.node_reader(self.leaves))

    def envelope(self, id: bytes) -> bytes:
        return self.envelopes[self._index(id)]

    def prove(self, id: bytes) -> str:
        note, read = self.checkpoint(), merkle.node_reader(self.leaves)
        if note is None:
            raise NotFound("the log is empty")
        if id in self.records:
            index, encoded = self.records[id]
            leaves = [record.leaf_hash(one) for one in encoded]
            position = leaves.index(id)
            of = proof.record_path(leaves, position, encoded[position])
            return proof.make(index, self.envelopes[index], note, read, of)
        index = self._index(id)
        return proof.make(index, self.envelopes[index], note, read)

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        if not 0 <= first <= second <= len(self.envelopes):
            raise NotFound("the log never had these sizes, in this order")
        return merkle.consistency_proof(first, second, merkle.node_reader(self.leaves))

    def _index(self, id: bytes) -> int:
        if id not in self.leaves:
            raise NotFound("no entry has this id")
        return self.leaves.index(id)


class Ledger:
    """A log and its trail that grow together."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.trail = MemoryTrail()

    def attach(self, node: FakeNode) -> Ledger:
        """Make it the node's."""
        node.audit, node.log = self.trail, self.log
        return self

    def add(
        self,
        kind: str,
        *bodies: dict[str, object],
        actor: str = "reader",
        role: str = "viewer",
        study: str | None = None,
        patient: Patient | None = None,
        outcome: int = 0,
        purpose: str = "TREAT",
        how: str = "http",
    ) -> Event:
        """One more entry over records with these bodies, its event found at once."""
        index = len(self.log.envelopes)
        time_us = MADE_US + index * 1_000_000
        encoded = [
            record.encode(Record(kind, time_us + at, bytes([at]) * 16, body)) for at, body in enumerate(bodies or ({},))
        ]
        leaves = [record.leaf_hash(one) for one in encoded]
        said = Entry(
            node=keys.node_id(SIGNER.public_key()),
            sequence=index,
            previous=entry.envelope_hash(self.log.envelopes[-1]) if index else entry.GENESIS,
            type=kind,
            ledger=entry.ledger_id(ORIGIN, SIGNER.public_key()),
            time_us=time_us,
            purpose=purpose,
            outcome=outcome,
            who=Who(1, b"\xa1" * 16, role),
            study=b"\x57" * 16 if study else None,
            commitment=None,
            records_root=merkle.root(leaves),
        )
        envelope = entry.sign(entry.encode(said), SIGNER)
        self.log.envelopes.append(envelope)
        self.log.records |= dict.fromkeys(leaves, (index, encoded))
        event = Event(
            index=index,
            id=entry.leaf_hash(envelope),
            node=said.node,
            sequence=index,
            type=kind,
            time_us=time_us,
            purpose=purpose,
            outcome=outcome,
            actor=Participant("user", actor, role, "127.0.0.1", how),
            records=len(encoded),
            study=study,
            patient=patient,
        )
        details = [
            Detail(leaf, at, time_us + at, record.decode(one).body, one)
            for at, (leaf, one) in enumerate(zip(leaves, encoded, strict=True))
        ]
        self.trail.add(event, details)
        return event


def some() -> Ledger:
    """Seven entries: a start, a store of two instances, views of each, a query, a refusal, and another study's view."""
    ledger, patient = Ledger(), Patient("P-1", "HOSPITAL", "Doe^Jane")
    about = {"study": STUDY, "patient": patient}
    ledger.add("app.start", {"version": "0"}, actor="cairn", role="")
    ledger.add(
        "study.store",
        *({"study": STUDY, "series": SERIES, "instance": sop, "digest": b"\0\1"} for sop in ("1.1", "1.2")),
        actor="CT1",
        role="device",
        **about,  # type: ignore[arg-type]
    )
    for sop in ("1.1", "1.2"):
        opens, items = {"study": STUDY, "opens": True}, {"items": [["instance", sop, "", 1]]}
        ledger.add("study.access", opens, items, **about)  # type: ignore[arg-type]
    ledger.add("study.query", {"items": [["study", 3]]})
    ledger.add("access.refused", {"items": [["role", 1]]}, outcome=4)
    ledger.add("study.access", {"study": "9.9", "opens": True}, study="9.9", purpose="ETREAT")
    return ledger
