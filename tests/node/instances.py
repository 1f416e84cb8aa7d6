"""DICOM files as a sender holds them, and what DICOMweb gives back, compared byte for byte."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom

TESTS = Path(__file__).resolve().parents[1]
HIGHDICOM = TESTS / "data" / "highdicom"
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
FOLDER = PYDICOM / "dicomdirtests"
BOUNDARY = "cairn-tests-6f1d0c5e"
DICOM_ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True)
class Sent:
    """One instance that a test sends: its file, who it is, its transfer syntax."""

    file: Path
    study: str
    series: str
    sop: str
    transfer_syntax: str

    @property
    def path(self) -> str:
        """Its resource below the DICOMweb root."""
        return f"/studies/{self.study}/series/{self.series}/instances/{self.sop}"

    @property
    def data_set(self) -> bytes:
        """Everything after the file meta information."""
        return data_set(self.file.read_bytes())


def data_set(part10: bytes) -> bytes:
    """What follows group 2 in a Part 10 file (PS3.10 7.1), whose elements are explicit VR little endian."""
    assert part10[128:132] == b"DICM"
    at = 132
    while part10[at : at + 2] == b"\x02\x00":
        if part10[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            at += 12 + int.from_bytes(part10[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(part10[at + 6 : at + 8], "little")
    return part10[at:]


def sendable(folders: Iterable[Path]) -> list[Sent]:
    """The files below folders that are instances, whole ones only; of two versions of one the last, which is served."""
    found: dict[str, Sent] = {}
    for file in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if file.read_bytes()[128:132] != b"DICM" or "truncated" in file.name:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of the samples are odd on purpose
            header = pydicom.dcmread(file, stop_before_pixels=True)
        uids = [str(header.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        if all(uids):
            found[uids[2]] = Sent(file, *uids, str(header.file_meta.TransferSyntaxUID))
    return list(found.values())


def stow(client: httpx.Client, files: Sequence[bytes], study: str | None = None) -> httpx.Response:
    """POST instances (PS3.18 10.5) as one multipart/related body."""
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + b"\r\n" for content in files
    ]
    return client.post(
        f"/dicom-web/studies{f'/{study}' if study else ''}",
        content=b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(),
        headers={
            "content-type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
            "accept": "application/dicom+json",
        },
    )


def parts(response: httpx.Response) -> list[bytes]:
    """The bodies of a multipart/related answer (RFC 2387)."""
    match = re.search(r'boundary="?([^";]+)"?', response.headers["content-type"])
    assert match, response.headers["content-type"]
    pieces = (b"\r\n" + response.content).split(b"\r\n--" + match.group(1).encode())
    assert pieces[-1].startswith(b"--")
    return [piece.split(b"\r\n\r\n", 1)[1] for piece in pieces[1:-1]]


def retrieve(client: httpx.Client, sent: Sent) -> bytes:
    """The instance's data set as WADO-RS gives it, in the transfer syntax it has."""
    response = client.get(f"/dicom-web{sent.path}", headers={"accept": DICOM_ANY})
    assert response.status_code == 200, f"{sent.file.name}: {response.status_code} {response.text[:300]}"
    bodies = parts(response)
    assert len(bodies) == 1
    return data_set(bodies[0])


def all_there(client: httpx.Client, instances: Iterable[Sent]) -> None:
    """Every instance comes back byte for byte."""
    for sent in instances:
        assert retrieve(client, sent) == sent.data_set, sent.file.name
