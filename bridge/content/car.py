"""CAR version 1: a header that names roots, then sections of varint length, CID and block (IPLD "CARv1" specification).

Reading is strict: null padding, cut sections, non-minimal varints and blocks that do not hash to their CID are refused,
as Kubo refuses them; an empty file and a header without roots are refused too (CARv1 requires one root at least).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import cbor2

from bridge.content import cid as cids
from bridge.errors import ContentCorrupt
from bridge.model import Block

__all__ = ["MAX_BLOCK", "MAX_HEADER", "CarReader", "encode_header", "section_head", "section_size"]

MAX_BLOCK: Final = 2 << 20  # Bitswap and boxo take no larger block
MAX_HEADER: Final = 32 << 10
_MAX_CID: Final = 4 + cids.MAX_IDENTITY + 1
_LINK: Final = 42


def encode_header(roots: Sequence[bytes]) -> bytes:
    """The header with its length prefix: dag-cbor {"roots": [links], "version": 1}."""
    links = [cbor2.CBORTag(_LINK, b"\0" + root) for root in roots]
    body = cbor2.dumps({"roots": links, "version": 1}, canonical=True)
    return cids.varint(len(body)) + body


def section_head(cid: bytes, length: int) -> bytes:
    """What precedes a block of `length` bytes in its section: the varint of CID and data together, then the CID."""
    return cids.varint(len(cid) + length) + cid


def section_size(cid: bytes, length: int) -> int:
    """The bytes of the section of a block of `length` bytes, with its head."""
    size = len(cid) + length
    return (max(size.bit_length(), 1) + 6) // 7 + size


class CarReader:
    """Reads a CAR from a stream, one verified block at a time.

    Parameters
    ----------
    read
        As `io.BufferedIOBase.read`: returns up to so many bytes, and b"" only at the end.
    max_block
        The largest block taken, in bytes.

    Raises ContentCorrupt, at once when the header and while iterating when a section is not as the specification says
    or a block is not what its CID names.
    """

    def __init__(self, read: Callable[[int], bytes], max_block: int = MAX_BLOCK) -> None:
        self._read = read
        self._max_block = max_block
        self._offset = 0
        length = self._varint("header")
        if length is None or not 0 < length <= MAX_HEADER:
            raise ContentCorrupt("CAR header missing or beyond 32 KiB")
        self.roots = _decode_header(self._exactly(length, "header"))

    @property
    def offset(self) -> int:
        """How many bytes have been read: behind a block that was just given, where it ends."""
        return self._offset

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order; each verified against its CID."""
        while True:
            start = self._offset
            length = self._varint("section")
            if length is None:
                return
            where = f"section at byte {start}"
            if not 0 < length <= self._max_block + _MAX_CID:
                raise ContentCorrupt(f"CAR {where} has no length, or one beyond the limit")
            section = self._exactly(length, where)
            try:
                _, end = cids.read(section)
            except ValueError as error:
                raise ContentCorrupt(f"CAR {where}: {error}") from None
            block = Block(section[:end], section[end:])
            if not cids.verify(block.cid, block.data):
                raise ContentCorrupt(f"CAR {where} is not the block {cids.to_text(block.cid)}")
            yield block

    def _varint(self, what: str) -> int | None:
        raw, start = b"", self._offset
        while not raw or raw[-1] & 0x80:
            byte = self._read(1)
            if not byte and not raw:
                return None
            raw += byte
            self._offset += len(byte)
            if not byte or len(raw) > 9:
                raise ContentCorrupt(f"CAR {what} at byte {start}: length cut short or too long")
        try:
            return cids.read_varint(raw)[0]
        except ValueError as error:
            raise ContentCorrupt(f"CAR {what} at byte {start}: {error}") from None

    def _exactly(self, length: int, what: str) -> bytes:
        parts: list[bytes] = []
        missing = length
        while missing:
            part = self._read(missing)
            if not part:
                raise ContentCorrupt(f"CAR {what} is cut short{_named(b''.join(parts))}")
            parts.append(part)
            missing -= len(part)
        self._offset += length
        return b"".join(parts)


def _named(start: bytes) -> str:
    """The block that a section begins with, in words; nothing when not even its CID is there."""
    try:
        return f", in the block {cids.to_text(start[: cids.read(start)[1]])}"
    except ValueError:
        return ""


def _decode_header(body: bytes) -> tuple[bytes, ...]:
    try:
        header = cbor2.loads(body)
        if not isinstance(header, dict) or set(header) != {"roots", "version"} or header["version"] != 1:
            raise ValueError("not a header of version 1")
        roots = tuple(_link(root) for root in header["roots"])
        if not roots or cids.varint(len(body)) + body != encode_header(roots):
            raise ValueError("no roots, or not canonical")
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise ContentCorrupt(f"CAR header: {error}") from None
    return roots


def _link(value: object) -> bytes:
    if not isinstance(value, cbor2.CBORTag) or value.tag != _LINK or not isinstance(value.value, bytes):
        raise ValueError("a root is not a link")
    cids.parse(value.value[1:])
    return value.value[1:]
