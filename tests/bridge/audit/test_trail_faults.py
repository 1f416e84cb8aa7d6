"""Files are damaged, ledgers restored, indexes rebuilt, keys erased: the trail goes on and says no more than it may."""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from bridge.errors import NotFound, StorageFault
from bridge.index.audit_source import AuditSource
from ledger.event import EventQuery, Participant
from tests.bridge.audit.sealed_facts import Archive
from tests.contract.audit_trail import CAIRN, DOE, JANE, NOON, SECOND, Fact, day


@pytest.fixture
def archive(tmp_path):
    with closing(Archive(tmp_path / "home")) as archive:
        yield archive


@pytest.fixture
def trail(archive):
    with closing(archive.trail()) as trail:
        yield trail


@pytest.fixture
def full(archive, trail):
    archive.seal(day())
    trail.follow()
    return trail


def indices(trail, **query):
    return [event.index for event in trail.search(EventQuery(**query))]


def test_an_erased_key_takes_study_patient_and_reason_away_at_once(archive, full):
    emergency = full.search(EventQuery(purposes=("ETREAT",)))[0]
    assert emergency.reason == "trauma"
    archive.keys.delete("1.2.2")
    event = full.event(emergency.id)
    assert (event.study, event.erased, event.patient, event.reason) == (None, True, None, "")
    assert event.actor == JANE
    assert [(record.body, record.encoded) for record in full.details(event.id)] == [(None, None)]
    assert indices(full, studies=("1.2.2",)) == indices(full, patient="P2") == []
    assert len(indices(full)) == 9


def test_nothing_that_erasing_must_reach_is_written_down(archive, full):
    full.rebuild()
    content = b"".join(path.read_bytes() for path in archive.home.glob("audit.db*"))
    assert b"jane" in content
    for secret in (b"1.2.2", b"1.2.1", b"Doe", b"P2", b"trauma"):
        assert secret not in content


def test_a_damaged_file_is_made_again(archive, full):
    before = full.search(EventQuery())
    path = archive.home / "audit.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(0)
        file.write(os.urandom(path.stat().st_size))
    archive.seal([Fact(time_us=NOON + 100_000 * SECOND)])
    for _ in range(2):  # the first one may be what finds out
        try:
            full.follow()
        except StorageFault:
            continue
    assert full.search(EventQuery())[1:] == before


def test_a_file_that_vanishes_is_made_again(archive, full):
    for path in archive.home.glob("audit.db*"):
        path.unlink()
    assert full.search(EventQuery()) == []
    assert full.follow() == 9
    assert len(indices(full)) == 9


@pytest.mark.parametrize("pragma", ["user_version = 999", "application_id = 1"])
def test_a_file_of_another_version_or_kind_is_made_again(archive, full, pragma):
    full.close()
    with closing(sqlite3.connect(archive.home / "audit.db")) as connection:
        connection.execute(f"PRAGMA {pragma}")
        connection.execute("DELETE FROM event")
        connection.commit()
    with closing(archive.trail()) as again:
        assert again.follow() == 9
        assert len(indices(again)) == 9


def test_a_file_that_is_no_database_is_made_again(archive):
    (archive.home / "audit.db").write_bytes(b"not a database" * 1000)
    archive.seal(day())
    with closing(archive.trail()) as trail:
        assert trail.follow() == 9


def test_a_trail_ahead_of_a_restored_ledger_is_made_again(archive, full, tmp_path):
    with closing(Archive(tmp_path / "other")) as other:
        other.seal([Fact("app.start", NOON, CAIRN), Fact("app.stop", NOON + 1, CAIRN)])
        full.close()
        (archive.home / "audit.db").replace(other.home / "audit.db")
        for journal in ("-wal", "-shm"):
            path = archive.home / f"audit.db{journal}"
            if path.exists():
                path.replace(other.home / path.name)
        with closing(other.trail()) as trail:
            trail.follow()
            assert [event.type for event in trail.search(EventQuery())] == ["app.stop", "app.start"]


def test_entries_of_another_epoch_are_events_as_their_envelopes_tell_them(archive, full):
    before = full.search(EventQuery(types=("study.access",)))
    assert archive.index.database.renew_epoch_below(1_000)
    full.rebuild()
    after = full.search(EventQuery(types=("study.access",)))
    assert [(event.id, event.study, event.patient) for event in after] == [
        (event.id, event.study, event.patient) for event in before
    ]
    tag = archive.tag("actor", "user:jane").hex()
    assert {event.actor for event in after} == {Participant("user", tag, "clinician")}
    assert all(event.reason == "" for event in after)
    assert all(full.details(event.id) == [] for event in after)
    assert dict(full.facets(EventQuery())["actor"])[tag] == 4


def test_what_was_known_of_actors_stays_when_the_index_is_rebuilt(archive, full):
    assert archive.index.database.renew_epoch_below(1_000)
    assert {event.actor for event in full.search(EventQuery(actors=("jane",)))} == {JANE}


def test_an_actor_gets_the_name_that_a_later_entry_tells(archive, full):
    assert archive.index.database.renew_epoch_below(1_000)
    full.rebuild()
    assert indices(full, actors=("jane",)) == []
    archive.seal([Fact(time_us=NOON + 90_000 * SECOND, study="1.2.1", patient=DOE)])
    full.follow()
    assert indices(full, actors=("jane",)) == [9, 7, 5, 4, 3]


def test_a_record_of_a_batch_that_is_gone_is_not_found(archive, full):
    event = full.search(EventQuery(limit=1))[0]
    leaf = full.details(event.id)[0].leaf
    assert full.event(leaf) == event
    assert archive.index.database.renew_epoch_below(1_000)
    with pytest.raises(NotFound):
        full.event(leaf)


def test_a_leaf_that_only_begins_alike_is_not_found(full):
    event = full.search(EventQuery(limit=1))[0]
    leaf = full.details(event.id)[0].leaf
    for id in (event.id, leaf):
        with pytest.raises(NotFound):
            full.event(id[:8] + os.urandom(24))


def test_following_goes_on_through_many_transactions(archive, trail):
    archive.seal([replace(Fact("study.query", purpose="HOPERAT"), time_us=NOON + number) for number in range(450)])
    assert trail.follow() == 450
    assert indices(trail, limit=1000) == list(range(449, -1, -1))


def test_a_rebuild_tells_how_far_it_is_and_keeps_the_answers(archive, full):
    before = full.search(EventQuery())
    assert full.rebuild() == 9
    assert full.search(EventQuery()) == before
    assert full.follow() == 0
    archive.seal([Fact(time_us=NOON + 90_000 * SECOND)])
    assert full.follow() == 1


def test_searches_go_on_while_the_trail_is_made_again(full):
    before = full.search(EventQuery())
    done = threading.Event()

    def ask():
        answers = []
        while not done.is_set():
            answers.append(full.search(EventQuery()) == before)
        return answers

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            for _ in range(30):
                assert full.rebuild() == 9
        finally:
            done.set()
        for answers in asking:
            assert answers.result()
            assert all(answers.result())


def test_two_trails_over_one_file_take_each_entry_in_once(archive, trail):
    with closing(archive.trail()) as other:
        archive.seal(day()[:5])
        assert trail.follow() + other.follow() == 5
        archive.seal(day()[5:])
        assert other.follow() + trail.follow() == 4
        assert indices(trail) == indices(other) == list(range(8, -1, -1))
        other.rebuild()
        assert indices(trail) == list(range(8, -1, -1))
        archive.seal([Fact(time_us=NOON + 90_000 * SECOND)])
        assert trail.follow() + other.follow() == 1
        assert indices(trail, limit=1) == indices(other, limit=1) == [9]


def test_only_the_owner_may_read_the_file(archive, full):
    full.rebuild()
    for path in archive.home.glob("audit.db*"):
        assert path.stat().st_mode & 0o077 == 0


def test_numbers_beyond_any_time_or_index_are_taken_for_the_farthest(full):
    far = 10**30
    assert len(indices(full, since_us=-far, until_us=far, before=far, limit=far)) == 9
    assert indices(full, limit=0) == []


def test_a_closed_trail_says_so(archive, full):
    full.close()
    assert full.follow() == 0
    with pytest.raises(StorageFault):
        full.search(EventQuery())


def test_the_source_knows_a_study_without_a_patients_name(archive):
    archive.seal([Fact("study.store", NOON, JANE, "1.2.9", replace(DOE, id="P9", issuer="ISS", name="A^B=山=P^Q"))])
    source = AuditSource(archive.index.database)
    patient = source.patient_of("1.2.9")
    assert (patient.id, patient.issuer) == ("P9", "ISS")
    assert source.patient_of("9.9") is None
    assert source.studies_of("P9") == ["1.2.9"]
