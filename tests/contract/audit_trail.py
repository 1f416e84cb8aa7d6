"""What every AuditTrail must do: subclass `AuditTrailContract` in a test file and give it a trail over facts.

`make(home)` opens an empty one; `seal(trail, facts)` puts facts into its ledger, for the next `follow` to take in.
"""

import itertools
import os
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from bridge.errors import NotFound
from ledger.event import Detail, Event, EventQuery, Participant, Patient

NODE = bytes(range(16))
NOON = 1_700_000_000_000_000
SECOND = 1_000_000
JANE = Participant("user", "jane", "clinician", "192.0.2.7", "http")
CT1 = Participant("device", "CT1", "device", "192.0.2.20", "dimse")
AUDITOR = Participant("user", "olga", "auditor", "192.0.2.9", "http")
CAIRN = Participant("system", "cairn", "", "", "node")
DOE = Patient("P1", "", "Doe^Jane")
ROE = Patient("P2", "", "Roe^Richard")


@dataclass(frozen=True, slots=True)
class Fact:
    """What becomes one entry: closed at `time_us`; `bodies` are what its records say, in order."""

    type: str = "study.access"
    time_us: int = NOON
    actor: Participant = JANE
    study: str | None = None
    patient: Patient | None = None
    purpose: str = "TREAT"
    outcome: int = 0
    reason: str = ""
    bodies: tuple[dict, ...] = ()


def told(fact):
    """The bodies of a fact's records: at least one, the first of an access being its opening record."""
    opens = {"study": fact.study, "purpose": fact.purpose, "reason": fact.reason, "opens": True}
    return [opens, *fact.bodies] if fact.type == "study.access" else list(fact.bodies) or [{"did": "it"}]


def event_of(fact, index, **given):
    """The event that a fact is at a place of the log, with an id of its own."""
    return Event(
        index=index,
        id=given.pop("id", None) or os.urandom(32),
        node=NODE,
        sequence=index,
        type=fact.type,
        time_us=fact.time_us,
        purpose=fact.purpose,
        outcome=fact.outcome,
        actor=fact.actor,
        records=len(told(fact)),
        reason=fact.reason,
        study=fact.study,
        patient=fact.patient,
        **given,
    )


def details_of(fact):
    """The records of a fact as details, unsealed."""
    return [
        Detail(os.urandom(32), position, fact.time_us, body, repr(body).encode())
        for position, body in enumerate(told(fact))
    ]


def day():
    """A day's facts, oldest first: two studies stored, looked at by two people, and what happens beside it."""
    access = Fact(study="1.2.1", patient=DOE)
    return [
        Fact("app.start", NOON, CAIRN, purpose="HOPERAT"),
        Fact("study.store", NOON + 10 * SECOND, CT1, "1.2.1", DOE),
        Fact("study.store", NOON + 20 * SECOND, CT1, "1.2.2", ROE),
        replace(access, time_us=NOON + 60 * SECOND),
        Fact("study.query", NOON + 61 * SECOND, JANE, purpose="HOPERAT", bodies=({"items": [["study", 3]]},)),
        replace(access, time_us=NOON + 3600 * SECOND, study="1.2.2", patient=ROE, purpose="ETREAT", reason="trauma"),
        Fact("access.refused", NOON + 7200 * SECOND, AUDITOR, purpose="HOPERAT", outcome=4),
        replace(access, time_us=NOON + 86_000 * SECOND, bodies=({"items": [["instance", "1.2.1.1.1", "", 2]]},)),
        Fact("audit.view", NOON + 86_400 * SECOND, AUDITOR, purpose="HOPERAT"),
    ]


class AuditTrailContract:
    """The suite; `make` and `seal` belong to the implementation."""

    def make(self, home):
        raise NotImplementedError

    def seal(self, trail, facts):
        raise NotImplementedError

    @pytest.fixture
    def trail(self, tmp_path):
        yield from self.make(tmp_path)

    @pytest.fixture
    def full(self, trail):
        self.seal(trail, day())
        trail.follow()
        return trail

    def found(self, trail, **query):
        """The indices that a query finds, as they come."""
        return [event.index for event in trail.search(EventQuery(**query))]

    def test_an_event_says_who_did_what_to_which_study_when_why_and_with_what_outcome(self, full):
        event = full.search(EventQuery(purposes=("ETREAT",)))[0]
        assert (event.index, event.type, event.time_us) == (5, "study.access", NOON + 3600 * SECOND)
        assert (event.purpose, event.reason, event.outcome, event.actor) == ("ETREAT", "trauma", 0, JANE)
        assert (event.study, event.erased, event.patient, event.records) == ("1.2.2", False, ROE, 1)
        assert (event.sequence, len(event.id), len(event.node)) == (5, 32, 16)

    def test_an_event_about_no_study_names_none(self, full):
        event = full.search(EventQuery(types=("app.start",)))[0]
        assert (event.study, event.erased, event.patient, event.actor, event.reason) == (None, False, None, CAIRN, "")

    def test_the_newest_come_first_page_by_page(self, full):
        assert self.found(full) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert self.found(full, limit=4) == [8, 7, 6, 5]
        assert self.found(full, limit=4, before=5) == [4, 3, 2, 1]
        assert self.found(full, limit=4, before=1) == [0]
        assert self.found(full, before=0) == []
        assert self.found(full, before=10**9) == self.found(full)

    @pytest.mark.parametrize(
        ("query", "indices"),
        [
            ({"types": ("study.access",)}, [7, 5, 3]),
            ({"types": ("study.access", "study.query")}, [7, 5, 4, 3]),
            ({"types": ("study.erase",)}, []),
            ({"actors": ("jane",)}, [7, 5, 4, 3]),
            ({"actors": ("olga", "CT1")}, [8, 6, 2, 1]),
            ({"actors": ("nobody",)}, []),
            ({"roles": ("auditor",)}, [8, 6]),
            ({"roles": ("",)}, [0]),
            ({"studies": ("1.2.2",)}, [5, 2]),
            ({"studies": ("1.2.2", "1.2.1", "9.9")}, [7, 5, 3, 2, 1]),
            ({"studies": ("9.9",)}, []),
            ({"patient": "P1"}, [7, 3, 1]),
            ({"patient": "P"}, []),
            ({"patient": ""}, []),
            ({"purposes": ("HOPERAT",)}, [8, 6, 4, 0]),
            ({"outcomes": (4, 8)}, [6]),
            ({"since_us": NOON + 60 * SECOND, "until_us": NOON + 3600 * SECOND}, [4, 3]),
            ({"since_us": NOON + 86_400 * SECOND}, [8]),
            ({"until_us": NOON}, []),
            ({"until_us": NOON + 1}, [0]),
            ({"types": ("study.access",), "actors": ("jane",), "purposes": ("TREAT",)}, [7, 3]),
            ({"types": ("study.access",), "actors": ("olga",)}, []),
            ({"patient": "P1", "studies": ("1.2.2",)}, []),
            ({"patient": "P1", "types": ("study.store",)}, [1]),
            ({"studies": ("1.2.1",), "since_us": NOON + 61 * SECOND}, [7]),
            ({"types": ("study.access",), "before": 7, "limit": 1}, [5]),
            ({"studies": ("1.2.1",), "before": 7, "limit": 1}, [3]),
        ],
    )
    def test_each_field_restricts_and_all_hold_together(self, full, query, indices):
        assert self.found(full, **query) == indices

    def test_nodes_restrict_too(self, full):
        node = full.search(EventQuery(limit=1))[0].node
        assert len(self.found(full, nodes=(node,))) == 9
        assert self.found(full, nodes=(bytes(16), bytes([7] * 16))) == []

    def test_an_event_is_found_by_its_id_and_by_each_of_its_records(self, full):
        for event in full.search(EventQuery()):
            assert full.event(event.id) == event
            records = full.details(event.id)
            assert len(records) == event.records
            for record in records:
                assert full.event(record.leaf) == event

    def test_details_are_the_records_in_order(self, full):
        event = full.search(EventQuery(types=("study.access",), limit=1))[0]
        opening, seen = full.details(event.id)
        assert (opening.position, seen.position) == (0, 1)
        assert opening.body["opens"] is True
        assert seen.body["items"] == [["instance", "1.2.1.1.1", "", 2]]
        assert len(seen.leaf) == 32
        assert opening.encoded

    def test_what_is_not_there_is_not_found(self, full):
        for unknown in (bytes(32), b"", b"x" * 31, os.urandom(32)):
            with pytest.raises(NotFound):
                full.event(unknown)
            with pytest.raises(NotFound):
                full.details(unknown)

    def test_an_empty_trail_finds_nothing(self, trail):
        assert trail.follow() == 0
        assert self.found(trail) == []
        assert trail.histogram(EventQuery(), 10) == []
        assert trail.facets(EventQuery()) == {"type": [], "actor": [], "role": [], "purpose": [], "outcome": []}

    def test_following_takes_in_what_was_sealed_since(self, trail):
        facts = day()
        self.seal(trail, facts[:4])
        assert self.found(trail) == []
        assert trail.follow() == 4
        assert trail.follow() == 0
        self.seal(trail, facts[4:])
        assert self.found(trail) == [3, 2, 1, 0]
        assert trail.follow() == 5
        assert self.found(trail) == [8, 7, 6, 5, 4, 3, 2, 1, 0]

    def test_facets_count_the_matching_events_most_first(self, full):
        assert full.facets(EventQuery()) == {
            "type": [
                *(("study.access", 3), ("study.store", 2), ("access.refused", 1), ("app.start", 1)),
                *(("audit.view", 1), ("study.query", 1)),
            ],
            "actor": [("jane", 4), ("CT1", 2), ("olga", 2), ("cairn", 1)],
            "role": [("clinician", 4), ("auditor", 2), ("device", 2), ("", 1)],
            "purpose": [("HOPERAT", 4), ("TREAT", 4), ("ETREAT", 1)],
            "outcome": [("0", 8), ("4", 1)],
        }

    @pytest.mark.parametrize(
        "query",
        [
            {"types": ("study.access",)},
            {"patient": "P1"},
            {"studies": ("1.2.2",)},
            {"since_us": NOON + 11 * SECOND, "until_us": NOON + 80_000 * SECOND},
            {"since_us": NOON + 11 * SECOND, "actors": ("jane",)},
            {"actors": ("nobody",)},
        ],
    )
    def test_facets_and_histogram_are_of_what_a_search_finds(self, full, query):
        found = full.search(EventQuery(**query))
        facets = full.facets(EventQuery(**query))
        assert dict(facets["type"]) == Counter(event.type for event in found)
        assert dict(facets["actor"]) == Counter(event.actor.name for event in found)
        assert dict(facets["outcome"]) == Counter(str(event.outcome) for event in found)
        for bins in (1, 2, 7, 60):
            assert sum(count for _, count in full.histogram(EventQuery(**query), bins)) == len(found)

    def test_paging_does_not_change_facets_and_histogram(self, full):
        page = EventQuery(limit=2, before=4)
        assert full.facets(page) == full.facets(EventQuery())
        assert full.histogram(page, 10) == full.histogram(EventQuery(), 10)

    @pytest.mark.parametrize("bins", [1, 2, 3, 10, 24, 60])
    def test_a_histogram_has_spans_of_one_length_from_the_first_match_to_the_last(self, full, bins):
        rows = full.histogram(EventQuery(), bins)
        starts = [start for start, _ in rows]
        assert 0 < len(rows) <= bins
        assert starts[0] <= NOON
        lengths = {after - start for start, after in itertools.pairwise(starts)}
        assert len(lengths) <= 1
        for length in lengths:
            assert starts[-1] <= NOON + 86_400 * SECOND < starts[-1] + length
            times = Counter((event.time_us - starts[0]) // length for event in full.search(EventQuery()))
            assert [count for _, count in rows] == [times[number] for number in range(len(rows))]

    def test_a_histogram_holds_the_time_that_was_asked_for(self, full):
        since, until = NOON - 86_400 * SECOND, NOON + 3 * 86_400 * SECOND
        rows = full.histogram(EventQuery(since_us=since, until_us=until), 24)
        length = rows[1][0] - rows[0][0]
        assert rows[0][0] <= since < rows[1][0]
        assert rows[-1][0] < until <= rows[-1][0] + length
        assert sum(count for _, count in rows) == 9
