"""The audit trail of a real node: what was done through its doors is found in it, made anew or not."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from bridge.audit.following import Followed
from bridge.audit.trail import LedgerTrail
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import open_keystore
from bridge.errors import StorageFault
from bridge.index.audit_source import AuditSource
from bridge.index.sqlite import SqliteDatabase
from bridge.ledger_reading import opener
from ledger.event import Event, EventQuery
from tests.node.instances import DICOM_ANY, HIGHDICOM, sendable
from tests.node.running_node import RunningNode

INSTANCE = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
STUDY = INSTANCE.path.split("/")[2]
WITHIN_S = 30.0


@contextmanager
def looked_at(node: RunningNode) -> Iterator[LedgerTrail]:
    """The node's trail as another process sees it, which follows nothing itself."""
    keystore = open_keystore(node.home)
    with (
        closing(Keyring(node.home / "keys" / "keys.db", keystore)) as keys,
        closing(SqliteDatabase(node.home / "index.db")) as index,
        closing(
            LedgerTrail(
                node.home / "audit.db",
                [Followed(node.home / "ledger" / "ledger.db")],
                AuditSource(index),
                keys,
                opener(keys, keystore),
            )
        ) as trail,
    ):
        yield trail


def until(ask: Callable[[], Sequence[Event]], count: int = 1) -> Sequence[Event]:
    """What is found once there are as many."""
    last = time.monotonic() + WITHIN_S
    while len(events := ask()) < count:
        assert time.monotonic() < last, f"{len(events)} of {count} events came in time"
        time.sleep(0.1)
    return events


def found(trail: LedgerTrail, query: EventQuery) -> Sequence[Event]:
    """What a search finds; nothing while the file is damaged."""
    try:
        return trail.search(query)
    except StorageFault:
        return []


def view(node: RunningNode) -> None:
    """Look at the instance in an emergency."""
    headers = {"accept": DICOM_ANY, "cairn-purpose": "ETREAT", "cairn-reason": "trauma room"}
    with node.http("clinician") as client:
        assert client.get(f"/dicom-web{INSTANCE.path}", headers=headers).status_code == 200


def test_what_was_done_through_the_doors_is_found(fresh_node: RunningNode) -> None:
    node = fresh_node.start()
    assert node.answer("import", str(INSTANCE.file))["outcomes"] == {"new": 1}
    with looked_at(node) as trail:
        (stored,) = until(lambda: trail.search(EventQuery(studies=(STUDY,))))
        assert (stored.actor.name, stored.actor.how, stored.records) == ("operator", "command", 1)
        assert stored.patient is not None
        with node.http(None) as client:
            wrong = {"authorization": "Bearer cairn_" + "A" * 43}
            assert client.get("/dicom-web/studies", headers=wrong).status_code == 401
        view(node)
        assert node.stop() == 0  # ends the viewing, whose entry is made last
        before = {event.id for event in trail.search(EventQuery())}
        node.start()
        (viewed,) = until(lambda: trail.search(EventQuery(types=("study.access",))))
        assert viewed.id not in before
        assert (viewed.study, viewed.purpose, viewed.reason) == (STUDY, "ETREAT", "trauma room")
        assert (viewed.actor.name, viewed.actor.role, viewed.actor.how) == ("clinician", "clinician", "http")
        assert trail.event(trail.details(viewed.id)[-1].leaf) == viewed
        (failed,) = until(lambda: trail.search(EventQuery(types=("auth.fail",))))
        assert failed.outcome == 4
        of_patient = trail.search(EventQuery(patient=stored.patient.id))
        assert [event.id for event in of_patient] == [viewed.id, stored.id]
        listed = node.answer("ledger", "entries")["entries"]
        until(lambda: trail.search(EventQuery()), len(listed))
        assert [event.id.hex() for event in trail.search(EventQuery())][::-1][: len(listed)] == [
            entry["id"] for entry in listed
        ]


def test_the_trail_is_made_again_while_the_node_runs_and_when_it_does_not(fresh_node: RunningNode) -> None:
    node = fresh_node.start()
    assert node.answer("import", str(INSTANCE.file))["outcomes"] == {"new": 1}
    with looked_at(node) as trail:
        until(lambda: trail.search(EventQuery(studies=(STUDY,))))
        file = (node.home / "audit.db").stat().st_ino
        assert node.answer("ledger", "reindex")["events"] >= 2
        assert (node.home / "audit.db").stat().st_ino != file
        assert len(trail.search(EventQuery(studies=(STUDY,)))) == 1
        node.token("viewer")
        until(lambda: trail.search(EventQuery(types=("admin.token",))))
        assert node.stop() == 0
        for name in ("audit.db", "audit.db-wal", "audit.db-shm"):
            (node.home / name).unlink(missing_ok=True)
        events = node.answer("ledger", "reindex")["events"]
        assert events == len(node.answer("ledger", "entries")["entries"])
        assert len(trail.search(EventQuery(limit=1000))) == events


def test_a_damaged_trail_neither_keeps_the_node_from_serving_nor_stays(fresh_node: RunningNode) -> None:
    node = fresh_node.start()
    assert node.answer("import", str(INSTANCE.file))["outcomes"] == {"new": 1}
    assert node.stop() == 0
    for name in ("audit.db-wal", "audit.db-shm"):
        (node.home / name).unlink(missing_ok=True)
    (node.home / "audit.db").write_bytes(os.urandom(100_000))
    node.start()
    with looked_at(node) as trail:
        until(lambda: found(trail, EventQuery(studies=(STUDY,))))
    view(node)
