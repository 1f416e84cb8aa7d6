"""The console's pages: what they show of the ledger, to whom, and that showing is recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from ledger_in_memory import MADE_US, Ledger, some
from node_in_memory import SERIES, STUDY, Client, FakeNode

from bridge import errors
from bridge.model import ContentOverview, LedgerHealth, SearchPage, StorageOverview
from ledger.alerts import Alert
from ledger.checkpoint import Checkpoint
from ledger.event import Patient
from ledger.witness import Asked, Conflict, Cosigned, WitnessingState, WitnessState

PAGES = ["/console/", f"/console/studies/{STUDY}", "/console/health", "/console/storage", "/console/alerts"]
HOSTILE = "<script>alert(1)</script>^\"x\" onload='y'"


class Overview:
    """Figures as a node gives them, to be changed by a test."""

    def __init__(self) -> None:
        self.health = LedgerHealth(7, 6, MADE_US, 0, 0, None, 1, MADE_US, 0, None)
        counts = {
            "patients": 2,
            "studies": 3,
            "series": 4,
            "instances": 5000,
            "conflicts": 1,
            "damaged": 0,
            "blocks": 9,
        }
        self.held = StorageOverview(counts, MADE_US, 2, 3 << 30, 40 << 30, 100 << 30)
        self.engine = ContentOverview("embedded", days=30)

    def ledger(self) -> LedgerHealth:
        return self.health

    def storage(self) -> StorageOverview:
        return self.held

    def content(self) -> ContentOverview:
        return self.engine

    def stored_between(self, moments: list[int]) -> list[int]:
        return list(range(len(moments) - 1))


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    console: Any = node
    console.overview, console.alerts = Overview(), lambda: []
    return some().attach(node)


@pytest.fixture
def auditor(anonymous: Client, ledger: Ledger) -> Client:
    anonymous.headers = {"authorization": "Bearer auditor", "accept": "text/html"}
    return anonymous


class Page(HTMLParser):
    """What a reader of a page meets: its text, links, headings, landmarks, labels."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.said = ""
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.said += data

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def links(self) -> list[str]:
        return [attributes["href"] for attributes in self.all("a")]


def open_page(client: Client, url: str, status: int = 200) -> Page:
    response = client.get(url)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Page(response.text)


def entry_url(ledger: Ledger, index: int) -> str:
    return f"/console/entries/{ledger.log.leaves[index].hex()}"


@pytest.mark.parametrize("url", PAGES)
def test_a_page_brings_nothing_from_elsewhere_and_nothing_inline(auditor: Client, url: str) -> None:
    response = auditor.get(url)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    page = Page(response.text)
    assert not re.search(r"<style|style=|\son[a-z]+=", response.text)
    for tag, attributes in page.elements:
        for name in ("href", "src", "action"):
            assert not urlsplit(attributes.get(name, "")).netloc, (tag, attributes)


@pytest.mark.parametrize("url", PAGES)
def test_a_page_has_the_landmarks_and_names_that_a_screen_reader_needs(auditor: Client, url: str) -> None:
    page = open_page(auditor, url)
    assert [attributes.get("lang") for attributes in page.all("html")] == ["en"]
    assert [len(list(page.all(name))) for name in ("main", "h1", "header", "footer")] == [1, 1, 1, 1]
    assert page.links[0] == "#content"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes["for"] for attributes in page.all("label")}
    for box in page.all("input"):
        assert box["type"] == "hidden" or box["id"] in labelled
    assert all("scope" in head for head in page.all("th"))
    assert len(list(page.all("caption"))) == len(list(page.all("table")))
    assert all("alt" in picture for picture in page.all("img"))
    assert all("aria-label" in picture for picture in page.all("svg"))


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("clinician", 403), ("device", 403), ("admin", 200)])
@pytest.mark.parametrize("url", PAGES)
def test_only_those_who_may_audit_see_the_console(auditor: Client, role: str, status: int, url: str) -> None:
    auditor.headers["authorization"] = f"Bearer {role}"
    page = open_page(auditor, url, status)
    if status == 403:
        assert "auditor and admin" in page.said
        assert "Doe" not in page.said


def test_who_has_no_session_is_told_how_to_get_one(auditor: Client) -> None:
    del auditor.headers["authorization"]
    response = auditor.get("/console/")
    assert response.status_code == 401
    assert "cairn login-link --name WHO --role auditor" in response.text
    assert "unsafe" not in response.headers["content-security-policy"]
    assert "sha256-" in response.headers["content-security-policy"]


def test_programs_get_problem_documents(auditor: Client) -> None:
    auditor.headers = {"authorization": "Bearer viewer", "accept": "*/*"}
    assert auditor.get("/console/").headers["content-type"] == "application/problem+json"


def test_reading_is_recorded_before_anything_is_shown(auditor: Client, node: FakeNode, ledger: Ledger) -> None:
    url = entry_url(ledger, 1)
    for page in (*PAGES, url):
        open_page(auditor, page)
    names = ["timeline", f"study {STUDY}", "health", "storage", "alerts", f"entry {ledger.log.leaves[1].hex()}"]
    assert node.recorded == [("audited", "auditor", name) for name in names]
    node.fault = errors.AccessNotRecordable("the disk is full")
    for page in (*PAGES, url):
        assert "Doe" not in open_page(auditor, page, 503).said


def test_the_timeline_tells_every_entry_as_a_sentence_newest_first(auditor: Client, ledger: Ledger) -> None:
    page = open_page(auditor, "/console/")
    told = page.said
    first = "reader (viewer, at 127.0.0.1, over HTTP) viewed study …9.9 for emergency treatment (break-glass)."
    last = "CT1 (device, at 127.0.0.1, over HTTP) stored images of study …1.2.3 of patient Doe, Jane (P-1)."
    assert 0 < told.index(first) < told.index(last)
    assert [link for link in page.links if link.startswith("/console/entries/")] == [
        entry_url(ledger, index) for index in range(6, -1, -1)
    ]
    assert f"/console/studies/{STUDY}" in page.links
    assert "/console/?patient=P-1" in page.links
    assert next(page.all("th")).get("aria-sort") == "descending"


def test_what_the_index_knows_of_a_study_is_in_the_sentence(auditor: Client, node: FakeNode, ledger: Ledger) -> None:
    node.page = SearchPage(
        (
            {
                "0020000D": {"vr": "UI", "Value": [STUDY]},
                "00080061": {"vr": "CS", "Value": ["CT"]},
                "00081030": {"vr": "LO", "Value": ["Chest & heart"]},
                "00080020": {"vr": "DA", "Value": ["20261001"]},
            },
        ),
        0,
    )
    assert "stored images of study CT “Chest & heart” of 1 Oct 2026 of patient" in open_page(auditor, "/console/").said


def test_facets_count_and_narrow_and_can_be_dropped_again(auditor: Client) -> None:
    page = open_page(auditor, "/console/")
    views = next(one for one in page.all("a") if one.get("href") == "/console/?type=study.access")
    assert views["aria-label"] == "Add filter study.access, 3 entries"
    narrowed = open_page(auditor, views["href"])
    assert len([link for link in narrowed.links if "/entries/" in link]) == 3
    chosen = [one for one in narrowed.all("a") if one.get("aria-current") == "true"]
    assert [(one["href"], one["aria-label"]) for one in chosen] == [
        ("/console/", "Remove filter study.access, 3 entries")
    ]
    # Others of the same facet can be added, as if nothing were chosen in it.
    assert "/console/?type=study.access&type=study.store" in narrowed.links


def test_of_very_many_values_the_most_frequent_are_offered(auditor: Client, ledger: Ledger) -> None:
    for number in range(70):
        ledger.add("study.query", actor=f"actor {number}")
    page = open_page(auditor, "/console/")
    assert len([link for link in page.links if link.startswith("/console/?actor=")]) == 58
    assert "50 more of 65; type the others" in page.said
    assert "actor" in [box.get("name") for box in page.all("input")]


def test_bars_of_the_histogram_narrow_the_time_to_their_own(auditor: Client) -> None:
    page = open_page(auditor, "/console/")
    bars = [one for one in page.all("a") if "since=" in one.get("href", "") and "event" in one.get("aria-label", "")]
    assert len(bars) == 7
    narrowed = open_page(auditor, bars[0]["href"])
    assert len([link for link in narrowed.links if "/entries/" in link]) == 1
    assert {"Zoom out", "All time"} <= {word.strip() for word in re.findall(r"Zoom out|All time", narrowed.said)}


def test_pages_follow_each_other_by_cursor_without_gap(auditor: Client, ledger: Ledger) -> None:
    for _ in range(110):
        ledger.add("study.query")
    url, seen = "/console/", []
    while url:
        page = open_page(auditor, url)
        seen += [link for link in page.links if "/entries/" in link]
        url = next((one["href"] for one in page.all("a") if one.get("rel") == "next"), "")
    assert seen == [entry_url(ledger, index) for index in range(116, -1, -1)]


def test_the_exports_hold_the_selection(auditor: Client, ledger: Ledger) -> None:
    page = open_page(auditor, "/console/?patient=P-1&outcome=0")
    assert "/fhir/AuditEvent?patient=P-1&outcome=0" in page.links
    url = next(link for link in page.links if link.startswith("/console/entries.csv"))
    response = auditor.get(url)
    assert response.headers["content-type"].startswith("text/csv")
    rows = response.text.split("\r\n")
    assert len([row for row in rows if row]) == 1 + 3
    assert "Doe^Jane" in rows[1]
    assert not [link for link in open_page(auditor, "/console/?purpose=ETREAT").links if "/fhir/" in link]


@pytest.mark.parametrize(
    ("typed", "where"),
    [("1.2.840.99", "/console/?study=1.2.840.99"), (" 1.2.840.99 ", "/console/?study=1.2.840.99")],
)
def test_a_typed_uid_is_a_study(auditor: Client, typed: str, where: str) -> None:
    response = auditor.get("/console/", params={"about": typed})
    assert (response.status_code, response.headers["location"]) == (303, where)


def patients(*named: tuple[str, str]) -> SearchPage:
    return SearchPage(
        tuple(
            {
                "0020000D": {"vr": "UI", "Value": [f"1.2.{place}"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
                "00100020": {"vr": "LO", "Value": [id_]},
            }
            for place, (name, id_) in enumerate(named)
        ),
        0,
    )


def test_a_typed_patient_id_leads_to_the_patient(auditor: Client, node: FakeNode) -> None:
    node.page = patients(("Doe^Jane", "P-1"))
    response = auditor.get("/console/", params={"about": "P-1", "type": "study.access"})
    assert response.headers["location"] == "/console/?type=study.access&patient=P-1"


def test_a_name_of_several_patients_is_a_question(auditor: Client, node: FakeNode, monkeypatch: Any) -> None:
    found = patients(("Doe^Jane", "P-1"), ("Doe^John", "P-2"))
    keyword = "PatientName"
    monkeypatch.setattr(node, "search", lambda query: found if keyword in str(query.keys) else SearchPage((), 0))
    page = open_page(auditor, "/console/?about=doe")
    assert "Several patients match “doe”" in page.said
    assert {"/console/?patient=P-1", "/console/?patient=P-2"} <= set(page.links)


def test_what_nobody_is_called_is_said(auditor: Client) -> None:
    page = open_page(auditor, "/console/?about=%3Cb%3Enobody*")
    assert "No study and no patient of this node is called “<b>nobody*”" in page.said


def test_a_selection_without_meaning_is_a_page_that_says_why(auditor: Client) -> None:
    assert "outcome is 0, 4, 8 or 12" in open_page(auditor, "/console/?outcome=9", 400).said.lower()


def test_an_entry_shows_fields_records_bytes_and_its_way_to_the_root(auditor: Client, ledger: Ledger) -> None:
    page = open_page(auditor, entry_url(ledger, 1))
    said = " ".join(page.said.split())
    assert "Entry 1" in said
    assert "C · DICOM Instances Transferred (110104)" in said
    assert "Records (2)" in said
    assert f"series {SERIES}".replace(" ", "") in said.replace(" ", "")
    digits = said[said.index("COSE frame") :]
    envelope = ledger.log.envelopes[1].hex()
    assert envelope[:6] in digits.replace(" ", "")
    assert f"Envelope ({len(envelope) // 2:,} bytes)" in said
    assert "Leaf 1 of 7." in said
    assert "They lead to the root that the checkpoint signs." in said
    around = [link for link in page.links if link in (entry_url(ledger, 0), entry_url(ledger, 2))]
    assert around == [entry_url(ledger, 0), entry_url(ledger, 2)]
    button = next(page.all("button"))
    assert button["data-proof"] == f"/ledger/entries/{ledger.log.leaves[1].hex()}/proof"
    assert next(one for one in page.all("input"))["value"] == ledger.log.key()


def test_a_witnessed_log_is_to_be_verified_with_the_policy_of_its_witnesses(
    auditor: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = f"log {ledger.log.key()}\nwitness w1 south+01234567+x\ngroup witnesses 1 w1\nquorum witnesses\n"
    monkeypatch.setattr(ledger.log, "policy", lambda: policy)
    page = open_page(auditor, entry_url(ledger, 1))
    assert "Policy of the witnesses" in page.said and policy.strip() in page.said
    assert not list(page.all("input"))


def test_the_whole_envelope_stands_in_hexadecimal(auditor: Client, ledger: Ledger) -> None:
    markup = auditor.get(entry_url(ledger, 3)).text
    block = Page(markup[markup.index("<pre") : markup.index("</pre>")]).said
    shown = "".join("".join(line.split()[1:]) for line in block.splitlines())
    assert bytes.fromhex(shown) == ledger.log.envelopes[3]


def test_a_record_leads_to_its_entry_where_it_is_marked(auditor: Client, ledger: Ledger) -> None:
    leaf = next(iter(ledger.trail.details(ledger.log.leaves[1])[1:])).leaf
    page = open_page(auditor, f"/console/entries/{leaf.hex()}")
    assert "Entry 1" in page.said
    assert [row.get("class") for row in page.all("tr")].count("marked") == 1
    assert f"/ledger/entries/{leaf.hex()}/proof" in page.links


@pytest.mark.parametrize("id_", ["00" * 32, "xyz", "AB" * 32, "%3Cb%3E"])
def test_an_unknown_entry_is_a_page_that_says_so(auditor: Client, id_: str) -> None:
    assert "Not here" in open_page(auditor, f"/console/entries/{id_}", 404).said


def test_an_erased_record_is_shown_as_erased(auditor: Client, ledger: Ledger) -> None:
    event = ledger.trail.event(ledger.log.leaves[2])
    details = ledger.trail.details(event.id)
    gone = [type(one)(one.leaf, one.position, None, None, None) for one in details]
    ledger.trail._details[event.id] = tuple(gone)
    assert "Erased: its key was destroyed." in open_page(auditor, entry_url(ledger, 2)).said


def test_a_study_is_told_from_first_to_last(auditor: Client, ledger: Ledger) -> None:
    page = open_page(auditor, f"/console/studies/{STUDY}")
    assert [link for link in page.links if "/entries/" in link] == [entry_url(ledger, index) for index in (1, 2, 3)]
    assert "/console/patients/P-1/report" in page.links
    assert "Viewed byreader" in page.said
    assert next(page.all("th")).get("aria-sort") == "ascending"
    lanes = [one["aria-label"] for one in page.all("svg")]
    assert lanes == ["Stored: 1 time", "Viewed: 2 times"]


def test_a_study_of_which_nobody_knows_is_not_found(auditor: Client) -> None:
    open_page(auditor, "/console/studies/9.8.7", 404)


def test_a_long_story_shows_its_newest_part_and_says_so(auditor: Client, ledger: Ledger) -> None:
    for _ in range(510):
        ledger.add("study.access", study="7.7.7")
    page = open_page(auditor, "/console/studies/7.7.7")
    assert len([link for link in page.links if "/entries/" in link]) == 500
    assert "The newest 500 entries are told here." in page.said
    assert "First byte" not in page.said


def test_names_from_outside_stay_text_on_every_page(auditor: Client, ledger: Ledger, node: FakeNode) -> None:
    about = Patient(HOSTILE, HOSTILE, HOSTILE)
    ledger.add("study.access", {"study": STUDY, HOSTILE: HOSTILE}, actor=HOSTILE, study=STUDY, patient=about)
    alert = Alert(bytes(16), "many-studies", 4, MADE_US, HOSTILE, (ledger.log.leaves[7],))
    console: Any = node
    console.alerts = lambda: [alert]
    node.page = SearchPage(
        (
            {
                "0020000D": {"vr": "UI", "Value": [STUDY]},
                "00081030": {"vr": "LO", "Value": [HOSTILE]},
                "00080061": {"vr": "CS", "Value": [HOSTILE]},
                "00080020": {"vr": "DA", "Value": [HOSTILE]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": HOSTILE}]},
            },
        ),
        0,
    )
    for url in (*PAGES, entry_url(ledger, 7), "/console/?patient=%3Cb%3E&actor=%22%3E%3Cscript%3E"):
        markup = auditor.get(url).text
        assert "<script>alert" not in markup
        page = Page(markup)
        assert [one.get("src") for one in page.all("script")] == ["/console/static/console.js"]
        assert not [one for _, attributes in page.elements for one in attributes if one.startswith("on")]


def test_health_is_good_when_nothing_is_missing_and_says_who_vouches(auditor: Client) -> None:
    page = open_page(auditor, "/console/health")
    assert "Nothing is missing and nothing is late." in page.said
    assert "Not replicated." in page.said
    assert "No witness has cosigned it." in page.said
    assert "0 to 6, none missing" in page.said
    assert "No audit repository is configured" in page.said


def witnessing(state: str, witnessed: int, *conflicts: Conflict) -> Any:
    """One witness in a state, one log that is witnessed in turn."""
    asked = Asked("vkey", witnessed, state, "why", MADE_US)
    watched = [("north", Cosigned(Checkpoint("cairn/north", 12, bytes(32)), "", MADE_US)), ("west", None)]
    told = WitnessingState(1, witnessed, [WitnessState("south", asked, witnessed, MADE_US)], watched, conflicts)
    return SimpleNamespace(state=lambda: told)


def test_health_says_how_far_the_log_is_witnessed_and_by_whom(auditor: Client, node: FakeNode) -> None:
    node.witnessing = witnessing("ok", 7)
    page = open_page(auditor, "/console/health")
    assert "All 7 entries are cosigned by 1 of 1 witness." in page.said
    assert "north: 12 entries at" in page.said
    assert "west: nothing yet." in page.said
    assert "Not replicated." not in page.said
    node.witnessing = witnessing("silent", 5)
    page = open_page(auditor, "/console/health")
    assert "The first 5 entries are cosigned by 1 of 1 witness; 2 entries not yet." in page.said
    assert "south: does not answer" in page.said


def test_health_names_what_does_not_continue_what_was_cosigned(auditor: Client, node: FakeNode) -> None:
    conflicts = [
        Conflict(number, "cairn/north", vkey, 9, bytes(32), "", 6, "", "the proof leads elsewhere", MADE_US)
        for number, vkey in enumerate(("", "south's"))
    ]
    node.witnessing = witnessing("contradicted", 5, *conflicts)
    page = open_page(auditor, "/console/health")
    assert "The log cairn/north showed 9 entries that do not continue the 6 cosigned before" in page.said
    assert "This node’s log showed 9 entries that do not continue the 6 cosigned before" in page.said
    assert "south: says that this log does not continue what it cosigned" in page.said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"last_sequence": 8}, "2 sequence numbers missing"),
        ({"waiting_since": MADE_US, "waiting_batches": 1}, "records have waited for"),
        ({"stepped_back_us": 90_000_000}, "the clock was set back by 1 minute"),
    ],
)
def test_what_is_wrong_with_the_ledger_comes_first(
    auditor: Client, node: FakeNode, change: dict[str, Any], said: str
) -> None:
    console: Any = node
    health = console.overview.health
    values = {name: getattr(health, name) for name in health.__dataclass_fields__}
    console.overview.health = LedgerHealth(**{**values, **change})
    assert said in open_page(auditor, "/console/health").said


def test_a_node_that_is_not_ready_says_why(auditor: Client, node: FakeNode) -> None:
    node.not_ready = ["ledger-0 does not answer"]
    assert "ledger-0 does not answer" in open_page(auditor, "/console/health").said


def test_forwarding_says_how_much_is_left(auditor: Client, node: FakeNode) -> None:
    console: Any = node
    health = console.overview.health
    values = {name: getattr(health, name) for name in health.__dataclass_fields__}
    console.overview.health = LedgerHealth(**{**values, "forwarded": 5})
    assert "2 entries still to be sent" in open_page(auditor, "/console/health").said


def test_an_empty_ledger_has_pages_too(auditor: Client, node: FakeNode) -> None:
    Ledger().attach(node)
    console: Any = node
    console.overview.health = LedgerHealth(0, None, None, 0, 0, None, 0, None, 0, None)
    assert "The ledger is empty so far." in open_page(auditor, "/console/").said
    assert "The ledger has no entry yet." in open_page(auditor, "/console/health").said
    assert "No entry matches." in open_page(auditor, "/console/?actor=nobody").said


def test_storage_counts_and_draws_and_warns(auditor: Client, node: FakeNode) -> None:
    page = open_page(auditor, "/console/storage")
    assert "5,000" in page.said
    assert "3.0 GiB in 2 files" in page.said
    assert any("in 30 days" in one["aria-label"] for one in page.all("svg"))
    assert "Look at this" not in page.said
    console: Any = node
    held = console.overview.held
    console.overview.held = StorageOverview({**held.counts, "damaged": 2}, MADE_US, 2, 3 << 30, 1 << 30, 100 << 30)
    page = open_page(auditor, "/console/storage")
    assert "2 instances damaged" in page.said
    assert "only 1.0 GiB are free" in page.said


def test_alerts_are_listed_with_the_entries_behind_them(auditor: Client, node: FakeNode, ledger: Ledger) -> None:
    assert "No rule has raised an alert." in open_page(auditor, "/console/alerts").said
    console: Any = node
    leaves = tuple(ledger.log.leaves)
    console.alerts = lambda: [Alert(bytes(16), "failed-logins", 8, MADE_US, "12 logins were refused", leaves)]
    page = open_page(auditor, "/console/alerts")
    assert "failed-logins: 12 logins were refused." in page.said
    assert [link for link in page.links if "/entries/" in link] == [entry_url(ledger, at) for at in (6, 5, 4)]
    assert "and 4 more" in page.said


@pytest.mark.parametrize("name", ["console.css", "console.js", "verify.js", "cairn.svg"])
def test_static_files_are_for_sessions_and_asked_for_again_by_their_tag(auditor: Client, name: str) -> None:
    url = f"/console/static/{name}"
    response = auditor.get(url)
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"
    again = auditor.get(url, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    del auditor.headers["authorization"]
    assert auditor.get(url).status_code == 401


@pytest.mark.parametrize("name", ["__init__.py", "..%2Fpage.py", "nothing.css"])
def test_nothing_else_lies_beside_them(auditor: Client, name: str) -> None:
    assert auditor.get(f"/console/static/{name}").status_code == 404


def test_the_console_lies_behind_its_slash_and_has_no_other_pages(auditor: Client) -> None:
    assert auditor.get("/console").headers["location"] == "/console/"
    assert "Not here" in open_page(auditor, "/console/nothing", 404).said
    assert auditor.post("/console/").status_code == 405
    head = auditor.head("/console/")
    assert (head.status_code, head.content) == (200, b"")


def test_a_fault_of_a_page_is_logged_and_tells_nothing(auditor: Client, node: FakeNode) -> None:
    node.audit = SimpleNamespace()
    response = auditor.get("/console/")
    assert response.status_code == 500
    assert "SimpleNamespace" not in response.text
