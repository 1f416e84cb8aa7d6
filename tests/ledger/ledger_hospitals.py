"""Hospitals of a consortium whose keys are the same in every run, for the ledger's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import entry, genesis, keys, state, terms, transaction
from ledger.entry import Entry, Who
from ledger.genesis import Card, Genesis
from ledger.members import Chain, State
from ledger.state import Grant, Opened

START = 1_700_000_000_000_000  # microseconds


def seed(label: str) -> bytes:
    """A private key that stands for a random one."""
    return hashlib.sha256(label.encode()).digest()


def public(label: str) -> bytes:
    """The Ed25519 public key of `seed`."""
    return keys.raw(Ed25519PrivateKey.from_private_bytes(seed(label)).public_key())


@dataclass
class Hospital:
    """One member: its name, the label of its ledger key, where its chain stands; `chain` None: as the state has it."""

    name: str
    key: str = ""
    first: str = ""

    def __post_init__(self) -> None:
        self.key = self.key or f"{self.name} ledger"
        self.first = self.first or self.key

    @property
    def node(self) -> bytes:
        return keys.node_id(public(self.first))

    @property
    def signer(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(seed(self.key))

    def with_key(self, key: str) -> Hospital:
        """The same hospital with another ledger key."""
        return replace(self, key=key)

    def card(self, **fields: Any) -> Card:
        """Its card, signed; `fields` are others than usual."""
        cosigner = genesis.cosigner_key(seed(self.key)).public_key()
        usual: dict[str, Any] = {
            "name": self.name,
            "key": public(self.key),
            "cosigner": keys.raw(cosigner),
            "recipient": seed(f"{self.name} keystore")[:16] + seed(f"{self.name} agreement"),
            "certificate": f"certificate of {self.name}".encode(),
            "url": f"https://{self.name}.example:8043",
            "consensus": public(f"{self.name} consensus"),
            "power": 1,
            "address": f"{public(f'{self.name} peer').hex()[:40]}@{self.name}.example:26656",
        }
        return genesis.sign_card(Card(**{**usual, **fields}), self.signer)

    def entry(
        self,
        ledger: bytes,
        chain: Chain,
        type: str,
        body: Mapping[str, object] | None = None,
        refs: Sequence[bytes] = (),
        **fields: Any,
    ) -> bytes:
        """The envelope of an entry at this place of the chain."""
        said = Entry(
            node=self.node,
            sequence=chain.sequence,
            previous=chain.previous,
            type=type,
            ledger=ledger,
            time_us=START + chain.sequence,
            purpose="HOPERAT",
            outcome=0,
            who=Who(0, seed(f"{self.name} actor")[:16], "admin"),
            study=None,
            commitment=None,
            records_root=hashlib.sha256(chain.previous + type.encode()).digest(),
            body=None if body is None else terms.encode(type, body),
            refs=tuple(refs),
        )
        return entry.sign(entry.encode(replace(said, **fields)), self.signer)

    def transaction(self, of: State, *stated: tuple[Any, ...]) -> bytes:
        """A transaction of entries (type, body, refs) that continues this hospital's chain in a state."""
        chain, envelopes = of.chain(self.node), []
        for each in stated:
            envelopes.append(self.entry(of.ledger, chain, *each))
            chain = Chain(chain.sequence + 1, entry.envelope_hash(envelopes[-1]))
        return transaction.encode(envelopes)


HOSPITALS = tuple(Hospital(f"h{number}") for number in range(4))
JOIN = ("ledger.join", {"o": "cairn/before", "s": 3, "r": bytes(32)})


def beginning(hospitals: Sequence[Hospital] = HOSPITALS) -> Genesis:
    """The genesis of a consortium of these hospitals."""
    return genesis.make("north", START, [hospital.card() for hospital in hospitals])


class Ledger:
    """A shared log as the application keeps it: the state, what may be looked up, and every entry taken."""

    def __init__(self, of: Genesis | None = None) -> None:
        self.state = state.initial(beginning() if of is None else of)
        self.height = 0
        self.grants: dict[bytes, Grant] = {}

    def take(self, tx: bytes) -> Opened:
        """Take a transaction as a block of its own; raises Refused."""
        opened = state.check(self.state, tx, self.grants.get)
        self.height += 1
        self.state = state.apply(self.state, opened, self.height)
        self.grants.update(state.grants_of(opened.entries))
        return opened

    def say(self, hospital: Hospital, *stated: tuple[Any, ...]) -> list[bytes]:
        """Have a hospital state these in one transaction; the ids of the entries."""
        return [item.leaf for item in self.take(hospital.transaction(self.state, *stated)).entries]


def joined(hospitals: Sequence[Hospital] = HOSPITALS) -> Ledger:
    """A ledger in which every hospital has stated its ledger.join."""
    ledger = Ledger(beginning(hospitals))
    for hospital in hospitals:
        ledger.say(hospital, JOIN)
    return ledger
