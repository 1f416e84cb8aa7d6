"""Value representations (PS3.5 section 6.2): their length fields, their words, and how JSON shows them."""

from __future__ import annotations

from typing import Final

SHORT_FORM: Final = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
"""VRs whose explicit header has a 16-bit length (PS3.5 Table 7.1-2)."""

LONG_FORM: Final = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
"""VRs whose explicit header has two reserved bytes and a 32-bit length (PS3.5 Table 7.1-1)."""

BINARY: Final = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
"""VRs that JSON shows as InlineBinary or BulkDataURI (PS3.18 Table F.2.3-1)."""

BULK_ALLOWED: Final = BINARY | frozenset(
    ["DS", "FL", "FD", "IS", "LT", "SL", "SS", "ST", "SV", "UC", "UL", "US", "UT", "UV"]
)
"""VRs that a BulkDataURI may stand for (PS3.18 10.4.1.1.2)."""

NUMBERS: Final[dict[str, tuple[str, int]]] = {
    "FD": ("d", 8),
    "FL": ("f", 4),
    "SL": ("i", 4),
    "SS": ("h", 2),
    "SV": ("q", 8),
    "UL": ("I", 4),
    "US": ("H", 2),
    "UV": ("Q", 8),
}
"""Code of the struct module and bytes per value of binary numbers."""

WORD_BYTES: Final = {
    **{vr: size for vr, (_, size) in NUMBERS.items()},
    **{"AT": 2, "OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8},
}
"""Bytes per word, whose order the byte ordering of a transfer syntax changes; 1 for what is not listed."""


def swapped(data: bytes, vr: str) -> bytes:
    """A value with the bytes of each word in the other order (PS3.5 7.3); a part of a word at the end is kept."""
    word = WORD_BYTES.get(vr, 1)
    return swapped_words(data, word)


def swapped_words(data: bytes, word: int) -> bytes:
    """As `swapped`, for words of 1, 2, 4 or 8 bytes."""
    if word == 1:
        return data
    whole = len(data) - len(data) % word
    out = bytearray(data)
    for byte in range(word):
        out[byte:whole:word] = data[word - 1 - byte : whole : word]
    return bytes(out)
