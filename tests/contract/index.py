"""What every Index must do: subclass `IndexContract` in a test file and give it an index.

`make(home, before_commit)` opens the index of a home. Units are made by `unit`, which fills in what a test leaves out.
"""

import hashlib
import json
import os
import threading
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from bridge.dicom.attributes import Level, extract, key
from bridge.dicom.matching import ALL, Query, arrange, match_for
from bridge.errors import NotFound, StorageFault, StorageFull
from bridge.model import (
    Actor,
    ActorKind,
    Batch,
    BatchClosing,
    BlockPosition,
    InstanceKey,
    Outcome,
    Role,
    SealedObject,
    SealedRecord,
    WriteUnit,
)

DEVICE = Actor(ActorKind.DEVICE, "CT1", Role.DEVICE, "127.0.0.1", "dimse")
CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def tag_of(study):
    """The tag of a study at this node."""
    return hashlib.sha256(study.encode()).digest()[:16]


def batch(study="1.2.3", *, owner="test", kind="study.store", opened=1_000, tag=None):
    tag = tag or (tag_of(study) if study else None)
    return Batch(os.urandom(16), owner, kind, DEVICE, study, tag, "TREAT", opened)


def asked(future: "Future[object]"):
    """The same future, while a thread asks for what becomes of it and so writes it, or waits for who writes."""
    threading.Thread(target=future.exception, daemon=True).start()
    return future


def record():
    return SealedRecord(os.urandom(32), os.urandom(40))


def element(vr, *values):
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def header(study, series, sop, **given):
    """A DICOM JSON object; `given` by keyword adds to it or replaces: PatientName="Doe^John"."""
    values = {
        "PatientName": "Doe^John",
        "PatientID": "P1",
        "StudyDate": "20240115",
        "Modality": "CT",
        "SOPClassUID": CT,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "SOPInstanceUID": sop,
        **given,
    }
    made = {}
    for keyword, value in values.items():
        attribute = key(keyword)
        if attribute.vr == "PN" and isinstance(value, str):
            value = {"Alphabetic": value}
        made[attribute.tag] = element(attribute.vr, value)
    return made


def unit(key_=("1.2.3", "1.2.3.1", "1.2.3.1.1"), into=None, *, data=b"data", attributes=None, blocks=None, **given):
    """One unit of writing; `data` stands for the instance's bytes."""
    identity = InstanceKey(*key_)
    dataset = header(*identity, **given) if attributes is None else attributes
    return WriteUnit(
        batch=into or batch(identity.study),
        record=record(),
        key=identity,
        sop_class=CT,
        transfer_syntax=LITTLE_ENDIAN,
        digest=hashlib.sha256(data).digest(),
        tag=os.urandom(16),
        generation=1,
        object=SealedObject(os.urandom(36), os.urandom(40), 1000 + len(data)),
        link=os.urandom(36),
        data_set=332,
        frames=b"frames" + data,
        bulk=b"bulk" + data,
        json=zlib.compress(json.dumps(dataset).encode(), 1),
        attributes=extract(dataset),
        blocks=(BlockPosition(os.urandom(36), 1, 100, 50),) if blocks is None else blocks,
        received=1_700_000_000_000_000,
        source="CT1",
    )


def uids(page, tag="0020000D"):
    return [match[tag]["Value"][0] for match in page.matches]


class IndexContract:
    """The suite; `make` belongs to the implementation."""

    def make(self, home, before_commit=lambda: None):
        raise NotImplementedError

    def damage(self, index, stored):
        raise NotImplementedError

    @pytest.fixture
    def index(self, tmp_path):
        index = self.make(tmp_path)
        yield index
        index.close()

    def test_a_committed_unit_is_held_located_and_searchable(self, index):
        one = unit()
        committed = index.commit(one).result()
        assert committed.outcome is Outcome.NEW
        (stored,) = index.locate(*one.key)
        assert index.served_digest(one.key) == one.digest
        assert stored.id == committed.instance
        assert (stored.key, stored.sop_class, stored.transfer_syntax) == (one.key, CT, LITTLE_ENDIAN)
        assert (stored.digest, stored.tag, stored.generation, stored.object) == (
            one.digest,
            one.tag,
            1,
            one.object,
        )
        assert stored.study_tag == one.batch.study_tag
        assert (stored.data_set, stored.frames, stored.bulk, stored.damaged) == (332, one.frames, one.bulk, False)
        assert list(index.metadata("1.2.3")) == [(one.key, zlib.decompress(one.json))]
        assert uids(index.search(Query(Level.STUDY))) == ["1.2.3"]

    def test_what_is_not_there_is_not_found(self, index):
        index.commit(unit()).result()
        for missing in (("1.9",), ("1.2.3", "1.9"), ("1.2.3", "1.2.3.1", "1.9")):
            with pytest.raises(NotFound):
                index.locate(*missing)
            with pytest.raises(NotFound):
                index.metadata(*missing)
        with pytest.raises(NotFound):
            index.study_tree(tag_of("1.9"))
        assert index.served_digest(InstanceKey("1.2.3", "1.2.3.1", "1.9")) is None

    def test_the_same_bytes_again_add_a_record_and_nothing_else(self, index):
        into = batch()
        first = index.commit(unit(into=into)).result()
        again = index.commit(unit(into=into)).result()
        assert (first.position, again[:3]) == (0, (first.instance, Outcome.AGAIN, 1))
        assert len(index.study_tree(tag_of("1.2.3")).instances) == 1
        (match,) = index.search(Query(Level.STUDY)).matches
        assert match["00201208"]["Value"] == [1]
        self.close(index, into, 2)

    def test_the_record_is_that_of_what_was_decided(self, index):
        asked = []
        others = {outcome: record() for outcome in Outcome}

        def record_of(outcome):
            asked.append(outcome)
            return others[outcome]

        into = batch()
        units = [replace(unit(into=into, data=data), record_of=record_of) for data in (b"one", b"one", b"two")]
        done = [index.commit(unit).result() for unit in units]
        wanted = [units[0].record, others[Outcome.AGAIN], others[Outcome.VERSION]]
        assert [committed.record for committed in done] == wanted
        assert asked == [Outcome.AGAIN, Outcome.VERSION]
        assert index.open_batches("test")[0][1] == [written.leaf for written in wanted]
        self.close(index, into, 3)

    @pytest.mark.parametrize(("sender", "which"), [("CT1", 1), ("CT2", 0)])
    def test_other_bytes_are_another_version_and_the_senders_own_latest_is_served(self, index, sender, which):
        first = replace(unit(data=b"first"), source="CT1")
        second = replace(unit(data=b"second", PatientName="Other"), source=sender)
        index.commit(first).result()
        version = index.commit(second).result()
        assert version.outcome is Outcome.VERSION
        (served,) = index.locate("1.2.3")
        assert served.digest == (first, second)[which].digest
        assert index.served_digest(first.key) == served.digest
        assert len(index.study_tree(tag_of("1.2.3")).instances) == 2
        (match,) = index.search(Query(Level.SERIES, study="1.2.3")).matches
        assert match["00201209"]["Value"] == [1]

    def test_one_sop_uid_in_two_series_is_two_instances(self, index):
        assert index.commit(unit(("1.2.3", "1.2.3.1", "1.5"))).result().outcome is Outcome.NEW
        assert index.commit(unit(("1.2.3", "1.2.3.2", "1.5"))).result().outcome is Outcome.NEW
        assert index.commit(unit(("1.2.4", "1.2.3.1", "1.5"))).result().outcome is Outcome.NEW
        assert len(index.locate("1.2.3")) == 2

    def test_a_damaged_copy_is_healed_by_the_same_bytes(self, index):
        units = [unit(("1.2.3", "1.2.3.1", f"1.{number}")) for number in range(3)]
        for one in units:
            index.commit(one).result()
        self.damage(index, index.locate(*units[1].key)[0])
        assert index.locate(*units[1].key)[0].damaged
        copy = unit(units[1].key)
        assert index.commit(copy).result().outcome is Outcome.HEALED
        (stored,) = index.locate(*copy.key)
        assert not stored.damaged
        assert (stored.object, stored.tag) == (copy.object, copy.tag)
        assert index.study_tree(tag_of("1.2.3")).instances == (units[0].link, copy.link, units[2].link)

    def test_healing_makes_the_next_closing_cover_the_healed_page_anew(self, index):
        into = batch()
        for number in range(3):
            index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"), into)).result()
        self.close(index, into, 3, root=b"root", pages=(b"page",), instances=3)
        assert index.study_tree(tag_of("1.2.3")).covered == 3
        self.damage(index, index.locate("1.2.3", "1.2.3.1", "1.1")[0])
        index.commit(unit(("1.2.3", "1.2.3.1", "1.1"))).result()
        tree = index.study_tree(tag_of("1.2.3"))
        assert (tree.root, tree.pages, tree.covered) == (b"root", (), 0)

    def test_healing_keeps_the_full_pages_before_the_healed_one(self, index):
        into = batch()
        units = [unit(("1.2.3", "1.2.3.1", f"1.{number}"), into) for number in range(1002)]
        for future in [index.commit(one) for one in units]:
            future.result()
        self.close(index, into, 1002, root=b"root", pages=(b"p0", b"p1"), instances=1002)
        self.damage(index, index.locate(*units[1001].key)[0])
        index.commit(unit(units[1001].key)).result()
        assert index.study_tree(tag_of("1.2.3"))[1:4] == (b"root", (b"p0",), 1000)

    def test_instances_come_in_series_and_instance_order(self, index):
        for series, number in ((10, 1), (9, 2), (9, 10), (9, 1)):
            sop = f"1.{series}.{number}"
            given = {"SeriesNumber": series, "InstanceNumber": number}
            index.commit(unit(("1.2.3", f"1.{series}", sop), **given)).result()
        index.commit(unit(("1.2.3", "1.9", "1.9.0"))).result()
        order = ["1.9.1", "1.9.2", "1.9.10", "1.9.0", "1.10.1"]
        assert [stored.key.sop for stored in index.locate("1.2.3")] == order
        assert [identity.sop for identity, _ in index.metadata("1.2.3")] == order
        assert [stored.key.sop for stored in index.locate("1.2.3", "1.9")] == order[:4]

    def test_the_same_instance_from_many_threads_is_new_once(self, index):
        units = [unit() for _ in range(8)]
        start = threading.Barrier(8)

        def commit(one):
            start.wait()
            return index.commit(one).result().outcome

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(commit, units))
        assert sorted(outcomes) == [Outcome.AGAIN] * 7 + [Outcome.NEW]

    def test_nothing_is_committed_when_the_content_is_not_durable(self, tmp_path):
        failing = [True]

        def before_commit():
            if failing[0]:
                raise StorageFull("no room for blocks")

        index = self.make(tmp_path, before_commit)
        with pytest.raises(StorageFull):
            index.commit(unit()).result()
        with pytest.raises(NotFound):
            index.locate("1.2.3")
        index.append(batch(None, kind="auth.fail"), [record()]).result()
        failing[0] = False
        assert index.commit(unit()).result().outcome is Outcome.NEW
        index.close()

    def test_the_content_is_durable_before_anything_is_visible(self, tmp_path):
        seen = []
        index = None

        def before_commit():
            seen.append(len(index.search(Query(Level.INSTANCE)).matches))

        index = self.make(tmp_path, before_commit)
        index.commit(unit()).result()
        index.commit(unit(("1.2.3", "1.2.3.1", "1.2"))).result()
        assert seen == [0, 1]
        index.close()

    def close(self, index, into, records, **given):
        closing = BatchClosing(closed=2_000, records=records, records_root=os.urandom(32), **given)
        index.close_batch(into, closing).result()
        return closing

    def test_closing_names_the_root_and_its_pages(self, index):
        into = batch()
        links = []
        for number in range(2):
            one = unit(("1.2.3", "1.2.3.1", f"1.{number}"), into)
            index.commit(one).result()
            links.append(one.link)
        before = index.study_tree(tag_of("1.2.3"))
        assert (before.tag, before.root, before.pages, before.covered) == (into.study_tag, None, (), 0)
        self.close(index, into, 2, root=b"r1", pages=(b"p1", b"p2"), instances=2)
        tree = index.study_tree(tag_of("1.2.3"))
        assert tree == (into.study_tag, b"r1", (b"p1", b"p2"), 2, tuple(links), True)

    def test_a_root_that_covers_less_does_not_replace_one_that_covers_more(self, index):
        slow, fast = batch(), batch()
        index.commit(unit(("1.2.3", "1.2.3.1", "1.1"), slow)).result()
        index.commit(unit(("1.2.3", "1.2.3.1", "1.2"), fast)).result()
        self.close(index, fast, 1, root=b"both", pages=(b"p",), instances=2)
        self.close(index, slow, 1, root=b"one", pages=(b"q",), instances=1)
        assert index.study_tree(tag_of("1.2.3"))[1:4] == (b"both", (b"p",), 2)

    def test_a_closing_that_covers_another_number_of_records_is_refused(self, index):
        into = batch()
        index.commit(unit(into=into)).result()
        with pytest.raises(StorageFault):
            self.close(index, into, 2)
        with pytest.raises(StorageFault):
            self.close(index, batch(), 0)
        self.close(index, into, 1)

    def test_a_closed_batch_takes_no_more_records(self, index):
        into = batch()
        index.append(into, [record()]).result()
        closing = self.close(index, into, 1)
        with pytest.raises(StorageFault):
            index.append(into, [record()]).result()
        with pytest.raises(StorageFault):
            index.commit(unit(into=into)).result()
        with pytest.raises(NotFound):
            index.locate("1.2.3")
        index.close_batch(into, closing).result()
        with pytest.raises(StorageFault):
            self.close(index, into, 1)

    def test_a_unit_that_fails_does_not_take_its_group_along(self, tmp_path):
        held = threading.Event()
        first = [True]

        def before_commit():
            if first:
                first.clear()
                held.wait()

        index = self.make(tmp_path, before_commit)
        closed = batch()
        index.append(closed, [record()]).result()
        self.close(index, closed, 1)
        blocker = asked(index.commit(unit(("1.2.3", "1.2.3.1", "1.0"))))
        good = [index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"))) for number in range(1, 4)]
        bad = index.commit(unit(("1.2.9", "1.2.9.1", "1.9"), closed))
        more = [index.commit(unit(("1.2.9", "1.2.9.1", f"1.{number}"))) for number in range(4)]
        held.set()
        assert isinstance(bad.exception(), StorageFault)
        assert [one.result().outcome for one in (blocker, *good, *more)] == [Outcome.NEW] * 8
        assert len(index.locate("1.2.3")) == len(index.locate("1.2.9")) == 4
        index.close()

    def test_everything_is_there_after_closing_and_opening(self, tmp_path):
        index = self.make(tmp_path)
        index.commit(unit()).result()
        before = (index.locate("1.2.3"), index.study_tree(tag_of("1.2.3")), index.search(Query(Level.INSTANCE)))
        index.close()
        index = self.make(tmp_path)
        assert (index.locate("1.2.3"), index.study_tree(tag_of("1.2.3")), index.search(Query(Level.INSTANCE))) == before
        index.close()

    def test_counts_and_modalities_are_right_right_after_a_commit(self, index):
        for series, modality in (("1.1", "CT"), ("1.2", "MR"), ("1.3", "CT")):
            for number in range(2):
                index.commit(unit(("1.2.3", series, f"{series}.{number}"), Modality=modality)).result()
                (match,) = index.search(Query(Level.STUDY, include=frozenset({"00080062"}))).matches
        assert match["00201206"]["Value"] == [3]
        assert match["00201208"]["Value"] == [6]
        assert match["00080061"]["Value"] == ["CT", "MR"]
        assert match["00080062"]["Value"] == [CT]

    def test_a_match_returns_what_ps3_18_10_6_3_3_asks(self, index):
        index.commit(unit(StudyDescription="CHEST", InstanceNumber=7)).result()
        (study,) = index.search(Query(Level.STUDY)).matches
        assert list(study) == sorted(study)
        assert study["00080005"] == element("CS", "ISO_IR 192")
        assert study["00080056"] == element("CS", "ONLINE")
        assert study["00100010"] == element("PN", {"Alphabetic": "Doe^John"})
        assert study["00080050"] == element("SH")
        assert {"00080020", "00080030", "00080061", "00080090", "00100020", "00100030", "00100040"} <= set(study)
        assert {"0020000D", "00200010", "00201206", "00201208", "00081030"} <= set(study)
        assert not {"00080060", "0020000E", "00200013"} & set(study)
        (series,) = index.search(Query(Level.SERIES, study="1.2.3")).matches
        assert {"0020000D", "0020000E", "00080060", "00200011", "00201209"} <= set(series)
        assert not {"00100010", "00200013"} & set(series)
        (every,) = index.search(Query(Level.INSTANCE)).matches
        assert {"00100010", "0020000D", "0020000E", "00080060", "00080018", "00080016", "00200013"} <= set(every)
        (one,) = index.search(Query(Level.INSTANCE, study="1.2.3", series="1.2.3.1")).matches
        assert {"0020000D", "0020000E", "00080018", "00080016"} <= set(one)
        assert one["00200013"] == element("IS", 7)
        assert not {"00100010", "00080060"} & set(one)

    def test_what_was_asked_for_or_matched_is_returned_but_nothing_from_below(self, index):
        index.commit(unit(InstanceNumber=7)).result()
        page = index.search(Query(Level.STUDY, include=frozenset({"00080060", "00200013", "00081030"})))
        assert not {"00080060", "00200013"} & set(page.matches[0])
        page = index.search(Query(Level.SERIES, study="1.2.3", include=frozenset({"00100010"})))
        assert page.matches[0]["00100010"]["Value"] == [{"Alphabetic": "Doe^John"}]
        matched = arrange([match_for(key("PatientID"), "P1")])
        page = index.search(Query(Level.SERIES, study="1.2.3", keys=matched))
        assert page.matches[0]["00100020"]["Value"] == ["P1"]
        page = index.search(Query(Level.INSTANCE, study="1.2.3", include=ALL))
        assert page.matches[0]["00100010"]["Value"] == [{"Alphabetic": "Doe^John"}]

    def test_pages_are_newest_first_and_say_how_many_remain(self, index):
        for number in range(5):
            index.commit(unit((f"1.{number}", f"1.{number}.1", "1.9"), StudyDate=f"2024010{number + 1}")).result()
        first = index.search(Query(Level.STUDY, limit=2))
        assert (uids(first), first.remaining) == (["1.4", "1.3"], 3)
        second = index.search(Query(Level.STUDY, limit=2, offset=2))
        assert (uids(second), second.remaining) == (["1.2", "1.1"], 1)
        last = index.search(Query(Level.STUDY, limit=2, offset=4))
        assert (uids(last), last.remaining) == (["1.0"], 0)
        assert index.search(Query(Level.STUDY, limit=2, offset=6)) == ((), 0)
        assert index.search(Query(Level.STUDY, limit=0)) == ((), 5)

    def test_a_walk_over_pages_shows_no_old_study_twice_while_new_ones_arrive(self, index):
        for number in range(10):
            index.commit(unit((f"1.{number}", f"1.{number}.1", "1.9"))).result()
        seen = []
        while page := index.search(Query(Level.STUDY, limit=3, offset=len(seen))).matches:
            seen += [match["0020000D"]["Value"][0] for match in page]
            index.commit(unit((f"2.{len(seen)}", "2.1", "2.9"), StudyDate="20991231")).result()
        assert sorted(seen) == [f"1.{number}" for number in range(10)]

    def test_patients_are_told_apart_by_id_and_issuer_and_never_merged_without_one(self, index):
        people = [("P1", "A", "x"), ("P1", "A", "y"), ("P1", "B", "x"), ("", "", "x"), ("", "", "z")]
        for number, (patient, issuer, name) in enumerate(people):
            given = {"PatientID": patient, "IssuerOfPatientID": issuer, "PatientName": name}
            index.commit(unit((f"1.{number}", f"1.{number}.1", "1.9"), **given)).result()
        page = index.search(Query(Level.PATIENT, include=frozenset({"00201200"})))
        assert sorted(match["00201200"]["Value"][0] for match in page.matches) == [1, 1, 1, 2]
        (one,) = index.search(Query(Level.STUDY, study="1.1")).matches
        assert one["00100010"]["Value"] == [{"Alphabetic": "y"}]
