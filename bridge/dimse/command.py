"""Command sets: Implicit VR Little Endian elements of group 0000 (PS3.7 section 6.3.1 and Annex E). Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from bridge.dicom.transfer_syntaxes import is_uid
from bridge.dicom.uids import identifies

AFFECTED_SOP_CLASS = 0x0002
REQUESTED_SOP_CLASS = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE = 0x1000

NO_DATA_SET = 0x0101
RESPONSE = 0x8000
COMMAND_LIMIT = 64 * 1024
"""The longest command set taken, in bytes; real ones have some hundred."""

_ELEMENT = struct.Struct("<HHI")


class Field(IntEnum):
    """Command Field (0000,0100), PS3.7 Table E.1-1."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF


class CommandMalformed(Exception):
    """The bytes are not a command set, or lack what every request carries."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a request's command set says; UIDs stripped of padding, "" where the element is absent."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class: str
    sop_instance: str


def decode_request(encoded: bytes) -> Request:
    """The request that a whole command set encodes.

    Elements that no service here needs are skipped; Command Group Length is not trusted. Raises CommandMalformed when
    an element runs beyond the end, lies outside group 0000, or Command Field, Message ID or Command Data Set Type
    (0000,0800) is missing.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if at + 8 > len(encoded):
            raise CommandMalformed("an element's header is cut off")
        group, element, length = _ELEMENT.unpack_from(encoded, at)
        at += 8
        if group != 0 or length > len(encoded) - at:
            raise CommandMalformed("an element lies outside group 0000 or beyond the end")
        elements[element] = encoded[at : at + length]
        at += length
    field = _unsigned_short(elements, COMMAND_FIELD)
    message_id = MESSAGE_ID_RESPONDED_TO if field & RESPONSE or field == Field.C_CANCEL else MESSAGE_ID
    return Request(
        field=field,
        message_id=_unsigned_short(elements, message_id),
        has_data_set=_unsigned_short(elements, DATA_SET_TYPE) != NO_DATA_SET,
        sop_class=_text(elements, AFFECTED_SOP_CLASS) or _text(elements, REQUESTED_SOP_CLASS),
        sop_instance=_text(elements, AFFECTED_SOP_INSTANCE),
    )


def encode_response(request: Request, status: int, *, comment: str = "", offending: tuple[int, ...] = ()) -> bytes:
    """The command set of the response to `request`: no data set, UIDs echoed when they are UIDs.

    `offending` are tags (0xGGGGEEEE) for Offending Element (0000,0901), `comment` Error Comment (0000,0902), of at
    most 64 characters (PS3.7 Tables 9.3-2 and 9.3-13).
    """
    values: dict[int, bytes] = {
        COMMAND_FIELD: struct.pack("<H", request.field | RESPONSE),
        MESSAGE_ID_RESPONDED_TO: struct.pack("<H", request.message_id),
        DATA_SET_TYPE: struct.pack("<H", NO_DATA_SET),
        STATUS: struct.pack("<H", status),
    }
    if is_uid(request.sop_class):
        values[AFFECTED_SOP_CLASS] = _padded(request.sop_class, b"\0")
    if identifies(request.sop_instance):
        values[AFFECTED_SOP_INSTANCE] = _padded(request.sop_instance, b"\0")
    if offending:
        values[OFFENDING_ELEMENT] = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in offending)
    if comment:
        values[ERROR_COMMENT] = _padded(comment, b" ")
    return encode(values)


def encode(values: Mapping[int, bytes]) -> bytes:
    """A command set of elements of group 0000, ascending, Command Group Length (0000,0000) in front."""
    body = b"".join(_ELEMENT.pack(0, tag, len(values[tag])) + values[tag] for tag in sorted(values))
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _unsigned_short(elements: Mapping[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise CommandMalformed(f"(0000,{element:04X}) is missing or not one US")
    return int.from_bytes(value, "little")


def _text(elements: Mapping[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").strip("\0 ")


def _padded(value: str, pad: bytes) -> bytes:
    data = value.encode("ascii")
    return data + pad if len(data) % 2 else data
