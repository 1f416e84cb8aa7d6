"""Specific Character Set (0008,0005): bytes to text for every defined term (PS3.3 C.12.1.1.2, PS3.5 section 6.1).

Nothing here fails: what cannot be decoded becomes U+FFFD, and the caller learns of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_CODECS: Final = {
    **{"6": None, "13": "shift_jis", "100": "latin_1", "101": "iso8859_2", "109": "iso8859_3", "110": "iso8859_4"},
    **{"144": "iso8859_5", "127": "iso8859_6", "126": "iso8859_7", "138": "iso8859_8", "148": "iso8859_9"},
    **{"203": "iso8859_15", "166": "iso8859_11", "192": "utf_8", "149": "euc_kr", "58": "gb2312"},
    **{"87": None, "159": None},
}
"""Codec of the G1 code element by ISO registration number; None where only G0 is used."""

_ESCAPES: Final[dict[bytes, tuple[int, str | None]]] = {
    **{
        b"(B": (0, None),
        b"(J": (0, None),
        b"$B": (0, "iso2022_jp"),
        b"$@": (0, "iso2022_jp"),
        b"$(D": (0, "iso2022_jp_2"),
    },
    **{b"-A": (1, "latin_1"), b"-B": (1, "iso8859_2"), b"-C": (1, "iso8859_3"), b"-D": (1, "iso8859_4")},
    **{b"-L": (1, "iso8859_5"), b"-G": (1, "iso8859_6"), b"-F": (1, "iso8859_7"), b"-H": (1, "iso8859_8")},
    **{b"-M": (1, "iso8859_9"), b"-b": (1, "iso8859_15"), b"-T": (1, "iso8859_11"), b")I": (1, "shift_jis")},
    **{b"$)C": (1, "euc_kr"), b"$)A": (1, "gb2312")},
}
"""Code element (G0 or G1) and codec by what follows ESC (PS3.3 Tables C.12-3 and C.12-4)."""

_RUN: Final = re.compile(rb"\x1b(\$[()][A-D]|\$[@AB]|[()\-][A-Za-z])|\x1b|[^\x1b]+", re.DOTALL)
_DELIMITERS: Final = re.compile(rb"[\\\r\n\f\t^=]")
_TERM: Final = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d+)", re.ASCII | re.IGNORECASE)

CODE_EXTENSIONS_ASSUMED: Final = "text in no declared character set; read as UTF-8 or Latin-1"
UNDECODABLE: Final = "text that its Specific Character Set (0008,0005) cannot decode"
UNKNOWN_TERM: Final = "unknown Specific Character Set (0008,0005)"


class Charset:
    """One Specific Character Set.

    Parameters
    ----------
    codec
        The codec of value 1's G1 code element, or of everything where there are no code extensions; None for
        the default repertoire (ISO IR 6).
    extended
        Whether ISO 2022 escape sequences switch code elements.
    """

    __slots__ = ("codec", "extended", "warning")

    def __init__(self, codec: str | None, extended: bool, warning: str | None = None) -> None:
        self.codec = codec
        self.extended = extended
        self.warning = warning

    def decode(self, raw: bytes, warnings: set[str]) -> str:
        """The text of a whole value field; backslash, "^" and "=" are to be looked for in the result.

        Adds to `warnings` when something had to be guessed or replaced.
        """
        if self.extended and b"\x1b" in raw:
            text = self._escaped(raw, warnings)
        elif raw.isascii():
            return raw.decode("ascii")
        else:
            text = _decoded(raw, self.codec, warnings)
        if "\ufffd" in text:
            warnings.add(UNDECODABLE)
        return text

    def _escaped(self, raw: bytes, warnings: set[str]) -> str:
        """ISO 2022: runs between escape sequences, each delimiter going back to value 1 (PS3.5 6.1.2.5.3)."""
        out: list[str] = []
        elements: list[str | None] = [None, self.codec]
        for run in _RUN.finditer(raw):
            if run[1] is not None:
                which, codec = _ESCAPES.get(run[1], (0, None))
                elements[which] = codec
            elif run[0] == b"\x1b":
                warnings.add(UNDECODABLE)
            elif elements[0] is not None and run[0].isascii():
                out.append(_double(run[0], elements[0]))
            else:
                out.append(self._single(run[0], elements, warnings))
        return "".join(out)

    def _single(self, run: bytes, elements: list[str | None], warnings: set[str]) -> str:
        """A run with ASCII in G0; behind a delimiter value 1's G1 holds again, if it has one."""
        found = _DELIMITERS.search(run)
        if found is None or self.codec is None or self.codec == elements[1]:
            return _decoded(run, elements[1], warnings)
        elements[0], former, elements[1] = None, elements[1], self.codec
        return _decoded(run[: found.start()], former, warnings) + _decoded(run[found.start() :], self.codec, warnings)


def _decoded(raw: bytes, codec: str | None, warnings: set[str]) -> str:
    if codec is not None:
        return raw.decode(codec, "replace")
    if raw.isascii():
        return raw.decode("ascii")
    warnings.add(CODE_EXTENSIONS_ASSUMED)
    try:
        return raw.decode("utf_8")
    except UnicodeDecodeError:
        return raw.decode("latin_1")


def _double(run: bytes, codec: str) -> str:
    """JIS X 0208 and 0212 in G0: Python's codecs want the escape sequence."""
    start = b"\x1b$B" if codec == "iso2022_jp" else b"\x1b$(D"
    return (start + run + b"\x1b(B").decode(codec, "replace")


DEFAULT: Final = Charset(None, True)
"""No (0008,0005): ISO IR 6. Escape sequences are honoured all the same."""


def charset(terms: Sequence[str | None]) -> Charset:
    """The character set of the values of (0008,0005).

    Common misspellings are understood ("ISO-IR 100"); of an unknown term the `warning` of the result tells.
    """
    return _charset(tuple((term or "").strip() for term in terms))


@lru_cache(maxsize=64)
def _charset(terms: tuple[str, ...]) -> Charset:
    if not any(terms):
        return DEFAULT
    warning: str | None = None
    codecs: list[str | None] = []
    extended = len(terms) > 1
    for term in terms:
        upper = term.upper()
        match = _TERM.fullmatch(term)
        if upper in ("GB18030", "GBK", "GB2312"):
            codecs.append("gb18030" if upper == "GB18030" else "gbk")
        elif match is not None and match[2] in _CODECS:
            codecs.append(_CODECS[match[2]])
            extended = extended or match[1] is not None
        else:
            codecs.append(None)
            if term:
                warning = UNKNOWN_TERM
    return Charset(codecs[0], extended, warning)
