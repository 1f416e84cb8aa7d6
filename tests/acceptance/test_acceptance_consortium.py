"""Four hospitals, no third party: one sends, gives, takes back; another sees; an auditor checks it all.

The auditor has files alone: proofs, the members' policy, a member's copy of the log. One demonstration serves all tests
of this file, in their order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.node.instances import PYDICOM, sendable
from tests.node.running_demo import RunningDemo
from tests.node.running_node import CAIRN

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
BROWSER: Final = ROOT / "tests" / "browser"
CT: Final = next(sent for sent in sendable([PYDICOM]) if sent.file.name == "CT_small.dcm")
PATIENT: Final = "CompressedSamples, CT1"
PATIENCE_S: Final = 90.0
A, B, C, D = range(4)
STORY: Final = ("consent.grant", "share.receipt", "consent.revoke", "share.end")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Four hospitals, each with a Kubo of its own, that all tests of this file share; they must end cleanly."""
    running = RunningDemo(tmp_path_factory.mktemp("consortium") / "demo")
    try:
        running.start("--content", "kubo")
        yield running
        if running.runs:
            assert running.stop() == 0, running.printed()
        for hospital in range(running.members):
            assert "Traceback" not in running.hospital_said(hospital), running.hospital_said(hospital)[-6000:]
    finally:
        running.kill()


@contextmanager
def http(demo: RunningDemo, hospital: int, role: str) -> Iterator[httpx.Client]:
    """A client of a hospital with a credential of a role."""
    token = demo.answer(hospital, "token", "create", "--role", role)["token"]
    headers = {"authorization": f"Bearer {token}", "accept": "application/dicom+json"}
    with httpx.Client(base_url=demo.url(hospital), headers=headers, timeout=60.0) as client:
        yield client


def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives as soon as it is something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.2)
    return found


def in_browser(script: str, *arguments: str) -> dict[str, Any]:
    """What a script of tests/browser saw; it must have gone to its end."""
    done = subprocess.run(
        ["node", BROWSER / script, *arguments], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.stdout, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, seen
    return seen


def viewer(demo: RunningDemo, hospital: int, prefix: Path, drawn: Path) -> subprocess.Popen[str]:
    """A tab that shows the study, makes the file `drawn` then, and stays open until it leaves the study by itself."""
    arguments = [login(demo, hospital, "viewer"), f"{demo.url(hospital)}/ohif/", PATIENT, prefix, drawn]
    return subprocess.Popen(
        ["node", BROWSER / "ohif.mjs", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def login(demo: RunningDemo, hospital: int, role: str) -> str:
    return str(demo.answer(hospital, "login-link", "--name", "reader", "--role", role)["url"])


def shares(demo: RunningDemo, hospital: int) -> list[dict[str, Any]]:
    found = demo.answer(hospital, "share", "list")
    return [row for rows in found.values() if isinstance(rows, list) for row in rows]


def pictures(folder: Path) -> Path:
    return Path(os.environ.get("CAIRN_TEST_PICTURES", str(folder)))


def test_every_hospital_is_where_it_was_promised(demo: RunningDemo) -> None:
    links = demo.links()
    assert sorted(links) == ["h0", "h1", "h2", "h3"]
    for hospital, link in enumerate(links.values()):
        assert link.startswith(f"{demo.url(hospital)}/login?token=")
        assert httpx.get(f"{demo.url(hospital)}/readyz").status_code == 200
    with httpx.Client(base_url=demo.url(D), follow_redirects=True) as browser:
        page = browser.get(links["h3"], headers={"accept": "text/html"})
    assert "Timeline" in page.text
    members = demo.answer(B, "consortium", "members")["members"]
    assert [(row["name"], row["own"], row["power"]) for row in members] == [
        ("h0", False, 1),
        ("h1", True, 1),
        ("h2", False, 1),
        ("h3", False, 1),
    ]


def test_a_study_goes_from_hospital_to_hospital_and_is_taken_back(demo: RunningDemo, tmp_path: Path) -> None:
    shown = pictures(tmp_path)
    # A's modality sends; nobody else sees it.
    assert demo.storescu(A, CT.file).returncode == 0
    with http(demo, B, "viewer") as b:
        assert b.get("/dicom-web/studies").status_code == 204

        # A's administrator gives it to B in the console.
        given = in_browser("sharing.mjs", login(demo, A, "admin"), CT.study, "h1", "grant", str(shown / "grant"))
        assert (given["consoleErrors"], given["badAnswers"], given["breaches"]) == ([], [], [])
        assert given["accessibility"] == {}
        assert "Members" in given["pages"]["consortium"]
        assert "h1" in given["pages"]["given"]

        # B's viewers show it as their own, whole.
        found = until(
            lambda: b.get("/dicom-web/studies").status_code == 200 and b.get("/dicom-web/studies").json(), "B"
        )
        assert found[0]["0020000D"]["Value"] == [CT.study]
        files = b.get(f"/dicom-web{CT.path}", headers={"accept": 'multipart/related; type="application/dicom"'})
        assert files.status_code == 200
        tab = viewer(demo, B, shown / "ohif-at-b", tmp_path / "drawn")
        until(lambda: tab.poll() is not None or (tmp_path / "drawn").exists(), "the picture at B")

        # Who was given nothing has nothing.
        with http(demo, C, "viewer") as c:
            assert c.get("/dicom-web/studies").status_code == 204

        # A takes it back in the console: B's node forgets it, and says so on the ledger.
        until(lambda: "received there" in console(demo, A, "/console/sharing"), "the receipt at A")
        taken = in_browser("sharing.mjs", login(demo, A, "admin"), CT.study, "h1", "revoke", str(shown / "revoke"))
        assert (taken["consoleErrors"], taken["badAnswers"], taken["accessibility"]) == ([], [], {})
        assert "It cannot call back what was already seen" in taken["pages"]["sharing"]
        until(lambda: b.get(f"/dicom-web{CT.path}/metadata").status_code == 404, "B refused")

        # B's open tab says so by itself, and shows nothing of it from its memory.
        printed, failed = tab.communicate(timeout=120)
        assert tab.returncode == 0, printed + failed
        seen = json.loads(printed)
        assert seen["greyLevels"] >= 16
        assert (seen["consoleErrors"], seen["badAnswers"]) == ([], [])
        assert "no longer available here" in seen["ended"]
        assert seen["canvases"] == 0
        assert b.get("/dicom-web/studies").status_code == 204
    until(lambda: "ended, keys destroyed" in console(demo, A, "/console/sharing"), "the end at A")
    with http(demo, A, "viewer") as a:
        assert a.get(f"/dicom-web{CT.path}/metadata").status_code == 200


def test_an_auditor_verifies_the_story_offline_from_files_alone(demo: RunningDemo, tmp_path: Path) -> None:
    files = tmp_path / "handed-over"
    files.mkdir()
    (files / "policy").write_text(demo.cairn(C, "ledger", "key").stdout, "ascii")
    story = until(lambda: told(demo, C, STORY), "the story at C, who has no part in it")
    assert [(row["type"], row["hospital"], row["finality"]) for row in story] == [
        ("consent.grant", "h0", "final"),
        ("share.receipt", "h1", "final"),
        ("consent.revoke", "h0", "final"),
        ("share.end", "h1", "final"),
    ]
    assert {row["study"] for row in story} == {None}
    for row in story:
        demo.answer(C, "ledger", "prove", row["id"], "--out", files / f"{row['type']}.proof", "--wait", "60")
    shutil.copytree(demo.home(D) / "consortium" / "ledger", files / "ledger")
    shutil.copy(demo.home(D) / "consortium" / "genesis.json", files)
    demo.stop()

    for row in story:
        said = offline(files / f"{row['type']}.proof", "--policy", files / "policy")
        assert f"({row['type']}," in said
        assert said.count("Cosigned by") >= 3
    said = offline(files / "ledger", "--genesis", files / "genesis.json")
    assert "members now: h0, h1, h2, h3" in said
    altered = files / "altered.proof"
    proof = (files / "consent.grant.proof").read_text("utf-8")
    where = proof.rindex("h1 ") + 40
    altered.write_text(proof[:where] + ("A" if proof[where] != "A" else "B") + proof[where + 1 :], "utf-8")
    offline(altered, "--policy", files / "policy", code=3)


def test_started_again_they_take_up_where_they_left(demo: RunningDemo) -> None:
    if not demo.runs:
        demo.start()
    again = told(demo, D, STORY)
    assert again is not None and [row["hospital"] for row in again] == ["h0", "h1", "h0", "h1"]
    assert demo.answer(A, "ledger", "verify")["findings"] == []
    before = demo.answer(A, "consortium", "members")["height"]
    demo.answer(A, "token", "create", "--role", "viewer")
    until(lambda: demo.answer(B, "consortium", "members")["height"] > before, "a block after the restart")


def test_killed_all_at_once_they_take_up_where_they_left(demo: RunningDemo) -> None:
    if not demo.runs:
        demo.start()
    demo.kill()
    demo.start()
    assert demo.answer(A, "ledger", "verify")["findings"] == []
    with http(demo, A, "viewer") as a:
        assert a.get(f"/dicom-web{CT.path}/metadata").status_code == 200
    until(lambda: content(demo, A) == ("kubo", 1, []), "A's study in its Kubo")
    until(lambda: content(demo, B) == ("kubo", 0, []), "B's Kubo without what was taken back")


def test_an_administrator_proposes_a_hospital_and_reviews_an_emergency_in_the_console(
    demo: RunningDemo, tmp_path: Path
) -> None:
    if not demo.runs:
        demo.start()
    card = tmp_path / "south.card"
    place = ("--url", "https://south.example:8043", "--peer", "south.example:26656")
    fifth = {**demo.environment(), "CAIRN_HOME": str(tmp_path / "south")}
    made = subprocess.run(
        [CAIRN, "consortium", "join", "--name", "south", *place, "--out", card, "--json"],
        env=fifth,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    demo.answer(D, "share", "emergency", "--of", "h0", "--study", CT.study, "--reason", "trauma room")
    with http(demo, D, "clinician") as d:
        until(lambda: d.get(f"/dicom-web{CT.path}/metadata").status_code == 200, "the study at D")
    seen = in_browser("consortium.mjs", login(demo, D, "admin"), CT.study, str(card), str(pictures(tmp_path)))
    for name in ("consoleErrors", "badAnswers", "breaches", "unseenFocus"):
        assert seen[name] == [], name
    assert (seen["accessibility"], seen["sizes"]) == ({}, {})
    said = seen["said"]
    assert "1 emergency access waits for review." in said["timeline"]
    assert json.loads(made.stdout)["fingerprint"] in said["sure"]
    assert seen["heldBack"]  # until the fingerprint was compared
    assert "take in the hospital south" in said["proposed"]
    assert "In favour: h3 (1 of 3 needed)" in said["proposed"]
    assert "Reviewed by reader" in said["reviewed"]
    assert "1 emergency access waits" not in console(demo, D, "/console/")
    (proposal,) = [row for row in demo.answer(A, "consortium", "members")["proposals"] if row["state"] == "open"]
    assert (proposal["do"], proposal["member"], proposal["by"]) == ("enroll", "south", "h3")
    assert "cairn consortium propose rotate" in said["propose"]


def told(demo: RunningDemo, hospital: int, types: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """The entries of these types in order, as soon as there is one of each and all are final."""
    entries = demo.answer(hospital, "ledger", "entries")["entries"]
    found = [row for row in entries if row["type"] in types]
    whole = len(found) == len(types) and all(row["finality"] == "final" for row in found)
    return found if whole else None


def content(demo: RunningDemo, hospital: int) -> tuple[str, int, list[str]]:
    """The content engine, how many studies it has pinned, and what hinders it."""
    status = demo.answer(hospital, "content", "status")
    return status["engine"], status["studies"]["pinned"], status["answers"]


def console(demo: RunningDemo, hospital: int, path: str) -> str:
    with http(demo, hospital, "admin") as client:
        return client.get(path, headers={"accept": "text/html"}).text


def offline(*arguments: str | Path, code: int = 0) -> str:
    """What `cairn ledger verify` says where there is no node and no home."""
    empty = {"PATH": os.environ["PATH"], "CAIRN_HOME": "/nonexistent"}
    done = subprocess.run(
        [CAIRN, "ledger", "verify", *arguments], env=empty, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout
