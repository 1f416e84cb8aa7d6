"""QIDO-RS by clause: PS3.18 8.3.4 and 10.6."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from node_in_memory import SERIES, STUDY, Client, FakeNode

from bridge import errors
from bridge.dicom.attributes import Level, key
from bridge.dicom.matching import ALL, Query, arrange, match_for
from bridge.model import SearchPage

Match = Mapping[str, object]
ROW: Match = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080018": {"vr": "UI", "Value": ["1.1"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "0020000E": {"vr": "UI", "Value": [SERIES]},
}
STUDY_URL = f"/studies/{STUDY}"


def asked(node: FakeNode, client: Client, url: str) -> Query:
    response = client.get("/dicom-web" + url)
    assert response.status_code == 204, response.text
    return node.queries[-1]


def keys(**values: str) -> object:
    return arrange([match_for(key(name), value) for name, value in values.items()])


@pytest.mark.parametrize(
    ("path", "level", "study", "series", "url"),
    [
        ("/studies", Level.STUDY, None, None, STUDY_URL),
        ("/series", Level.SERIES, None, None, f"{STUDY_URL}/series/{SERIES}"),
        ("/instances", Level.INSTANCE, None, None, f"{STUDY_URL}/series/{SERIES}/instances/1.1"),
        (f"{STUDY_URL}/series", Level.SERIES, STUDY, None, f"{STUDY_URL}/series/{SERIES}"),
        (f"{STUDY_URL}/instances", Level.INSTANCE, STUDY, None, f"{STUDY_URL}/series/{SERIES}/instances/1.1"),
        (
            f"{STUDY_URL}/series/{SERIES}/instances",
            Level.INSTANCE,
            STUDY,
            SERIES,
            f"{STUDY_URL}/series/{SERIES}/instances/1.1",
        ),
    ],
)
def test_10_6_1_all_six_resources_answer_with_absolute_urls(
    node: FakeNode, client: Client, path: str, level: Level, study: str | None, series: str | None, url: str
) -> None:
    node.page = SearchPage((ROW,), 0)
    response = client.get("/dicom-web" + path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    (match,) = response.json()
    assert match["00081190"] == {"vr": "UR", "Value": [f"http://127.0.0.1:8042/dicom-web{url}"]}
    assert list(match) == sorted(match)
    assert "Müller" in response.text and "warning" not in response.headers
    query = node.queries[-1]
    assert (query.level, query.study, query.series) == (level, study, series)
    (recorded,) = node.recorded
    assert recorded[:3] == ("query", "admin", level.value) and recorded[-1] == 1


def test_a_search_is_recorded_by_the_names_of_its_keys_and_never_their_values(node: FakeNode, client: Client) -> None:
    node.page = SearchPage((ROW, ROW), 0)
    client.get("/dicom-web/studies/1.2.3/series?PatientName=Doe*&00100020=P1&includefield=StudyDate&limit=2")
    client.get("/dicom-web/studies?ModalitiesInStudy=CT&StudyDate=20260101-20260102&StudyTime=10-11")
    client.get("/dicom-web/series?RequestAttributesSequence.ScheduledProcedureStepID=7")
    assert node.recorded == [
        ("query", "admin", "series", "PatientID", "PatientName", "StudyInstanceUID", 2),
        ("query", "admin", "study", "ModalitiesInStudy", "StudyDate", "StudyTime", 2),
        ("query", "admin", "series", "ScheduledProcedureStepID", 2),
    ]


def test_a_search_that_cannot_be_recorded_is_not_answered(node: FakeNode, client: Client) -> None:
    node.page = SearchPage((ROW,), 0)
    node.fault = errors.AccessNotRecordable("the disk is full")
    response = client.get("/dicom-web/studies")
    assert response.status_code == 503 and "Müller" not in response.text


def test_8_3_4_4_1_no_match_is_204_and_more_is_a_warning(node: FakeNode, client: Client) -> None:
    response = client.get("/dicom-web/studies")
    assert (response.status_code, response.content) == (204, b"")
    node.page = SearchPage((ROW,), 41)
    warning = client.get("/dicom-web/studies?limit=1").headers["warning"]
    root = "http://127.0.0.1:8042/dicom-web"
    assert warning == f"299 {root}: There are 41 additional results that can be requested"


def test_8_3_4_1_keys_by_tag_keyword_and_path(node: FakeNode, client: Client) -> None:
    expected = keys(PatientID="P-1")
    for name in ("PatientID", "00100020"):
        assert asked(node, client, f"/studies?{name}=P-1").keys == expected
    expected = arrange([match_for(key("00400275.00401001"), "R1")])
    for name in ("RequestAttributesSequence.RequestedProcedureID", "00400275.00401001"):
        assert asked(node, client, f"/series?{name}=R1").keys == expected


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("PatientName=M%C3%BCller%5EJ%2A", {"PatientName": "Müller^J*"}),
        ("PatientName=*Doe%20John*", {"PatientName": "*Doe John*"}),
        ("PatientName=Doe+John", {"PatientName": "Doe John"}),
        ("StudyInstanceUID=1.2,3.4", {"StudyInstanceUID": "1.2,3.4"}),
        ("StudyInstanceUID=1.2%2C3.4", {"StudyInstanceUID": "1.2,3.4"}),
        ("StudyInstanceUID=1.2%5C3.4", {"StudyInstanceUID": "1.2,3.4"}),
        ("ModalitiesInStudy=CT%2CMR", {"ModalitiesInStudy": "CT,MR"}),
        ("StudyDate=20240101-20241231", {"StudyDate": "20240101-20241231"}),
        (
            "StudyDate=20240101-20241231&StudyTime=1100-1200",
            {"StudyDate": "20240101-20241231", "StudyTime": "1100-1200"},
        ),
        ("AccessionNumber=%22%22", {"AccessionNumber": '""'}),
    ],
)
def test_values_are_decoded_and_lists_are_lists(
    node: FakeNode, client: Client, written: str, meant: dict[str, str]
) -> None:
    assert asked(node, client, f"/studies?{written}").keys == keys(**meant)


def test_includefield_repeated_listed_and_all(node: FakeNode, client: Client) -> None:
    query = asked(node, client, "/studies?includefield=00081030%2C00080060&includefield=PatientComments,Unknown")
    assert query.include == {"00081030", "00080060", "00104000"}
    assert asked(node, client, "/studies?includefield=all").include is ALL


def test_paging(node: FakeNode, client: Client) -> None:
    query = asked(node, client, "/studies?limit=2&offset=7")
    assert (query.limit, query.offset) == (2, 7)
    assert asked(node, client, "/studies").limit == 3  # the setting web.query_limit
    assert asked(node, client, "/studies?limit=1000").limit == 3


def test_fuzzy_matching_is_handed_on(node: FakeNode, client: Client) -> None:
    found = asked(node, client, "/studies?fuzzymatching=true&PatientName=Muller").keys
    assert found == arrange([match_for(key("PatientName"), "Muller", fuzzy=True)])
    assert asked(node, client, "/studies?fuzzymatching=false&emptyvaluematching=true").keys == ()


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("FooBar=1", "FooBar"),
        ("99990010=x", "99990010"),
        ("00400275.00409999=x", "00400275.00409999"),
        ("PatientComments=x", "PatientComments"),
        ("StudyDate=yesterday", "StudyDate"),
        ("StudyInstanceUID=1.2*", "StudyInstanceUID"),
        ("PatientID=a&PatientID=b", "PatientID"),
        ("PatientID=a&00100020=b", "PatientID"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=1.5", "offset"),
        ("offset=99999999999", "offset"),
        ("fuzzymatching=maybe", "fuzzymatching"),
        ("multiplevaluematching=1", "multiplevaluematching"),
        ("Modality=CT", "Modality"),
        ("lenient=true", "lenient"),
    ],
)
def test_what_cannot_be_honoured_is_400_and_named(node: FakeNode, client: Client, query: str, named: str) -> None:
    response = client.get(f"/dicom-web/studies?{query}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert named in response.json()["detail"]
    assert not node.queries


def test_a_refusal_repeats_no_value(node: FakeNode, client: Client) -> None:
    for query in ("StudyDate=Doe%5EJohn", "Doe%5EJohn=1", "limit=Doe%5EJohn", "PatientName=%FF"):
        response = client.get(f"/dicom-web/studies?{query}")
        assert response.status_code == 400
        assert "Doe" not in response.text


def test_a_failing_search_is_a_problem_without_a_trace(node: FakeNode, client: Client) -> None:
    node.fault = ZeroDivisionError("secret")
    response = client.get("/dicom-web/studies")
    assert (response.status_code, response.json()["type"]) == (500, "urn:cairn:problem:internal-error")
    assert "secret" not in response.text and "Traceback" not in response.text
    node.fault = errors.QueryInvalid("no")
    assert client.get("/dicom-web/studies").status_code == 400
