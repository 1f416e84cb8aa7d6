"""The Part 10 file: preamble, "DICM", file meta information (PS3.10 section 7.1), and then the data set."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from bridge.dicom import limits
from bridge.dicom.transfer_syntaxes import DEFLATED, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from bridge.dicom.value_representations import LONG_FORM
from bridge.errors import Unreadable

IMPLEMENTATION_CLASS_UID: Final = "2.25.331483587517738695780818635410995486938"
IMPLEMENTATION_VERSION_NAME: Final = "CAIRN_0_1"

_PREAMBLE: Final = 128
_START: Final = 132
PREAMBLE: Final = bytes(_PREAMBLE) + b"DICM"
_LENGTH, _SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0000, 0x0002, 0x0003, 0x0010


class Meta(NamedTuple):
    """What the file meta information says; `data_set` is the offset of the data set's first byte in the file."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    data_set: int


def read_meta(prefix: bytes | memoryview) -> Meta | None:
    """The meta information at the start of a file; None when more bytes are needed to tell.

    The group length (0002,0000) is only believed where the elements agree with it, as it is often wrong.

    Raises
    ------
    Unreadable
        No preamble and "DICM" (a bare data set is not guessed at), no Transfer Syntax UID (0002,0010), an element
        that is not group 2 Explicit VR Little Endian, or more than `limits.META_BYTES`.
    """
    data = bytes(prefix[: limits.META_BYTES + 12])
    if data[_PREAMBLE:_START] != b"DICM"[: max(0, len(data) - _PREAMBLE)]:
        raise Unreadable('not a Part 10 file: no "DICM" behind a preamble of 128 bytes')
    values: dict[int, bytes] = {}
    position, declared = _START, -1
    while True:
        if position > limits.META_BYTES:
            raise Unreadable(f"file meta information beyond {limits.META_BYTES} bytes")
        if position == declared and values.get(_TRANSFER_SYNTAX, b"").startswith(DEFLATED.encode()):
            break  # what follows is a deflate stream, whose first bytes may look like group 2
        if len(data) - position < 2:
            return None
        if data[position : position + 2] != b"\x02\x00":
            break
        found = _element(data, position)
        if found is None:
            return None
        element, value, position = found
        values.setdefault(element, value)
        if element == _LENGTH and len(value) == 4:
            declared = position + int.from_bytes(value, "little")
    return _meta(values, position)


def lacks_preamble(prefix: bytes | memoryview) -> bool:
    """Whether a file begins with its meta information: pydicom writes such files unless it is told otherwise.

    `prefix` holds at least the first 132 bytes, else the answer is no. `PREAMBLE` is what belongs in front.
    """
    return (
        len(prefix) >= _START
        and bytes(prefix[:2]) == b"\x02\x00"
        and bytes(prefix[4:6]) in (b"UL", b"OB", b"UI")
        and bytes(prefix[_PREAMBLE:_START]) != b"DICM"
    )


def bare_syntax(prefix: bytes | memoryview) -> str | None:
    """The transfer syntax that a data set without preamble and meta seems to be in; None when it seems to be none.

    Old archives hold such files. One is recognised by a first element of group 0008 up to SOP Instance UID, as every
    composite instance has; Explicit VR when a VR follows the tag, else Implicit VR, Little Endian both.
    """
    if len(prefix) < 8:
        return None
    group, element, length = struct.unpack_from("<HHI", prefix)
    if group != 0x0008 or element > 0x0018:
        return None
    if bytes(prefix[4:6]) in _SHORT:
        return EXPLICIT_LITTLE
    return IMPLICIT_LITTLE if length <= 1024 else None


def _element(data: bytes, position: int) -> tuple[int, bytes, int] | None:
    """Element number, value and end of the group 2 element at a position; None when it is not all there."""
    if len(data) - position < 12:
        return (
            None if len(data) - position < 8 or data[position + 4 : position + 6] in _LONG else _short(data, position)
        )
    if data[position + 4 : position + 6] not in _LONG:
        return _short(data, position)
    element, _, _, length = struct.unpack_from("<HHHI", data, position + 2)
    return _cut(data, element, position + 12, length)


def _short(data: bytes, position: int) -> tuple[int, bytes, int] | None:
    element, code, length = struct.unpack_from("<H2sH", data, position + 2)
    if not code.isalpha():
        raise Unreadable("the file meta information is not Explicit VR Little Endian")
    return _cut(data, element, position + 8, length)


def _cut(data: bytes, element: int, start: int, length: int) -> tuple[int, bytes, int] | None:
    if start + length > limits.META_BYTES:
        raise Unreadable(f"file meta information beyond {limits.META_BYTES} bytes")
    if start + length > len(data):
        return None
    return element, data[start : start + length], start + length


_LONG: Final = frozenset(vr.encode() for vr in LONG_FORM)
_SHORT: Final = frozenset((b"CS", b"UI", b"DA", b"TM", b"DT", b"UL", b"SH", b"LO"))


def _meta(values: dict[int, bytes], data_set: int) -> Meta:
    def text(element: int) -> str:
        return values.get(element, b"").strip(b"\0 ").decode("ascii", "replace")

    if not text(_TRANSFER_SYNTAX):
        raise Unreadable("the file meta information has no Transfer Syntax UID (0002,0010)")
    return Meta(text(_SOP_CLASS), text(_SOP_INSTANCE), text(_TRANSFER_SYNTAX), data_set)


def make_meta(sop_class: str, sop_instance: str, transfer_syntax: str, source_ae: str) -> bytes:
    """Preamble, "DICM" and file meta information for a data set that came without (PS3.10 Table 7.1-1).

    `source_ae` is the AE title of the sender, "" for none; of a longer one the first 16 bytes are kept.
    """
    ae = source_ae.encode("ascii", "replace")[:16].strip()
    elements = b"".join(
        (
            struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\x00\x01",
            _packed(_SOP_CLASS, b"UI", sop_class.encode("ascii", "replace")),
            _packed(_SOP_INSTANCE, b"UI", sop_instance.encode("ascii", "replace")),
            _packed(_TRANSFER_SYNTAX, b"UI", transfer_syntax.encode("ascii", "replace")),
            _packed(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _packed(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _packed(0x0016, b"AE", ae) if ae else b"",
        )
    )
    return PREAMBLE + _packed(_LENGTH, b"UL", struct.pack("<I", len(elements))) + elements


def _packed(element: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) & 1)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
