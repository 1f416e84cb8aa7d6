"""A consortium's shared log without CometBFT: each application is handed the same blocks, one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import cosignature, entry, genesis, keys, merkle, terms, transaction
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.abci.messages import Block, Misbehavior
from ledger.block_store import BlockStore
from ledger.engine import Sealed
from ledger.entry import Entry, Who
from ledger.genesis import Card
from ledger.publication import Publication
from ledger.source import Cursor
from ledger.store import FOREIGN
from ledger.tile_files import TileFiles

NAMES = ("east", "north", "south", "west")
START_US = 1_700_000_000_000_000


def seed_of(name: str, what: str = "ledger") -> bytes:
    """A private key that is the same in every run."""
    return hashlib.sha256(f"{name} {what}".encode()).digest()


def signed(envelope: bytes, batch: Cursor, records: int) -> Sealed:
    """An entry that is signed already, for an outbox."""
    return Sealed(entry.read(envelope), entry.unwrap(envelope)[1], batch, records, lambda payload: envelope)


class Hospital:
    """One member: keys, card, and, once it has a home, its copy of the log."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signer = Ed25519PrivateKey.from_private_bytes(seed_of(name))
        self.cosigner = genesis.cosigner_key(seed_of(name))
        self.consensus = keys.raw(Ed25519PrivateKey.from_private_bytes(seed_of(name, "consensus")).public_key())
        self.node = keys.node_id(self.signer.public_key())
        self.card = self.card_of(self.signer, self.cosigner)
        self.sequence, self.previous = 0, entry.GENESIS

    def card_of(self, signer: Ed25519PrivateKey, cosigner: Ed25519PrivateKey) -> Card:
        """This member's card with these keys."""
        public, witness = keys.raw(signer.public_key()), keys.raw(cosigner.public_key())
        recipient, certificate = self.node + seed_of(self.name, "recipient"), self.name.encode()
        stated = (certificate, f"https://{self.name}:8043", self.consensus, 10, f"{'0' * 40}@{self.name}:26656")
        return genesis.sign_card(Card(self.name, public, witness, recipient, *stated), signer)

    def open(self, home: Path, of: genesis.Genesis) -> None:
        """Make this member's copy of the log below a folder."""
        self.home = home
        home.mkdir(parents=True)
        self.store = BlockStore(home / "ledger.db")
        signers = Signers(self.node, self.signer, self.cosigner, self.name)
        self.application = ConsortiumApplication(self.store, of, signers, lambda: 1_700_000_100)

    def sign(self, ledger: bytes, type: str = "app.start", at_s: int = 0, **given: object) -> bytes:
        """The next entry of this member's chain."""
        said = Entry(
            node=self.node,
            sequence=self.sequence,
            previous=self.previous,
            type=type,
            ledger=ledger,
            time_us=START_US + at_s * 1_000_000,
            purpose="TREAT",
            outcome=0,
            who=Who(0, bytes(16)),
            study=given.get("study"),  # type: ignore[arg-type]
            commitment=None,
            records_root=given.get("root") or seed_of(self.name, f"root {self.sequence}"),  # type: ignore[arg-type]
            body=given.get("body"),  # type: ignore[arg-type]
            refs=given.get("refs", ()),  # type: ignore[arg-type]
        )
        envelope = entry.sign(entry.encode(said), self.signer)
        self.sequence, self.previous = said.sequence + 1, entry.envelope_hash(envelope)
        return envelope

    def wait(self, envelope: bytes, batch: Cursor = FOREIGN, records: int = 0) -> None:
        """Put an entry of this member's into its outbox."""
        with self.store.writing():
            self.store.put([signed(envelope, batch, records)], batch)

    def publish(self) -> None:
        """Write tiles and checkpoint, and settle the database."""
        with self.store.writing():
            published = Publication(self.store, TileFiles(self.home))
            published.publish()
            published.settle()


class Network:
    """Members that agree on every block. `blocks` below are decided by hand."""

    def __init__(self, home: Path, names: Sequence[str] = NAMES, copies: int | None = None) -> None:
        self.hospitals = {name: Hospital(name) for name in names}
        self.genesis = genesis.make("test", START_US, [one.card for one in self.hospitals.values()])
        self.ledger, self.height = self.genesis.ledger, 0
        self.copies = list(self.hospitals.values())[:copies]
        for one in self.copies:
            one.open(home / one.name, self.genesis)

    def __getitem__(self, name: str) -> Hospital:
        return self.hospitals[name]

    def sign(self, name: str, type: str = "app.start", at_s: int = 0, **given: object) -> bytes:
        """The next entry of a member."""
        return self.hospitals[name].sign(self.ledger, type, at_s, **given)

    def join(self) -> None:
        """A block with every member's ledger.join."""
        body = terms.encode("ledger.join", {"o": "none", "s": 0, "r": merkle.EMPTY_ROOT})
        joins = [[self.sign(name, "ledger.join", body=body, root=merkle.EMPTY_ROOT)] for name in self.hospitals]
        assert set(self.decide(joins)) == {0}

    def decide(
        self, runs: Sequence[Sequence[bytes]], at_s: int | None = None, lies: Sequence[Misbehavior] = ()
    ) -> list[int]:
        """One block of these runs, at a time in seconds after the start; the code that each transaction got."""
        self.height += 1
        time_ns = (START_US + (self.height if at_s is None else at_s) * 1_000_000) * 1000
        hash = hashlib.sha256(f"block {self.height}".encode()).digest()
        txs = [transaction.encode(run) for run in runs]
        codes: list[int] = []
        hashes = set()
        for one in self.copies:
            decided = Block(
                txs=txs, height=self.height, time_ns=time_ns, proposer=bytes(20), misbehavior=lies, hash=hash
            )
            finalized = one.application.finalize_block(decided)
            one.application.commit()
            codes = [result.code for result in finalized.results]
            hashes.add(finalized.app_hash)
        assert len(hashes) == 1
        return codes

    def lie(self, name: str, height: int = 1) -> Misbehavior:
        """Evidence that a member's validator signed twice at a height."""
        return Misbehavior(1, self.hospitals[name].card.validator, height, START_US * 1000, 40, 10)

    def cosign(self, size: int) -> None:
        """Every member's cosignature of the checkpoint of a size, at every other."""
        lines = {}
        for one in self.copies:
            note = one.store.checkpoint(size)
            assert note is not None
            lines[one.name] = note.splitlines(keepends=True)[-1]
        for one in self.copies:
            for name, line in lines.items():
                one.store.add_cosignature(size, name, line)

    def close(self) -> None:
        """Close the copies."""
        for one in self.copies:
            one.store.close()


def witnessed(note: str, hospital: Hospital, time_s: int = 1_700_000_200) -> str:
    """A note with a member's cosignature."""
    return cosignature.sign(note, hospital.name, hospital.cosigner, time_s)
