"""Facts in a real ledger: recorded in an index, sealed under study keys, signed into a log, without any process."""

import os
from contextlib import closing

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.audit.following import Followed
from bridge.audit.trail import LedgerTrail
from bridge.config import Settings
from bridge.crypto import derive
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Cost, open_keystore
from bridge.index.audit_source import AuditSource
from bridge.index.index import SqlIndex
from bridge.ledger_reading import actor_tags, index_place, ledger_home, opener, origin_of, record_source
from bridge.model import Actor, ActorKind, Batch, BatchClosing, Role
from bridge.services.provenance import Provenance
from ledger import merkle
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.sealer import Sealer
from tests.contract.audit_trail import told
from tests.contract.index import unit

CHEAP = Cost(64, 1, 1)


class Archive:
    """One CAIRN_HOME: index, keys and ledger, and as many trails over it as a test wants."""

    def __init__(self, home):
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.settings = Settings(home=home)
        self.keystore = open_keystore(home, cost=CHEAP)
        self.keys = Keyring(home / "keys" / "keys.db", self.keystore)
        self.index = SqlIndex(index_place(self.settings), "test", lambda: None)
        self.source = AuditSource(self.index.database)
        self.tag = actor_tags(self.keystore)
        self._held = set()

    def trail(self):
        """A trail of its own; to be closed."""
        return LedgerTrail(
            self.home / "audit.db",
            [Followed(ledger_home(self.settings) / DATABASE)],
            self.source,
            self.keys,
            opener(self.keys, self.keystore),
        )

    def seal(self, facts):
        """Record the facts, close their batches in order, and sign an entry for each."""
        for fact in facts:
            self.record(fact)
        self.sign()

    def sign(self):
        """Sign an entry for each batch that is closed and has none."""
        signer = Ed25519PrivateKey.from_private_bytes(self.keystore.signing_seed)
        origin = origin_of(self.settings, self.keystore)
        with (
            closing(record_source(self.settings, self.keys, self.keystore)) as source,
            closing(SoloEngine(ledger_home(self.settings), signer, origin)) as engine,
        ):
            sealer = Sealer(source, engine, signer)
            while sealer.step():
                pass

    def record(self, fact):
        """One closed batch that says what the fact does; its study is held, under its patient."""
        key = None if fact.study is None else self.keys.study_key(fact.study)
        if fact.patient is not None and fact.study not in self._held:
            self._held.add(fact.study)
            names = {
                "PatientID": fact.patient.id,
                "IssuerOfPatientID": fact.patient.issuer,
                "PatientName": fact.patient.name,
            }
            identity = (fact.study, f"{fact.study}.1", f"{fact.study}.1.1")
            self.index.commit(unit(identity, **{name: value for name, value in names.items() if value})).result()
        who = fact.actor
        actor = Actor(ActorKind(who.kind), who.name, Role(who.role) if who.role else None, who.address, who.how)
        batch = Batch(
            id=os.urandom(16),
            owner="test",
            type=fact.type,
            actor=actor,
            study=fact.study,
            study_tag=key and key.tag,
            purpose=fact.purpose,
            opened=fact.time_us,
            outcome=fact.outcome,
        )
        secret = derive.node_record_key(self.keystore.audit_key) if key is None else derive.record_key(key)
        provenance = Provenance(lambda: fact.time_us)
        records = [provenance.seal(fact.type, body, secret) for body in told(fact)]
        self.index.append(batch, records).result()
        leaves = [record.leaf for record in records]
        self.index.close_batch(batch, BatchClosing(fact.time_us, len(leaves), merkle.root(leaves))).result()

    def close(self):
        """Close index and keys."""
        self.index.close()
        self.keys.close()
