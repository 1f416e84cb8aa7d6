"""Three real hospitals in consensus: a study kept at another, blocks that come back from there, the glass broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.conftest import ended_well
from tests.node.instances import HIGHDICOM, retrieve, sendable
from tests.node.running_demo import RunningDemo

SENT = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
REASON = "unconscious patient"


class Hospitals(RunningDemo):
    """Each has its studies kept at one other."""

    def environment(self, hospital: int | None = None) -> Mapping[str, str]:
        return {**super().environment(hospital), "CAIRN_REPLICATION__COPIES": "1"}

    def replicas(self, hospital: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.answer(hospital, "content", "replicas")["replicas"]
        return found

    def until(self, holds: Callable[[], object], what: str) -> None:
        self.wait_until(lambda: bool(holds()), what)

    def http(self, hospital: int) -> httpx.Client:
        token = self.answer(hospital, "token", "create", "--role", "clinician")["token"]
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url(hospital), headers=headers, timeout=30.0, trust_env=False)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    demo = Hospitals(tmp_path_factory.mktemp("replication") / "demo", members=3)
    try:
        demo.start()
        demo.cairn(0, "import", str(SENT.file))
        demo.until(lambda: [one for one in demo.replicas(0) if one["state"] == "kept"], "a copy elsewhere")
        yield demo
        ended_well(demo)
    finally:
        demo.kill()


def holder(hospitals: Hospitals) -> int:
    (one,) = hospitals.replicas(0)
    return int(one["member"].removeprefix("h"))


def test_a_study_is_kept_elsewhere_and_its_receipt_stands_on_every_ledger(hospitals: Hospitals) -> None:
    keeper = holder(hospitals)
    (kept,) = hospitals.replicas(keeper)
    assert kept["kept_here"] and kept["state"] == "kept" and kept["study"] is None
    for hospital in range(3):
        entries = hospitals.answer(hospital, "ledger", "entries")["entries"]
        told = [(entry["type"], entry["hospital"]) for entry in entries if entry["type"].startswith("replica.")]
        assert told == [("replica.assign", "h0"), ("replica.receipt", f"h{keeper}")]
    with hospitals.http(keeper) as client:
        assert client.get("/dicom-web/studies").status_code == 204
    hospitals.cairn(keeper, "study", "show", SENT.study, code=1)


def test_blocks_that_this_hospital_lost_come_back_from_the_other(hospitals: Hospitals) -> None:
    (pack,) = (hospitals.home(0) / "packs").glob("*.car")
    whole = pack.read_bytes()
    with pack.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(len(whole) - 8192))
    found = hospitals.answer(0, "fsck", "--content")
    assert found["wrong"] == found["mended"] > 0 and found["findings"] == []
    assert {one["mended"] for one in found["repaired"]} == {"another source"}
    with hospitals.http(0) as client:
        assert retrieve(client, SENT) == SENT.data_set


def test_who_breaks_the_glass_gets_the_study_and_both_are_alerted_and_review(hospitals: Hospitals) -> None:
    doctor = next(hospital for hospital in (1, 2) if hospital != holder(hospitals))
    with hospitals.http(doctor) as client:
        assert client.get("/dicom-web/studies").status_code == 204
        asked = {"of": "h0", "study": SENT.study}
        assert client.post("/api/emergencies", params=asked).status_code == 400
        headers = {"cairn-purpose": "ETREAT", "cairn-reason": REASON}
        answer = client.post("/api/emergencies", params=asked, headers=headers)
        assert answer.status_code == 202, answer.text
        entry = answer.json()["emergency"]
        hospitals.until(lambda: client.get("/dicom-web/studies").status_code == 200, "the study")
        assert retrieve(client, SENT) == SENT.data_set
    for hospital in (0, doctor):
        (told,) = hospitals.answer(hospital, "share", "emergencies")["emergencies"]
        assert (told["of"], told["by"], told["state"], told["reason"]) == ("h0", f"h{doctor}", "open", REASON)
        alerts = hospitals.answer(hospital, "ledger", "alerts")
        assert [alert["entries"] for alert in alerts["alerts"] if alert["rule"] == "emergency"] == [[entry]]
        assert len(alerts["unreviewed"]) == 1
        hospitals.cairn(hospital, "ledger", "review", entry, "--note", "justified")
        hospitals.until(
            lambda hospital=hospital: not hospitals.answer(hospital, "ledger", "alerts")["unreviewed"], "the review"
        )
    hospitals.cairn(doctor, "share", "emergency-end", entry)
    hospitals.until(lambda: hospitals.cairn(doctor, "study", "show", SENT.study, code=None).returncode == 1, "its end")
    types = {entry["type"] for entry in hospitals.answer(0, "ledger", "entries")["entries"]}
    assert {"emergency.start", "emergency.end", "share.end"} <= types
