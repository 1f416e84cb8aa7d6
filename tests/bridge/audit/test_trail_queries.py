"""Whatever is asked, the trail over audit.db answers what the plain reading of the port answers."""

import random
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.audit import searching
from ledger.event import EventQuery, Participant, Patient
from tests.bridge.audit.sealed_facts import Archive
from tests.contract.audit_trail import NOON, Fact
from tests.contract.memory_trail import MemoryTrail

HOUR = 3_600_000_000
KINDS = ["study.access", "study.store", "study.export", "study.query", "auth.fail", "admin.token"]
PEOPLE = [
    *(
        Participant("user", f"person {number}", role, "192.0.2.1", "http")
        for number in range(12)
        for role in ("viewer",)
    ),
    Participant("user", "person 0", "clinician", "192.0.2.2", "http"),
    Participant("device", "person 1", "device", "192.0.2.3", "dimse"),
    Participant("system", "cairn", "", "", "node"),
]
STUDIES = [f"1.2.{number}" for number in range(9)]
PATIENTS = {study: Patient(f"P{number % 4}", "", f"Name^{number % 4}") for number, study in enumerate(STUDIES)}
PURPOSES = ["TREAT", "ETREAT", "HOPERAT"]
FACTS = 700
NODES = (bytes(16), bytes([1] * 16))


def facts():
    """Many facts over some months, in bursts and pauses, with a clock that was set back now and then."""
    chance = random.Random(4)
    moment = NOON
    made = []
    for _ in range(FACTS):
        moment += chance.choice([0, 1, 1000, 10**6, 10**8, HOUR, 30 * HOUR])
        if chance.random() < 0.02:
            moment -= 40 * HOUR
        kind = chance.choice(KINDS)
        about = kind.startswith("study.") and kind != "study.query"
        study = chance.choice(STUDIES) if about else None
        made.append(
            Fact(
                kind,
                moment,
                chance.choice(PEOPLE),
                study,
                None if study is None else PATIENTS[study],
                chance.choice(PURPOSES),
                chance.choice([0, 0, 0, 4, 8]),
                chance.choice(["", "why"]) if kind == "study.access" else "",
            )
        )
    return made


MOMENTS = sorted({fact.time_us for fact in facts()})


@pytest.fixture(scope="module")
def trails(tmp_path_factory):
    """The trail over audit.db, and one in memory over the same events."""
    with closing(Archive(tmp_path_factory.mktemp("queries") / "home")) as archive, closing(archive.trail()) as trail:
        archive.seal(facts())
        assert trail.follow() == FACTS
        yield trail, MemoryTrail(trail.search(EventQuery(limit=FACTS)))


@pytest.fixture(params=["as it is", "one by one", "looking through little"])
def tried(request, monkeypatch):
    """Each way of finding events is taken."""
    if request.param != "as it is":
        monkeypatch.setattr(searching, "FEW", 10**9 if request.param == "one by one" else 0)
        monkeypatch.setattr(searching, "WINDOW", 5)


def some(values, most=3):
    return st.lists(st.sampled_from(values), max_size=most, unique=True).map(tuple)


moments = st.none() | st.sampled_from(MOMENTS) | st.integers(NOON - 10**13, MOMENTS[-1] + 10**13)
queries = st.builds(
    EventQuery,
    types=some([*KINDS, "study.erase"]),
    actors=some([*sorted({person.name for person in PEOPLE}), "nobody"]),
    roles=some(["viewer", "clinician", "device", "", "admin"]),
    studies=some([*STUDIES, "9.9"]),
    patient=st.sampled_from([None, None, None, "P0", "P3", "P9"]),
    purposes=some(PURPOSES),
    outcomes=some([0, 4, 8, 12]),
    nodes=st.just(()) | some(NODES, 1),
    since_us=moments,
    until_us=moments,
    before=st.none() | st.integers(0, FACTS + 10),
    limit=st.sampled_from([1, 2, 7, 100, 1000]),
)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_events_are_the_facts(trails):
    trail, _ = trails
    events = trail.search(EventQuery(limit=FACTS))[::-1]
    for event, fact in zip(events, facts(), strict=True):
        assert (event.type, event.time_us, event.actor, event.study) == (
            fact.type,
            fact.time_us,
            fact.actor,
            fact.study,
        )
        assert (event.patient, event.purpose, event.outcome) == (fact.patient, fact.purpose, fact.outcome)
        assert event.reason == fact.reason


@given(query=queries)
@thorough
def test_a_search_finds_the_same_events(trails, tried, query):
    trail, plain = trails
    assert trail.search(query) == plain.search(query)


@given(query=queries)
@thorough
def test_facets_count_the_same(trails, query):
    trail, plain = trails
    assert trail.facets(query) == plain.facets(query)


@given(query=queries, bins=st.integers(1, 100))
@thorough
def test_a_histogram_counts_the_same(trails, query, bins):
    trail, plain = trails
    assert trail.histogram(query, bins) == plain.histogram(query, bins)


@given(query=queries)
@thorough
def test_pages_put_together_are_the_whole(trails, tried, query):
    trail, plain = trails
    whole = plain.search(EventQuery(types=query.types, actors=query.actors, roles=query.roles, limit=FACTS))
    pages, before = [], None
    while page := trail.search(
        EventQuery(types=query.types, actors=query.actors, roles=query.roles, before=before, limit=90)
    ):
        pages += page
        before = page[-1].index
    assert pages == whole
