"""Sample files, a builder of raw data sets, and pydicom's reading of both to compare with."""

from __future__ import annotations

import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom import config
from pydicom.data import get_charset_files, get_testdata_files
from pydicom.dataset import Dataset

from bridge.dicom import part10
from bridge.dicom.instance import InstanceReader, ScannedInstance
from bridge.errors import CairnError

DATA = Path(__file__).parents[2] / "data"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}


@cache
def part10_files() -> tuple[Path, ...]:
    """Every Part 10 file of pydicom's wheel (character sets too) and of tests/data."""
    named = [*get_testdata_files(), *get_charset_files()]
    ours = [*DATA.glob("highdicom/*.dcm"), *DATA.glob("dicomparser/*.dcm"), *DATA.glob("pydicom-data/*.dcm")]
    found = sorted({Path(name) for name in named if Path(name).is_file()} | set(ours))
    return tuple(path for path in found if is_part10(path.read_bytes()))


def is_part10(data: bytes) -> bool:
    try:
        return part10.read_meta(data) is not None
    except CairnError:
        return False


def split(path: Path) -> tuple[str, bytes]:
    """Transfer syntax UID and data set of a Part 10 file."""
    data = path.read_bytes()
    meta = part10.read_meta(data)
    assert meta is not None
    return meta.transfer_syntax, data[meta.data_set :]


def scan(syntax: str, data_set: bytes, step: int = 0) -> ScannedInstance:
    """One reading of a data set, `step` bytes at a time (0: all at once)."""
    reader = InstanceReader(syntax)
    for at in range(0, len(data_set), step or max(1, len(data_set))):
        reader.feed(data_set[at : at + (step or len(data_set))])
    return reader.finish()


def element(tag: int, vr: bytes, value: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    """An explicit VR element; `length` to lie about it."""
    size = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack(order + "HI", 0, size) if vr in LONG else struct.pack(order + "H", size)) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value: bytes, *, undefined: bool = False) -> bytes:
    if undefined:
        return implicit(0xFFFEE000, value, length=0xFFFFFFFF) + implicit(0xFFFEE00D, b"")
    return implicit(0xFFFEE000, value)


SEQUENCE_END = implicit(0xFFFEE0DD, b"")
UIDS = (
    element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0") + element(0x00080018, b"UI", b"1.2.3.3\0"),
    element(0x0020000D, b"UI", b"1.2.3.1\0") + element(0x0020000E, b"UI", b"1.2.3.2\0"),
)


def instance(before: bytes = b"", behind: bytes = b"", *, early: bytes = b"") -> bytes:
    """An explicit little-endian data set with its UIDs: group 8 to 20 elements `before`, later ones `behind`."""
    return early + UIDS[0] + before + UIDS[1] + behind


def pydicom_read(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def pydicom_json(data_set: Dataset) -> dict[str, Any]:
    """pydicom's DICOM JSON; UIDs that are none and the like are kept."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        return data_set.to_json_dict(suppress_invalid_tags=True)


def normal(value: Any) -> Any:
    """A value without what the two readers may differ in: number or its text, padding, empty name groups."""
    if isinstance(value, str):
        text = value.strip(" \0")
        if text.isalpha():
            return text
        try:
            return float(text)
        except ValueError:
            return text or None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, dict):
        return {group: normal(part) for group, part in value.items() if part} or None
    return value


def differences(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> list[str]:
    """Paths and causes of what differs, but for what `bridge.dicom.json_model` does differently on purpose.

    Those are: (0008,0005), group lengths, values by BulkDataURI, pixel data (encapsulated are OB), private elements
    (pydicom knows some makers' dictionaries), and elements that pydicom leaves out of JSON as invalid.
    """
    found: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        if key in ("00080005", "7FE00010") or key.endswith("0000") or key[:4] in ("0000", "0002", "FFFE"):
            continue
        if key not in ours:
            found.append(f"{path}{key} missing")
        elif key in theirs and "BulkDataURI" not in ours[key]:
            found += _attribute(ours[key], theirs[key], f"{path}{key}")
    return found


def _attribute(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> list[str]:
    private = int(path[-5], 16) & 1
    if ours["vr"] != theirs["vr"]:
        return [] if private and ours["vr"] == "UN" else [f"{path} vr {ours['vr']} {theirs['vr']}"]
    if ours["vr"] == "SQ":
        items, others = ours.get("Value", []), theirs.get("Value", [])
        if len(items) != len(others):
            return [f"{path} items {len(items)} {len(others)}"]
        pairs = enumerate(zip(items, others, strict=True))
        return [line for n, (one, other) in pairs for line in differences(one, other, f"{path}.{n}.")]
    if ours.get("InlineBinary") != theirs.get("InlineBinary"):
        return [f"{path} binary"]
    values = [normal(value) for value in ours.get("Value", [])]
    others = [normal(value) for value in theirs.get("Value", [])]
    return [] if values == others or not any(v is not None for v in values + others) else [f"{path} value"]
