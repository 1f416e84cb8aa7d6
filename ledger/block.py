"""The block record: what a block with accepted entries (or evidence) did to the log and to the state. Pure.

Its SHA-256 is the app hash that CometBFT's next header holds, so that more than two thirds of the validators' power
signs it: entry -> Merkle root -> block record -> app hash -> header -> commit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ledger import codec
from ledger.entry import Entry
from ledger.errors import CodecError

VERSION: Final = 1
ENGINE: Final = "cometbft"
MAX_SIZE: Final = 1024  # bytes
FIRST: Final = bytes(32)
"""What the first block has for the hash of the block before it."""
_COUNT: Final = range(2**63)
_NAMES: Final = {
    **{"ledger": "lg", "height": "h", "previous": "pb", "first": "fi", "size": "sz", "root": "rt"},
    **{"state": "st", "time_us": "tm", "proposer": "px", "hash": "eh"},
}
_SIZES: Final = {"ledger": 8, "previous": 32, "root": 32, "state": 32, "proposer": 20, "hash": 32}


class BlockRecord(NamedTuple):
    """One block of the shared log.

    `ledger` is the ledger's id (8 bytes); `height` CometBFT's; `previous` the SHA-256 of the record before, of whatever
    height (zeros for none); `first` the index of the block's first entry, `size` and `root` the tree after it; `state`
    the hash of the state after it; `time_us` the block's time in microseconds since the epoch; `proposer` the address
    of the validator that proposed it (20 bytes); `hash` CometBFT's hash of the block (32 bytes).
    """

    ledger: bytes
    height: int
    previous: bytes
    first: int
    size: int
    root: bytes
    state: bytes
    time_us: int
    proposer: bytes
    hash: bytes


def encode(record: BlockRecord) -> bytes:
    """The canonical record; raises CodecError for a field out of its range."""
    for name, value in record._asdict().items():
        size = _SIZES.get(name)
        if size is not None and (type(value) is not bytes or len(value) != size):
            raise CodecError(f"{name} is {size} bytes", "block")
        if size is None and (type(value) is not int or value not in _COUNT):
            raise CodecError(f"{name} is out of its range", "block")
    if record.size < record.first:
        raise CodecError("a block takes no entry away", "block")
    stated = {_NAMES[name]: value for name, value in record._asdict().items()}
    return codec.encode({"v": VERSION, "en": ENGINE, **stated}, MAX_SIZE)


def decode(encoded: bytes) -> BlockRecord:
    """The record of exactly these bytes; raises CodecError for anything but the one encoding of one."""
    value: Any = codec.decode(encoded, MAX_SIZE)
    try:
        record = BlockRecord(**{name: value[key] for name, key in _NAMES.items()})
    except (KeyError, TypeError):
        raise CodecError("not a block record", "block") from None
    if encode(record) != encoded:
        raise CodecError("not the encoding of a block record", "block")
    return record


def app_hash(encoded: bytes) -> bytes:
    """SHA-256 of an encoded record: the app hash after its block."""
    return hashlib.sha256(encoded).digest()


@dataclass(frozen=True, slots=True)
class FinalEntry:
    """An entry of the shared log: its index and id (leaf hash), the envelope, what it says, and its block.

    `height` is CometBFT's; `time_us` the block's time in microseconds since the epoch: the median of when the members
    voted on the block before (CometBFT, spec/consensus/bft-time.md).
    """

    index: int
    id: bytes
    envelope: bytes
    entry: Entry
    height: int
    time_us: int

    def from_us(self, now_us: int) -> int:
        """When it took effect: as it says itself, but not before its block's time, nor after `now_us`.

        The block's time alone does not do: no block is made while nothing happens, so that the first entry after a
        quiet night bears the evening's.
        """
        return max(self.time_us, min(self.entry.time_us, now_us))
