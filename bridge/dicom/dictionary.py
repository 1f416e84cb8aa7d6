"""The data dictionary of PS3.6 and PS3.7: VR by tag, keyword by tag, tag by keyword.

Tags are numbers (0x00100010). The table lies in dictionary.txt beside this file, one element a line.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from sys import intern
from typing import Final


def _rows() -> list[list[str]]:
    text = Path(__file__).with_name("dictionary.txt").read_text(encoding="ascii")
    return [line.split(" ") for line in text.splitlines()]


@cache
def _representations() -> tuple[dict[int, str], list[tuple[int, int, str]]]:
    """VR by tag, and the repeating ones as (mask, tag under the mask, VR)."""
    single: dict[int, str] = {}
    repeating: list[tuple[int, int, str]] = []
    for tag, vr, _ in _rows():
        if "x" in tag:
            mask = int("".join("0" if digit == "x" else "F" for digit in tag), 16)
            repeating.append((mask, int(tag.replace("x", "0"), 16), intern(vr)))
        else:
            single[int(tag, 16)] = intern(vr)
    return single, repeating


@cache
def _keywords() -> dict[int, str]:
    return {int(tag, 16): keyword for tag, _, keyword in _rows() if "x" not in tag and keyword != "-"}


@cache
def _tags() -> dict[str, int]:
    return {keyword: tag for tag, keyword in _keywords().items()}


_GROUP_LENGTH: Final = "UL"
_PRIVATE_CREATOR: Final = "LO"


def vr_of(tag: int) -> str:
    """The VR of a tag, or its choices joined by "/" ("US/SS"); "UN" when the dictionary does not know it.

    Group lengths are UL and private creators LO (PS3.5 7.2 and 7.8.1); other private elements are UN.
    """
    single, repeating = _representations()
    vr = single.get(tag)
    if vr is not None:
        return vr
    element = tag & 0xFFFF
    if element == 0:
        return _GROUP_LENGTH
    if tag & 0x10000:
        return _PRIVATE_CREATOR if 0x10 <= element <= 0xFF else "UN"
    for mask, masked, repeated in repeating:
        if tag & mask == masked:
            return repeated
    return "UN"


def keyword_of(tag: int) -> str | None:
    """The keyword of a tag; None for private, repeating and unknown ones."""
    return _keywords().get(tag)


def tag_of(keyword: str) -> int | None:
    """The tag of a keyword (PS3.6 column "Keyword"); None when there is no such keyword."""
    return _tags().get(keyword)
