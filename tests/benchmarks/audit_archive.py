"""An archive with a long audit trail, made at once: index, keys and audit.db as a hospital leaves them in two years."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bridge.audit.database import AuditDatabase
from bridge.audit.following import Followed
from bridge.audit.taking_in import Known, take_in
from bridge.audit.trail import LedgerTrail
from bridge.crypto import derive
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Cost, Keystore, open_keystore
from bridge.crypto.records import seal_record
from bridge.index.audit_source import AuditSource
from bridge.index.sqlite import SqliteDatabase
from bridge.ledger_reading import opener
from bridge.model import StudyKey
from ledger import record as ledger_record
from ledger.event import Participant
from ledger.store import StoredEntry

STUDIES, PATIENTS, PEOPLE, DEVICES = 20_000, 8_000, 400, 40
YEAR_US = 365 * 86_400 * 1_000_000
FIRST_US = 1_700_000_000_000_000
TYPES = {"study.access": 55, "study.query": 20, "study.store": 15, "audit.view": 3, "access.refused": 3, "auth.fail": 2}
RARE = {"study.export": 1, "admin.token": 1}
AT_ONCE = 2_000
_BATCH = (
    "INSERT INTO batch (batch, owner, type, actor_kind, actor_name, actor_role, actor_address, actor_how, study,"
    " study_tag, purpose, opened, outcome, closed_seq, closed, records, records_root)"
    " VALUES (?, 'bench', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)"
)


class Archive:
    """What a trail stands on, at `home`: made when it is not there."""

    def __init__(self, home: Path, events: int, report: Callable[[str], None]) -> None:
        self.home = home
        self._random = random.Random(events)
        made = (home / "made").exists()
        home.mkdir(parents=True, exist_ok=True)
        self.keystore: Keystore = open_keystore(home, cost=Cost(64, 1, 1))
        self.keys = Keyring(home / "keys" / "keys.db", self.keystore)
        self.database = SqliteDatabase(home / "index.db")
        self.studies = [f"1.2.840.99.{number}" for number in range(STUDIES)]
        self.people = [f"person {number}" for number in range(PEOPLE)]
        if not made:
            self._make_studies()
            self._make_events(events, report)
            (home / "made").touch()

    def trail(self) -> LedgerTrail:
        """The trail; to be closed."""
        source = AuditSource(self.database)
        open_record = opener(self.keys, self.keystore)
        return LedgerTrail(self.home / "audit.db", [Followed(self.home / "no ledger")], source, self.keys, open_record)

    def close(self) -> None:
        """Close index and keys."""
        self.database.close()
        self.keys.close()

    def _make_studies(self) -> None:
        self.keys._db.execute("PRAGMA synchronous=OFF")  # what a crash of a benchmark loses is made again
        for study in self.studies:
            self.keys.study_key(study)
        with closing(self.database.connect()) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("BEGIN")
            for table, rows in (("patient", self._patients()), ("study", self._studies_of_patients())):
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                marks = ", ".join(f":{name}" for name in columns)
                empty = dict.fromkeys(columns, "")
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", ({**empty, **row} for row in rows))
            connection.execute("COMMIT")

    def _patients(self) -> Iterator[dict[str, object]]:
        for number in range(PATIENTS):
            name = f'{{"00100010": {{"vr": "PN", "Value": [{{"Alphabetic": "Patient^{number}"}}]}}}}'
            yield {
                "id": number + 1,
                "identity": os.urandom(16),
                "patient_id": f"P{number}",
                "attributes": name,
            }

    def _studies_of_patients(self) -> Iterator[dict[str, object]]:
        for number, study in enumerate(self.studies):
            yield {"id": number + 1, "uid": study, "patient": number % PATIENTS + 1, "covered": 0, "received": 0}

    def _make_events(self, events: int, report: Callable[[str], None]) -> None:
        began = time.monotonic()
        with closing(AuditDatabase(self.home / "audit.db")) as audit, closing(self.database.connect()) as index:
            index.execute("PRAGMA synchronous=OFF")
            made = self._known(events)
            for number, some in enumerate(iter(lambda: list(itertools.islice(made, AT_ONCE)), []), 1):
                index.execute("BEGIN")
                index.executemany(_BATCH, (batch for batch, _, _ in some))
                index.executemany(
                    "INSERT INTO record SELECT id, 0, ?, ? FROM batch WHERE closed_seq = ?",
                    ((leaf, sealed, batch[12]) for batch, _, (leaf, sealed) in some),
                )
                index.execute("COMMIT")
                with audit.writing() as connection:
                    take_in(connection, [known for _, known, _ in some])
                if number % 50 == 0:
                    report(f"{number * AT_ONCE} events made in {time.monotonic() - began:.0f} s")

    def _known(self, events: int) -> Iterator[tuple[tuple[object, ...], Known, tuple[bytes, bytes]]]:
        """Rows of the index's batch, what the trail takes in, and (leaf, sealed) of its one record."""
        chance = self._random
        tags = {study: self.keys.study_key(study) for study in self.studies}
        step = 2 * YEAR_US // events
        weights = TYPES | RARE
        kinds = chance.choices(list(weights), list(weights.values()), k=events)
        node_key = derive.node_record_key(self.keystore.audit_key)
        node = bytes(16)
        for number, kind in enumerate(kinds):
            moment = FIRST_US + number * step + chance.randrange(step)
            actor = self._actor(kind)
            key = self._study(tags) if kind.startswith("study.") and kind != "study.query" else None
            emergency = kind == "study.access" and chance.random() < 0.01
            purpose = "ETREAT" if emergency else "TREAT" if key else "HOPERAT"
            outcome = 4 if kind in ("access.refused", "auth.fail") else 0
            body = {"reason": "unconscious, no history" if emergency else "", "opens": True}
            encoded = ledger_record.encode(ledger_record.Record(kind, moment, os.urandom(16), body))
            leaf, sealed = seal_record(derive.record_key(key) if key else node_key, encoded)
            root = hashlib.sha256(leaf).digest()
            batch = (
                *(os.urandom(16), kind, actor.kind, actor.name, actor.role or None, actor.address, actor.how),
                *(key and key.study, key and key.tag, purpose, moment, outcome, number + 1, moment, root),
            )
            tag = hashlib.sha256(f"{actor.kind}:{actor.name}".encode()).digest()[:16]
            entry = StoredEntry(
                *(number, os.urandom(32), b"", node, number, kind, moment, purpose, outcome, key and key.tag),
                *(tag, root, self.database.epoch, number + 1, 1),
            )
            yield batch, Known(entry, actor, [leaf]), (leaf, sealed)

    def _study(self, tags: dict[str, StudyKey]) -> StudyKey:
        # Some are looked at all the time, most seldom.
        return tags[self.studies[int(STUDIES * self._random.random() ** 2)]]

    def _actor(self, kind: str) -> Participant:
        chance = self._random
        if kind == "study.store":
            number = chance.randrange(DEVICES)
            return Participant("device", f"CT{number}", "device", f"192.0.2.{number}", "dimse")
        if kind == "auth.fail":
            return Participant("user", "unknown", "", "198.51.100.1", "http")
        if kind in ("audit.view", "admin.token"):
            return Participant("user", f"auditor {chance.randrange(5)}", "auditor", "192.0.2.99", "http")
        number = int(PEOPLE * chance.random() ** 2)
        role = "clinician" if number % 3 else "viewer"
        return Participant("user", self.people[number], role, f"192.0.2.{number % 250}", "http")
