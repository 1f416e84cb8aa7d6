"""Value fields to the values of the DICOM JSON Model (PS3.18 Annex F).

A converter takes a value field and a `Context` and gives the list that stands under "Value" (empty for an empty
field), or None when JSON cannot hold the values and a BulkDataURI must stand for them.
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from bridge.dicom.charset import DEFAULT, Charset
from bridge.dicom.value_representations import NUMBERS

Attribute = dict[str, Any]
"""An attribute object (F.2.2): "vr", and at most one of "Value", "BulkDataURI" and "InlineBinary"."""

Values = list[Any] | None
UTF8_TERM: Final = "ISO_IR 192"

BAD_LENGTH: Final = "a binary value whose length is no multiple of its VR's word"
EXACT_INTEGER: Final = 1 << 53
"""Beyond it an IEEE double, which is what most JSON readers have, does not hold every integer."""


class Context:
    """What the bytes alone do not say: byte order ("<" or ">"), character set, and where warnings go."""

    __slots__ = ("charset", "order", "warnings")

    def __init__(self, order: str, warnings: set[str], charset: Charset = DEFAULT) -> None:
        self.order = order
        self.charset = charset
        self.warnings = warnings


def _ascii(raw: bytes, context: Context) -> Values:
    """AE, AS, CS, DA, DT, TM, UI: the default repertoire, several values, padding of no meaning."""
    text = raw.decode("ascii") if raw.isascii() else context.charset.decode(raw, context.warnings)
    if "\\" in text:
        return [part.strip(" \0") or None for part in text.split("\\")]
    text = text.strip(" \0")
    return [text] if text else []


def _text(raw: bytes, context: Context) -> Values:
    """LO, SH, UC: the declared repertoire, several values."""
    text = context.charset.decode(raw, context.warnings)
    if "\\" in text:
        return [part.strip(" \0") or None for part in text.split("\\")]
    text = text.strip(" \0")
    return [text] if text else []


def _long_text(raw: bytes, context: Context) -> Values:
    """LT, ST, UT: one value, in which a backslash is a character and leading spaces have a meaning."""
    text = context.charset.decode(raw, context.warnings).rstrip(" \0")
    return [text] if text else []


def _uri(raw: bytes, context: Context) -> Values:
    """UR: one value, in which a backslash cannot be."""
    text = context.charset.decode(raw, context.warnings).rstrip(" \0")
    return [text] if text else []


_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def _names(raw: bytes, context: Context) -> Values:
    """PN: objects of the component groups that are not empty (F.2.2)."""
    text = context.charset.decode(raw, context.warnings)
    if "=" not in text and "\\" not in text:
        text = text.rstrip(" \0")
        return [{"Alphabetic": text}] if text else []
    names = [_name(part) for part in text.split("\\")]
    return names if len(names) > 1 or names[0] is not None else []


def _name(text: str) -> dict[str, str] | None:
    parts = [part.rstrip(" \0") for part in text.split("=")]
    return {group: part for group, part in zip(_GROUPS, parts, strict=False) if part} or None


_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER: Final = 64
_DIGITS: Final = 15
"""A decimal of so many digits comes back from a double as it was (IEEE 754, DBL_DIG)."""
_PLAIN: Final = b"0123456789.-+eE\\ "


def _number_strings(raw: bytes, context: Context) -> Values:
    """DS and IS: numbers where the JSON number has the same value, else the string (F.2.3.1, note)."""
    if raw.translate(None, _PLAIN):
        text = context.charset.decode(raw, context.warnings)
        return _several([_exact(part.strip(" \0")) for part in text.split("\\")])
    parts = raw.decode("ascii").split("\\")
    try:
        if len(parts) == 1:
            part = parts[0]
            if len(part) <= _DIGITS:
                return [float(part) if "." in part else int(part)]
        elif len(max(parts, key=len)) <= _DIGITS:
            return [float(part) if "." in part else int(part) for part in parts]
    except ValueError:
        pass  # an empty value, an exponent, or not a number
    return _several([_plain(part.strip()) for part in parts])


def _several(values: list[Any]) -> list[Any]:
    return values if len(values) > 1 or values[0] is not None else []


def _plain(text: str) -> int | float | str | None:
    """As `_exact`, of digits, signs, points and exponents in any order: quickly when a double holds all digits."""
    if len(text) > _DIGITS:
        return _exact(text)
    try:
        number = float(text)
    except ValueError:
        return text or None
    if 1e-290 < abs(number) < 1e290:
        return number if "." in text or not number.is_integer() else int(number)
    return _exact(text)


def _exact(text: str) -> int | float | str | None:
    """The number when a double holds exactly as many digits as were written, else the text."""
    if not text:
        return None
    if len(text) > _LONGEST_NUMBER or _NUMBER.fullmatch(text) is None:
        return text
    try:
        integer = int(text)
    except ValueError:
        number = float(text)
        return number if isfinite(number) and _same(text, number) else text
    return integer if -EXACT_INTEGER <= integer <= EXACT_INTEGER else text


def _same(text: str, number: float) -> bool:
    """Whether the digits and exponent written are those of the number's shortest form."""
    return _scientific(text) == _scientific(repr(number))


def _scientific(text: str) -> tuple[bool, str, int]:
    """Sign, digits without zeros at either end, and the exponent of the last of them."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    if not kept:
        return False, "", 0
    return mantissa.startswith("-"), kept, int(exponent or 0) - len(fraction) + len(digits) - len(kept)


def _tags(raw: bytes, context: Context) -> Values:
    """AT: eight upper-case hexadecimal digits each."""
    count = len(raw) // 4
    if len(raw) % 4:
        context.warnings.add(BAD_LENGTH)
    words = struct.unpack_from(f"{context.order}{count * 2}H", raw)
    return [f"{group:04X}{element:04X}" for group, element in zip(words[::2], words[1::2], strict=True)]


Converter = Callable[[bytes, Context], Values]


def _numbers(code: str, size: int) -> Converter:
    one = {order: struct.Struct(order + code).unpack for order in "<>"}

    def convert(raw: bytes, context: Context) -> Values:
        length = len(raw)
        if length == size:
            return list(one[context.order](raw))
        if length % size:
            context.warnings.add(BAD_LENGTH)
        return list(struct.unpack_from(f"{context.order}{length // size}{code}", raw))

    return convert


def _reals(code: str, size: int) -> Converter:
    numbers = _numbers(code, size)

    def convert(raw: bytes, context: Context) -> Values:
        values = numbers(raw, context) or []
        return values if all(map(isfinite, values)) else None  # NaN and infinities are no JSON numbers (RFC 8259)

    return convert


def _long_integers(code: str, size: int) -> Converter:
    numbers = _numbers(code, size)

    def convert(raw: bytes, context: Context) -> Values:
        values = numbers(raw, context) or []
        return [value if -EXACT_INTEGER <= value <= EXACT_INTEGER else str(value) for value in values]

    return convert


def _binary_converter(vr: str) -> Converter:
    code, size = NUMBERS[vr]
    if vr in ("FD", "FL"):
        return _reals(code, size)
    return _long_integers(code, size) if vr in ("SV", "UV") else _numbers(code, size)


CONVERTERS: Final[dict[str, Converter]] = {
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM", "UI"), _ascii),
    **dict.fromkeys(("LO", "SH", "UC"), _text),
    **dict.fromkeys(("LT", "ST", "UT"), _long_text),
    **dict.fromkeys(("DS", "IS"), _number_strings),
    **{"PN": _names, "UR": _uri, "AT": _tags},
    **{vr: _binary_converter(vr) for vr in NUMBERS},
}
"""Converter by VR, for all that JSON shows under "Value" but SQ."""


def inline_binary(vr: str, little_endian: bytes) -> Attribute:
    """An attribute of a binary VR with its value in place (F.2.7)."""
    if not little_endian:
        return {"vr": vr}
    return {"vr": vr, "InlineBinary": b64encode(little_endian).decode("ascii")}


def bulk_reference(vr: str, path: str) -> Attribute:
    """An attribute whose value is to be fetched: a URI relative to the instance's resource (F.2.6)."""
    return {"vr": vr, "BulkDataURI": f"bulkdata/{path}"}
