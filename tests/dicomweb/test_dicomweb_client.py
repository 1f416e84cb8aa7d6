"""dicomweb-client (Python) over a real socket against a real node: store, search, retrieve, byte for byte."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy
import pytest
import uvicorn
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from bridge.access.tokens import Tokens
from bridge.config import Settings
from bridge.crypto.keystore import open_keystore
from bridge.errors import ContentCorrupt
from bridge.model import Role, StoredInstance
from bridge.node import Node
from dicomweb.app import create_app
from dicomweb.responses import FIRST, PIECE

ROOT = "1.2.826.0.1.3680043.8.498.77"
CT = "1.2.840.10008.5.1.4.1.1.2"
ROWS = COLUMNS = 8


class Served:
    """A node in this process behind uvicorn on a free port."""

    def __init__(self, home: Path) -> None:
        self.node = Node(Settings(home=home), open_keystore(home, None), "web-0")
        self.token = Tokens(self.node.index).create(Role.CLINICIAN, "tester").secret
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(self.node), http="httptools", lifespan="off", log_config=None, access_log=False
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def client(self) -> DICOMwebClient:
        session = create_session()
        session.headers["Authorization"] = f"Bearer {self.token}"
        return DICOMwebClient(f"{self.url}/dicom-web", session=session)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.node.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("node"))
    yield running
    running.close()


def image(
    study: str, sop: int, syntax: str = ExplicitVRLittleEndian, frames: int = 1, name: str = "Müller^Jürgen"
) -> Dataset:
    """A CT image whose pixels count up, so that every frame differs."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID = CT, f"{study}.1.{sop}"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, f"{study}.1"
    data.PatientName, data.PatientID, data.Modality = name, "P-1", "CT"
    data.StudyDate, data.StudyTime, data.InstanceNumber = "20240115", "1130", sop
    data.Rows, data.Columns, data.NumberOfFrames = ROWS, COLUMNS, frames
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    pixels = numpy.arange(frames * ROWS * COLUMNS, dtype="<u2").reshape(frames, ROWS, COLUMNS)
    if syntax == JPEGLSLossless:
        data.PixelData = encapsulate([b"frame %d!" % n for n in range(frames)])
    else:
        data.PixelData = pixels.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    data["PixelData"].VR = "OB" if syntax == JPEGLSLossless else "OW"
    data.preamble = b"\0" * 128  # without it dicomweb-client would send no Part 10 file
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def written(data: Dataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def uids(data: Dataset) -> tuple[str, str, str]:
    return data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID


def test_store_search_and_retrieve(served: Served) -> None:
    study = f"{ROOT}.1"
    images = [image(study, n) for n in (1, 2, 3)]
    client = served.client()
    answer = client.store_instances(images)
    assert len(answer.ReferencedSOPSequence) == 3 and "FailedSOPSequence" not in answer
    (match,) = client.search_for_studies(search_filters={"PatientName": "Müller*", "StudyDate": "20240101-20240131"})
    assert match["0020000D"]["Value"] == [study]
    assert match["00201208"]["Value"] == [3]
    assert match["00081190"]["Value"] == [f"{served.url}/dicom-web/studies/{study}"]
    assert len(client.search_for_instances(study, fields=["all"])) == 3
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []
    back = client.retrieve_study(study)
    assert {data.SOPInstanceUID for data in back} == {data.SOPInstanceUID for data in images}
    pages = client.search_for_instances(study, limit=2, get_remaining=True)
    assert len(pages) == 3


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless]
)
def test_files_come_back_byte_for_byte_and_frames_little_endian(served: Served, syntax: str) -> None:
    sent = image(f"{ROOT}.2.{len(syntax)}.{syntax[-1]}", 1, syntax, frames=3)
    file = written(sent)
    client = served.client()
    with httpx.Client(headers={"Authorization": f"Bearer {served.token}"}) as http:
        stored = http.post(
            f"{served.url}/dicom-web/studies", content=file, headers={"Content-Type": "application/dicom"}
        )
        assert stored.status_code == 200, stored.text
        (item,) = stored.json()["00081199"]["Value"]
        (url,) = item["00081190"]["Value"]
        assert http.get(url, headers={"Accept": "application/dicom"}).content == file
        first = http.get(url + "/frames/2")
        assert http.get(url + "/frames/2", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        head = http.head(url + "/frames/2")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))
        assert http.get(url + "/frames/4").status_code == 404
    frames = client.retrieve_instance_frames(*uids(sent), frame_numbers=[3, 1])
    if syntax == JPEGLSLossless:
        assert [frame.rstrip(b"\0") for frame in frames] == [b"frame 2!", b"frame 0!"]
    else:
        pixels = numpy.arange(3 * ROWS * COLUMNS, dtype="<u2").reshape(3, -1)
        assert frames == [pixels[2].tobytes(), pixels[0].tobytes()]
    assert written(client.retrieve_instance(*uids(sent))) == written(dcmread(io.BytesIO(file)))


def test_metadata_and_its_bulk_data(served: Served) -> None:
    sent = image(f"{ROOT}.3", 1, frames=2)
    client = served.client()
    client.store_instances([sent])
    (found,) = client.retrieve_series_metadata(sent.StudyInstanceUID, sent.SeriesInstanceUID)
    assert found["00080005"]["Value"] == ["ISO_IR 192"]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Müller^Jürgen"}]
    uri = found["7FE00010"]["BulkDataURI"]
    assert uri.startswith(f"{served.url}/dicom-web/studies/{sent.StudyInstanceUID}/")
    assert b"".join(client.retrieve_bulkdata(uri)) == sent.PixelData


def test_one_bad_part_is_reported_and_spares_the_others(served: Served) -> None:
    sent = image(f"{ROOT}.4", 1)
    parts = [written(sent), b"garbage", written(image(f"{ROOT}.5", 1))[:-10]]
    body = b"".join(b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + part for part in parts) + b"\r\n--b--"
    headers = {
        "Authorization": f"Bearer {served.token}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
    }
    response = httpx.post(f"{served.url}/dicom-web/studies", content=body, headers=headers)
    assert response.status_code == 202
    document = response.json()
    assert [item["00081155"]["Value"] for item in document["00081199"]["Value"]] == [[sent.SOPInstanceUID]]
    assert len(document["0008119A"]["Value"]) + len(document.get("00081198", {"Value": []})["Value"]) == 2
    client = served.client()
    assert len(client.search_for_studies(search_filters={"StudyInstanceUID": f"{ROOT}.4,{ROOT}.5"})) == 1


def test_a_truncated_upload_stores_nothing(served: Served) -> None:
    file = written(image(f"{ROOT}.6", 1))
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file
    headers = {
        "Authorization": f"Bearer {served.token}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
    }
    assert httpx.post(f"{served.url}/dicom-web/studies", content=body, headers=headers).status_code == 400
    assert served.client().search_for_studies(search_filters={"StudyInstanceUID": f"{ROOT}.6"}) == []


def test_damage_found_after_the_first_piece_ends_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = image(f"{ROOT}.7", 1, frames=20_000)
    served.client().store_instances([sent])

    def breaking(viewing: object, instance: StoredInstance, blocks: object) -> Iterator[bytes]:
        yield b"x" * FIRST
        raise ContentCorrupt("a block is not what its CID says")

    monkeypatch.setattr(served.node.retrieve, "part10", breaking)
    url = f"{served.url}/dicom-web/studies/{sent.StudyInstanceUID}"
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(url, headers={"Authorization": f"Bearer {served.token}"})
    assert any(record.name == "dicomweb" and "content-corrupt" in record.getMessage() for record in caplog.records)


def test_a_client_that_goes_away_ends_the_reading_of_what_it_asked_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = image(f"{ROOT}.8", 1, frames=2000)
    served.client().store_instances([sent])
    ended = threading.Event()
    read: list[int] = []

    def large(viewing: object, instance: StoredInstance, numbers: tuple[int, ...]) -> Iterator[bytes]:
        try:
            for number in numbers:
                read.append(number)
                yield bytes(PIECE)
        finally:
            ended.set()

    monkeypatch.setattr(served.node.retrieve, "frames", large)
    series = f"{served.url}/dicom-web/studies/{sent.StudyInstanceUID}/series/{sent.SeriesInstanceUID}"
    numbers = ",".join(map(str, range(1, 2001)))
    url = f"{series}/instances/{sent.SOPInstanceUID}/frames/{numbers}"
    with httpx.stream("GET", url, headers={"Authorization": f"Bearer {served.token}"}) as answer:
        assert answer.status_code == 200
        next(answer.iter_raw())
    assert ended.wait(30)
    assert 2 <= len(read) < 100
