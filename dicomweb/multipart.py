"""multipart/related as it is read from a request and written to a response: RFC 2046 5.1, RFC 2387, PS3.18 8.6.1.

Reading is a push parser with bounded memory: it holds at most what was fed last plus one delimiter or one header
block. It takes what senders are known to do (a preamble that is only CRLF, an epilogue of NUL bytes, padding after a
boundary, a part without a body) and refuses what is ambiguous (bare LF line ends).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from bridge.errors import MultipartInvalid

MAX_BOUNDARY = 70  # RFC 2046 5.1.1
MAX_HEADER_BLOCK = 16 * 1024
MAX_HEADERS = 32
MAX_PADDING = 128
MAX_PREAMBLE = 64 * 1024

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]\Z")
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PADDING = re.compile(rb"[ \t]*")


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts; header names are lower-case."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the part's body, in order."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete: the delimiter after it was read."""


Event = PartBegin | PartData | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartParser:
    """Feed bytes in any pieces; the events do not depend on how the body was cut.

    Raises MultipartInvalid from the constructor for a boundary that RFC 2046 does not allow, from `feed` for a
    malformed part, and from `close` when the closing delimiter never came.
    """

    def __init__(self, boundary: str) -> None:
        if not _BOUNDARY.match(boundary):
            raise MultipartInvalid("The boundary parameter is missing or malformed (RFC 2046 5.1.1)")
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        # A body may open with its first delimiter: the CRLF that belongs to it is supplied here (`_held` bytes that
        # are scanned but never given out). The same serves a part that has no body.
        self._buffer = b"\r\n"
        self._at = 0
        self._held = 2
        self._state = _State.PREAMBLE
        self._preamble = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes and give the events that they complete; to be consumed before the next feed."""
        if self._ended:
            return
        self._buffer = self._buffer + data if self._buffer else data
        progress = True
        while progress and not self._ended:
            if self._state is _State.HEADERS:
                headers = self._take_headers()
                progress = headers is not None
                if headers is not None:
                    yield PartBegin(headers)
            else:
                inside = self._state is _State.BODY
                body, progress = self._take_body()
                if body and inside:
                    yield PartData(body)
                if progress and inside:
                    yield PartEnd()
        self._buffer, self._at = self._buffer[self._at :], 0

    @property
    def _ended(self) -> bool:
        return self._state is _State.EPILOGUE

    def close(self) -> None:
        """Say that the body ended; raises MultipartInvalid unless the closing delimiter was read."""
        if self._state is _State.PREAMBLE:
            raise MultipartInvalid("The body does not contain the boundary that its Content-Type names")
        if not self._ended:
            raise MultipartInvalid("The body ends before its closing delimiter")

    def _take_body(self) -> tuple[bytes, bool]:
        """What of the buffer is body for certain, and whether a delimiter ended it."""
        buffer, delimiter = self._buffer, self._delimiter
        start = self._at
        while True:
            found = buffer.find(delimiter, start)
            if found < 0:
                tail = buffer[max(self._at, len(buffer) - len(delimiter) + 1) :]
                return self._give(len(buffer) - _partial(tail, delimiter)), False
            end = found + len(delimiter)
            if buffer.startswith(b"--", end):
                body = self._give(found)
                self._state, self._buffer, self._at = _State.EPILOGUE, b"", 0
                return body, True
            padded = _PADDING.match(buffer, end)
            after = padded.end() if padded else end
            if buffer.startswith(b"\r\n", after):
                body = self._give(found)
                # Keep the CRLF: with it the end of an empty header block looks like that of any other.
                self._state, self._at, self._held = _State.HEADERS, after, 0
                return body, True
            if buffer[after : after + 2] in (b"", b"\r", b"-") and after - end <= MAX_PADDING:
                return self._give(found), False
            if self._state is _State.PREAMBLE and buffer.startswith(b"\n", after):
                raise MultipartInvalid("The lines end in LF; multipart needs CRLF (RFC 2046 5.1)")
            start = found + 1

    def _give(self, end: int) -> bytes:
        """Go on at `end` and return what lies before it, without the held bytes."""
        begin = self._at + self._held
        if end < begin:
            return b""
        body = self._buffer[begin:end]
        self._at, self._held = end, 0
        if self._state is _State.PREAMBLE:
            self._preamble += len(body)
            if self._preamble > MAX_PREAMBLE:
                raise MultipartInvalid("The body does not contain the boundary that its Content-Type names")
        return body

    def _take_headers(self) -> dict[str, str] | None:
        begin = self._at
        end = self._buffer.find(b"\r\n\r\n", begin, begin + MAX_HEADER_BLOCK)
        if end < 0:
            if len(self._buffer) - begin >= MAX_HEADER_BLOCK:
                raise MultipartInvalid(f"The headers of a part exceed {MAX_HEADER_BLOCK} bytes")
            return None
        headers = _parse_headers(self._buffer[begin + 2 : end])
        self._at, self._held = end + 2, 2
        self._state = _State.BODY
        return headers


def _partial(tail: bytes, delimiter: bytes) -> int:
    """The length of the longest suffix of `tail`, shorter than a delimiter, that one could begin with."""
    position = tail.find(b"\r")
    while position >= 0:
        if delimiter.startswith(tail[position:]):
            return len(tail) - position
        position = tail.find(b"\r", position + 1)
    return 0


def _parse_headers(block: bytes) -> dict[str, str]:
    """Field names in lower case and their values, folded lines joined (RFC 5322 2.2.3)."""
    headers: dict[str, str] = {}
    if not block:
        return headers
    lines = re.sub(r"\r\n[ \t]+", " ", block.decode("latin-1")).split("\r\n")
    if len(lines) > MAX_HEADERS:
        raise MultipartInvalid(f"A part has more than {MAX_HEADERS} headers")
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _FIELD_NAME.fullmatch(name) or "\n" in value or "\r" in value or "\0" in value:
            raise MultipartInvalid("A header of a part is malformed, or its lines end in LF")
        if name.lower() in headers:
            raise MultipartInvalid("A part has the same header twice")
        headers[name.lower()] = value.strip()
    return headers


def part_opening(boundary: str, media_type: str, length: int, location: str, *, first: bool) -> bytes:
    """Delimiter and headers of a part (PS3.18 8.6.1.2.1).

    Kept below 1000 bytes with Content-Type first and so spelled: cornerstone and dicomweb-client JS look for the end
    of the headers in the first 1000 bytes and for exactly this name.
    """
    lead = "" if first else "\r\n"
    return (
        f"{lead}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n"
        f"Content-Location: {location}\r\n\r\n"
    ).encode("latin-1")


def closing(boundary: str) -> bytes:
    """The closing delimiter."""
    return f"\r\n--{boundary}--".encode("ascii")


def content_type(media_type: str, boundary: str) -> str:
    """The Content-Type of the whole (PS3.18 8.7.1: `type` is required, and quoted since it contains a slash)."""
    return f'multipart/related; type="{media_type}"; boundary={boundary}'


def parts(boundary: str, media_type: str, located: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
    """A multipart body of (location, data), each wholly in memory, one at a time."""
    first = True
    for location, data in located:
        yield part_opening(boundary, media_type, len(data), location, first=first)
        yield data
        first = False
    yield closing(boundary)
