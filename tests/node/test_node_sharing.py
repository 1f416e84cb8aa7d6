"""Two real hospitals with real consensus: a study from grant to receipt, grown, revoked; and what each says of it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from pydicom.uid import generate_uid

from tests.bridge.services.conftest import instance, part10
from tests.node.running_demo import RunningDemo

DICOM_JSON = {"accept": "application/dicom+json"}
DICOM = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
PATIENCE_S = 60.0


class Hospitals(NamedTuple):
    """h0 gives, h1 receives; with a credential for each."""

    demo: RunningDemo
    tokens: tuple[str, str]

    def get(self, hospital: int, path: str, headers: dict[str, str]) -> httpx.Response:
        authorised = {**headers, "authorization": f"Bearer {self.tokens[hospital]}"}
        url = f"{self.demo.url(hospital)}/dicom-web/studies{path}"
        return httpx.get(url, headers=authorised, timeout=60.0, trust_env=False)

    def found(self, hospital: int, study: str) -> int:
        """How many instances a search finds."""
        answer = self.get(hospital, f"/{study}/instances", DICOM_JSON)
        return len(answer.json()) if answer.status_code == 200 else 0

    def store(self, hospital: int, folder: Path, study: str, series: str, count: int) -> None:
        folder.mkdir()
        for number in range(count):
            made = instance(study=study, series=series, sop=f"{series}.{number}", rows=64, fill=number)
            (folder / f"{number}.dcm").write_bytes(part10(made))
        self.demo.cairn(hospital, "import", folder)

    def given(self, grant: str) -> dict[str, Any]:
        rows = self.demo.answer(0, "share", "list")["given"]
        return next(row for row in rows if row["grant"] == grant)

    def received(self, grant: str) -> dict[str, Any]:
        rows = self.demo.answer(1, "share", "list")["received"]
        return next(row for row in rows if row["grant"] == grant)

    def entries(self, hospital: int) -> list[dict[str, Any]]:
        return list(self.demo.answer(hospital, "ledger", "entries")["entries"])


def new_uid() -> str:
    """A UID that has room for more parts."""
    return generate_uid()[:48].rstrip(".")


def wait(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"not {what} in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    demo = RunningDemo(tmp_path_factory.mktemp("sharing") / "consortium", members=2)
    try:
        demo.start()
        first, second = (demo.answer(number, "token", "create", "--role", "admin")["token"] for number in (0, 1))
        yield Hospitals(demo, (first, second))
        assert demo.stop() == 0
    finally:
        demo.kill()


def test_a_study_is_given_grows_and_is_taken_back(hospitals: Hospitals, tmp_path: Path) -> None:
    study, demo = new_uid(), hospitals.demo
    hospitals.store(0, tmp_path / "first", study, f"{study}.1", 4)
    grant = demo.answer(0, "share", "grant", study, "--to", "h1", "--purpose", "TREAT")["grant"]

    # given: found, and the very bytes; the receipt is final on the ledger of both
    wait(lambda: hospitals.found(1, study) == 4, "visible at the receiver")
    path = f"/{study}/series/{study}.1/instances/{study}.1.2"
    ours, theirs = (hospitals.get(number, path, DICOM) for number in (0, 1))
    assert ours.status_code == theirs.status_code == 200
    assert _part(ours) == _part(theirs)
    wait(lambda: hospitals.given(grant)["receipt"], "acknowledged")
    told = {(entry["type"], entry["id"], entry["finality"]) for entry in hospitals.entries(1)}
    assert ("consent.grant", grant, "final") in told
    assert ("share.receipt", hospitals.given(grant)["receipt"], "final") in told

    # grown: what comes later follows
    hospitals.store(0, tmp_path / "later", study, f"{study}.2", 2)
    wait(lambda: hospitals.found(1, study) == 6, "grown at the receiver")

    # taken back: what the receiver added stays its own
    hospitals.store(1, tmp_path / "report", study, f"{study}.9", 1)
    demo.cairn(0, "share", "revoke", grant)
    wait(lambda: hospitals.found(1, study) == 1, "gone at the receiver")
    assert hospitals.get(1, path, DICOM).status_code == 404
    assert hospitals.get(1, f"/{study}/series/{study}.9", DICOM).status_code == 200
    assert hospitals.found(0, study) == 6
    wait(lambda: hospitals.given(grant)["keys_gone"], "attested")
    assert (hospitals.given(grant)["state"], hospitals.received(grant)["why"]) == ("revoked", "revoked")
    demo.cairn(0, "share", "revoke", grant, code=1)
    for number in (0, 1):
        demo.cairn(number, "ledger", "verify")
        assert demo.answer(number, "fsck")["findings"] == []


def test_a_study_is_erased_at_who_was_given_it_and_then_at_who_gave_it(hospitals: Hospitals, tmp_path: Path) -> None:
    study, demo = new_uid(), hospitals.demo
    hospitals.store(0, tmp_path / "first", study, f"{study}.1", 2)
    first = demo.answer(0, "share", "grant", study, "--to", "h1", "--purpose", "TREAT")["grant"]
    wait(lambda: hospitals.found(1, study) == 2, "visible at the receiver")

    # the receiver's copy goes, and it says so; the giver's stays
    done = demo.answer(1, "study", "erase", study, "--yes")
    assert (done["instances"], done["given_to"]) == (2, [])
    assert hospitals.get(1, f"/{study}", DICOM).status_code == 410
    wait(lambda: hospitals.given(first)["keys_gone"], "attested")
    assert hospitals.found(0, study) == 2

    # what is given by another grant comes, and goes with the giver's own
    second = demo.answer(0, "share", "grant", study, "--to", "h1", "--purpose", "TREAT")["grant"]
    wait(lambda: hospitals.found(1, study) == 2, "visible at the receiver again")
    done = demo.answer(0, "study", "erase", study, "--yes")
    assert done["given_to"] == ["h1"]
    wait(lambda: hospitals.found(1, study) == 0, "gone at the receiver")
    assert [hospitals.get(number, f"/{study}", DICOM).status_code for number in (0, 1)] == [410, 410]
    wait(lambda: hospitals.given(second)["keys_gone"], "attested")
    told = [entry["type"] for entry in hospitals.entries(1)]
    assert told.count("study.erase") == 3, "of each tag that the receiver had, and of the giver's"
    for number in (0, 1):
        demo.cairn(number, "ledger", "verify")
        assert demo.answer(number, "fsck")["findings"] == []
        files = [path for path in demo.home(number).rglob("*") if path.is_file()]
        assert number == 1 or not [path.name for path in files if study.encode() in path.read_bytes()]


def test_a_member_fetches_only_what_lives_under_a_grant(hospitals: Hospitals, tmp_path: Path) -> None:
    """By its own hand, with its own certificate, past its node: the gateway of who gave decides."""
    study, demo = new_uid(), hospitals.demo
    hospitals.store(0, tmp_path / "first", study, f"{study}.1", 1)
    wait(lambda: hospitals.found(0, study) == 1, "stored")
    root = demo.answer(0, "study", "show", study)["trees"][0]["root"]
    with _as_member(demo, 1) as client:
        assert client.get(f"/ipfs/{root}?format=car").status_code == 404
        grant = demo.answer(0, "share", "grant", study, "--to", "h1")["grant"]
        wait(lambda: client.get(f"/ipfs/{root}?format=car").status_code == 200, "given")
        other = demo.answer(0, "share", "grant", study, "--to", "h1")["grant"]
        assert demo.answer(0, "share", "revoke", grant)["still"] == [other]
        assert client.get(f"/ipfs/{root}?format=car").status_code == 200
        assert demo.answer(0, "share", "revoke", other)["still"] == []
        assert client.get(f"/ipfs/{root}?format=car").status_code == 404
        assert client.post("/consortium/shares", content=b"not a package").status_code == 403
        assert client.post("/consortium/shares", content=bytes(70_000)).status_code == 413
        assert client.get("/consortium/shares").status_code == 405
    demo.cairn(0, "share", "grant", study, "--to", "h7", code=1)
    demo.cairn(0, "share", "grant", new_uid(), "--to", "h1", code=1)


def test_a_grant_reaches_a_hospital_that_was_down_and_holds_over_a_restart(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    study, demo = new_uid(), hospitals.demo
    hospitals.store(0, tmp_path / "first", study, f"{study}.1", 2)
    grant = demo.answer(0, "share", "grant", study, "--to", "h1", "--expires", "1h")["grant"]
    assert demo.stop() == 0  # as likely as not before anything was delivered
    demo.start()
    wait(lambda: hospitals.found(1, study) == 2, "visible at the receiver")
    wait(lambda: hospitals.given(grant)["receipt"], "acknowledged")
    assert hospitals.received(grant)["expires"] == hospitals.given(grant)["expires"] is not None


GARBAGE = (b"", b"\0" * 60, b"[" * 8_000, b'{"entry": 1, "study": [], "reason": {}}', b"\xff\xfe garbage", b"null")
POSTED = {
    "/consortium/shares": (403, 413, 70_000),
    "/consortium/emergencies": (400, 413, 10_000),
    "/witness/add-checkpoint": (404, 404, 200_000),
}


def test_what_a_hostile_member_sends_is_refused_on_every_route_and_nobody_is_disturbed(hospitals: Hospitals) -> None:
    demo = hospitals.demo
    with _as_member(demo, 1) as client:
        for path, (garbage, oversized, size) in POSTED.items():
            for body in GARBAGE:
                assert client.post(path, content=body).status_code == garbage, (path, body[:10])
            assert client.post(path, content=bytes(size)).status_code == oversized
            assert client.post(path, content=(bytes(1 << 20) for _ in range(64))).status_code == oversized
            assert client.put(path, content=b"x").status_code == 405
        for path in (
            *("/consortium/replicas?after=-1", "/consortium/replicas?after=x", "/consortium/replicas?before=1"),
            *("/consortium/cosignature/0", "/consortium/cosignature/x", f"/consortium/cosignature/{1 << 70}"),
            *("/consortium/rpc/broadcast_tx_sync", "/consortium/rpc/..%2Fstatus", "/ipfs/x?format=raw"),
        ):
            assert client.get(path).status_code in (400, 404), path
        told = client.get("/consortium/replicas?after=0").json()
        assert (told["accepts"], told["replicas"]) == (True, [])
    # requests that break off, or are none, one after the other on connections of their own
    for sent in (
        b"POST /consortium/shares HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc",
        b"\x16\x03\x01 garbage",
    ):
        with _as_socket(demo, 1) as connection:
            connection.sendall(sent)
    assert hospitals.demo.answer(1, "consortium", "members")["members"]
    refused = [entry for entry in hospitals.entries(0) if entry["type"] == "access.refused"]
    assert refused and {entry["hospital"] for entry in refused} == {"h0"}
    with httpx.Client(base_url=demo.url(0)) as open_door:
        assert open_door.get("/readyz").status_code == 200
    assert "Traceback" not in demo.hospital_said(0)


def _as_socket(demo: RunningDemo, hospital: int) -> ssl.SSLSocket:
    context = _context(demo, hospital)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", demo.base_port + 43), 30.0))


def _part(answer: httpx.Response) -> bytes:
    """The one part of a multipart answer, without its boundary."""
    boundary = answer.headers["content-type"].split("boundary=")[1].split(";")[0].strip('"').encode()
    return answer.content.split(b"\r\n\r\n", 1)[1].rpartition(b"\r\n--" + boundary)[0]


def _as_member(demo: RunningDemo, hospital: int) -> httpx.Client:
    """A client of h0's members' listener that shows a hospital's certificate."""
    url = f"https://127.0.0.1:{demo.base_port + 43}"
    return httpx.Client(base_url=url, verify=_context(demo, hospital), timeout=30.0, trust_env=False)


def _context(demo: RunningDemo, hospital: int) -> ssl.SSLContext:
    folder = demo.home(hospital) / "consortium"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context
