"""Instances made by code: CT slices of 0.5 MB, and tiny ones for many studies.

One template is encoded by pydicom; each instance is its bytes with other UIDs and pixels, so that making hundreds of
megabytes takes seconds. Pixels are random: nobody gains by compressing them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498."
_DIGITS = 30


@dataclass(frozen=True)
class Series:
    """A study of one series: its UIDs and files in order."""

    study: str
    series: str
    instances: tuple[str, ...]
    files: tuple[Path, ...]


def _uid(kind: int, number: int) -> str:
    return f"{ROOT}{kind}{number:0{_DIGITS}d}"


def _template(side: int) -> bytes:
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID = UID(CT)
    data.SOPInstanceUID = UID(_uid(3, 0))
    data.StudyDate, data.StudyTime = "20260102", "030405"
    data.AccessionNumber = "ACC#######"
    data.Modality = "CT"
    data.StudyDescription = "Benchmark"
    data.SeriesDescription = "Axial"
    data.PatientName = "BENCH^P#######"
    data.PatientID = "PID#######"
    data.PatientBirthDate, data.PatientSex = "19700101", "O"
    data.SliceThickness, data.PixelSpacing = 1, [0.7, 0.7]
    data.StudyInstanceUID, data.SeriesInstanceUID = UID(_uid(1, 0)), UID(_uid(2, 0))
    data.SeriesNumber, data.InstanceNumber = 1, "111111"
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.FrameOfReferenceUID = UID(_uid(4, 0))
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = side
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.add_new("PixelData", "OW", bytes(2 * side * side))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


class Maker:
    """Makes studies that no other call has made; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._number = seed * 10**9
        self._random = random.Random(seed)
        self._large, self._small = _template(512), _template(8)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def instance(self, template: bytes, study: int, number: int, position: int) -> bytes:
        """The bytes of one Part 10 file."""
        pixels = len(template) - (2 * 512 * 512 if template is self._large else 2 * 8 * 8)
        head = (
            template[:pixels]
            .replace(b"#######", b"%07d" % (study % 10**7))
            .replace(b"111111", b"%06d" % position)
            .replace(_uid(1, 0).encode(), _uid(1, study).encode())
            .replace(_uid(2, 0).encode(), _uid(2, study).encode())
            .replace(_uid(3, 0).encode(), _uid(3, number).encode())
            .replace(_uid(4, 0).encode(), _uid(4, study).encode())
        )
        return head + self._random.randbytes(len(template) - pixels)

    def series(self, folder: Path, count: int) -> Series:
        """A series of `count` CT slices of 0.5 MB, written to `folder`."""
        folder.mkdir(parents=True)
        study = self._next()
        numbers = [self._next() for _ in range(count)]
        files = []
        for position, number in enumerate(numbers, 1):
            path = folder / f"{position:05d}.dcm"
            path.write_bytes(self.instance(self._large, study, number, position))
            files.append(path)
        return Series(_uid(1, study), _uid(2, study), tuple(_uid(3, n) for n in numbers), tuple(files))

    def tiny(self) -> bytes:
        """A study of one tiny instance."""
        study = self._next()
        return self.instance(self._small, study, self._next(), 1)
