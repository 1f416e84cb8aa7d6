"""`cairn study erase` at a running node: the study is gone at every door and from every file, however it is ended."""

import json
import time
from pathlib import Path

import httpx
import pytest

from bridge import control
from tests.node.instances import FOLDER, all_there, sendable, stow
from tests.node.running_node import RunningNode, acknowledged

SERIES = FOLDER / "77654033" / "CT2"
ERASED = sendable([SERIES])
STUDY = ERASED[0].study
KEPT = sendable([FOLDER / "98892003" / "MR1"])
NAMES = [b"Doe^Archibald", b"77654033", STUDY.encode(), ERASED[0].series.encode(), *(i.sop.encode() for i in ERASED)]


def leaks(home: Path) -> list[str]:
    """The files that hold the patient's name or ID, or a UID of the study."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return sorted({path.name for path in files for name in NAMES if name in path.read_bytes()})


def sent(node: RunningNode) -> None:
    assert len(acknowledged(node.storescu("--scan-directories", SERIES).stdout)) == len(ERASED)


def is_gone(client: httpx.Client) -> None:
    """Every resource of the study is 410 with a problem document, and no search finds it (PS3.18 8.5)."""
    frames = f"{ERASED[0].path}/frames/1"
    for path in (
        f"/studies/{STUDY}",
        f"/studies/{STUDY}/metadata",
        ERASED[0].path,
        frames,
        f"/studies/{STUDY}/provenance",
    ):
        answer = client.get(f"/dicom-web{path}")
        assert (answer.status_code, answer.json()["type"]) == (410, "urn:cairn:problem:gone"), path
        assert STUDY not in answer.text
    for query in ({"StudyInstanceUID": STUDY}, {"PatientName": "Doe^Archibald"}):
        assert client.get("/dicom-web/studies", params=query).status_code == 204
    assert client.get("/ohif/held", params={"study": STUDY}).status_code == 404
    assert client.get("/dicom-web/studies/1.2.3.4/metadata").status_code == 404


def nothing_wrong(node: RunningNode) -> None:
    assert node.answer("fsck")["findings"] == []
    assert node.answer("ledger", "verify")["findings"] == []


def test_a_study_is_erased_at_a_running_node_and_can_be_sent_again(fresh_node: RunningNode, tmp_path: Path) -> None:
    node = fresh_node.start()
    sent(node)
    with node.http("admin") as client:
        assert stow(client, [one.file.read_bytes() for one in KEPT]).status_code == 200
        all_there(client, ERASED)
        assert client.get(f"/dicom-web/studies/{STUDY}/provenance").status_code in (200, 404)
        node.answer("backup", str(tmp_path / "backup"))
        assert leaks(node.home)
        done = node.answer("study", "erase", STUDY, "--yes", "--reason", "a request under Art. 17")
        assert (done["instances"], done["released"], len(done["entries"])) == (len(ERASED), True, 1)
        assert leaks(node.home) == []
        is_gone(client)
        all_there(client, KEPT)
        told(client, done["entries"][0])
        for again in (STUDY, "1.2.3.4"):
            assert node.cairn("study", "erase", again, "--yes", code=1).stdout == ""
        node.cairn("study", "erase", STUDY, code=2)  # nobody is there to type it again
        nothing_wrong(node)
        sent(node)
        all_there(client, ERASED)
    listed = node.answer("study", "erasures")
    assert [row["entry"] for row in listed["erasures"]] == done["entries"]
    assert node.stop() == 0, node.printed()
    assert not any(name in node.printed().encode() for name in NAMES)
    nothing_wrong(node)
    erased_without_a_node(node)
    restored(tmp_path, listed)


def told(client: httpx.Client, entry: str) -> None:
    """The console says by whom and when, the exports that something was deleted: of which study, nobody can tell."""
    until = time.monotonic() + 60
    while (found := client.get(f"/ledger/entries/{entry}")).status_code != 200 and time.monotonic() < until:
        time.sleep(0.2)
    event = found.json()
    assert (event["type"], event["erased"], event["study"]) == ("study.erase", True, None)
    page = client.get(f"/console/studies/{STUDY}").text
    assert "destroyed the keys of" in page and "a request under Art. 17" in page
    events = client.get("/fhir/AuditEvent", params={"action": "D"}).json()["entry"]
    (profile,) = events[0]["resource"]["meta"]["profile"]
    assert len(events) == 1 and profile.endswith("IHE.BasicAudit.Delete")
    assert STUDY not in json.dumps(events)


def erased_without_a_node(node: RunningNode) -> None:
    node.cairn("study", "erase", STUDY, "--yes")
    assert leaks(node.home) == []
    nothing_wrong(node)


def restored(folder: Path, erasures: dict[str, object]) -> None:
    """A backup made before still holds the study; with the list of what was erased since it is erased again."""
    (folder / "erasures.json").write_text(json.dumps(erasures))
    other = RunningNode(folder / "other")
    try:
        other.answer("restore", str(folder / "backup"), "--erasures", str(folder / "erasures.json"))
        other.start()
        with other.http("admin") as client:
            is_gone(client)
            all_there(client, KEPT)
        assert leaks(other.home) == []
        assert other.stop() == 0, other.printed()
        nothing_wrong(other)
    finally:
        other.kill()


@pytest.mark.parametrize("step", ["erase.4", "replace_key.2"])
def test_killed_while_it_erases_a_node_serves_nothing_of_the_study_again(fresh_node: RunningNode, step: str) -> None:
    fresh_node.start(CAIRN_CRASH_AT=step)
    sent(fresh_node)
    with fresh_node.http("admin") as client:
        assert stow(client, [one.file.read_bytes() for one in KEPT]).status_code == 200
    with pytest.raises((control.Failed, OSError)):
        control.ask(fresh_node.home / "run" / "cairn.sock", "study-erase", {"study": STUDY}, lambda text: None)
    fresh_node.kill()
    fresh_node.start()
    with fresh_node.http("admin") as client:
        is_gone(client)
        all_there(client, KEPT)
    assert fresh_node.stop() == 0, fresh_node.printed()
    assert leaks(fresh_node.home) == []
    nothing_wrong(fresh_node)
