"""What is sent is what comes back: over the DICOM network by DCMTK, over HTTP by STOW-RS, and by `cairn import`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.node.instances import (
    DICOM_ANY,
    FOLDER,
    HIGHDICOM,
    PYDICOM,
    all_there,
    data_set,
    parts,
    retrieve,
    sendable,
    stow,
)
from tests.node.running_node import RunningNode, acknowledged, storescu


@pytest.fixture
def admin(node: RunningNode) -> Iterator[httpx.Client]:
    with node.http("admin") as client:
        yield client


def test_a_folder_sent_by_dcmtk_comes_back_as_it_went_over_the_network(
    node: RunningNode, admin: httpx.Client, storescp: tuple[int, Path], tmp_path: Path
) -> None:
    port, received = storescp
    instances = sendable([FOLDER])
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, sent in enumerate(instances):
        shutil.copy(sent.file, folder / f"{number:03}.dcm")
    reference = storescu(port, "ANY", "--scan-directories", folder)
    ours = node.storescu("--scan-directories", folder)
    assert reference.returncode == 0, reference.stdout
    assert ours.returncode == 0, ours.stdout
    assert len(acknowledged(ours.stdout)) == len(instances) == 81
    as_sent = {sent.sop: sent for sent in sendable([received])}
    assert len(as_sent) == 81
    all_there(admin, as_sent.values())


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("CT_small.dcm", "-x="),
        ("JPEG-lossy.dcm", "-xx"),
        ("SC_rgb_jpeg_dcmtk.dcm", "-xy"),
        ("SC_rgb_jpeg_gdcm.dcm", "-xs"),
        ("examples_jpeg2k.dcm", "-xv"),
        ("693_J2KI.dcm", "-xw"),
        ("MR_small_RLE.dcm", "-xr"),
        ("ExplVR_BigEnd.dcm", "-xb"),
        ("image_dfl.dcm", "-xd"),
        ("rtplan.dcm", "-xi"),
    ],
)
def test_each_transfer_syntax_that_dcmtk_sends_is_kept(
    node: RunningNode, admin: httpx.Client, storescp: tuple[int, Path], name: str, option: str
) -> None:
    port, received = storescp
    assert storescu(port, "ANY", option, PYDICOM / name).returncode == 0
    ours = node.storescu(option, PYDICOM / name)
    assert ours.returncode == 0, ours.stdout
    (as_sent,) = sendable([received])
    response = admin.get(f"/dicom-web{as_sent.path}", headers={"accept": DICOM_ANY})
    (body,) = parts(response)
    assert as_sent.transfer_syntax.encode() in body[132:400]  # (0002,0010)
    assert data_set(body) == as_sent.data_set


def test_every_sample_that_stow_takes_comes_back_byte_for_byte(fresh_node: RunningNode) -> None:
    samples = sendable([PYDICOM, HIGHDICOM])
    assert len(samples) > 120
    fresh_node.start()
    with fresh_node.http("clinician") as client:
        answers = {sent.file.name: stow(client, [sent.file.read_bytes()]).status_code for sent in samples}
        assert {name: status for name, status in answers.items() if status != 200} == {}
        all_there(client, samples)


def test_a_part_that_is_no_instance_fails_alone(node: RunningNode, admin: httpx.Client) -> None:
    (good,) = [sent for sent in sendable([HIGHDICOM]) if sent.file.name == "dx_image.dcm"]
    response = stow(admin, [b"no DICOM at all", good.file.read_bytes()])
    assert response.status_code == 202
    body = response.json()
    assert [item["00081155"]["Value"][0] for item in body["00081199"]["Value"]] == [good.sop]
    assert len(body["0008119A"]["Value"]) == 1  # Other Failures Sequence: it names no instance
    assert retrieve(admin, good) == good.data_set


def test_an_imported_folder_is_found_and_comes_back(fresh_node: RunningNode) -> None:
    fresh_node.start()
    result = fresh_node.answer("import", str(HIGHDICOM))
    instances = sendable([HIGHDICOM])
    assert result["outcomes"]["new"] == len(instances)
    with fresh_node.http("viewer") as viewer:
        all_there(viewer, instances)
        studies = viewer.get("/dicom-web/studies", headers={"accept": "application/dicom+json"}).json()
        assert {study["0020000D"]["Value"][0] for study in studies} == {sent.study for sent in instances}


def test_import_without_a_running_node_stores_the_same(fresh_node: RunningNode) -> None:
    instances = sendable([HIGHDICOM])
    assert fresh_node.answer("import", str(HIGHDICOM))["outcomes"]["new"] == len(instances)
    assert fresh_node.answer("fsck")["findings"] == []
    assert fresh_node.answer("ledger", "verify")["findings"] == []
    types = [entry["type"] for entry in fresh_node.answer("ledger", "entries")["entries"]]
    assert types[0] == "admin.key" and "study.import" in types
    fresh_node.start()
    fresh_node.wait_printed("/login?token=")  # it is the first start all the same
    with fresh_node.http("viewer") as viewer:
        all_there(viewer, instances)


def test_sending_the_same_again_is_success_and_changes_nothing(node: RunningNode, admin: httpx.Client) -> None:
    (sent,) = [sent for sent in sendable([HIGHDICOM]) if sent.file.name == "sr_document.dcm"]
    for _ in range(3):
        assert stow(admin, [sent.file.read_bytes()]).status_code == 200
    found = admin.get("/dicom-web/instances", params={"SOPInstanceUID": sent.sop}).json()
    assert len(found) == 1
    assert retrieve(admin, sent) == sent.data_set
