"""CometBFT's header, commit and validators (v0.38 spec, core/data_structures.md) as values, with their hashes.

A light block is what a light client needs of one height. Its canonical CBOR leaves out what follows from the rest
(addresses, the hash of the block), so that no byte of it is free: each is hashed into the header or signed.

Only Ed25519 validators are known. Protobuf is written here for what is hashed and signed alone: gogoproto omits scalars
that are zero, and writes embedded messages that are not nullable even when they are empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ledger import codec, merkle
from ledger.errors import CodecError

ADDRESS_SIZE = 20  # bytes
KEY_SIZE = 32  # bytes
MAX_VALIDATORS = 10_000  # as CometBFT's MaxVotesCount
MAX_POWER = (2**63 - 1) // 8  # of all validators together, as CometBFT's MaxTotalVotingPower
MAX_SIZE = 2 * 1024 * 1024  # bytes of an encoded light block
_PRECOMMIT = 2  # SignedMsgType


class Time(NamedTuple):
    """A time as protobuf's Timestamp: seconds since the epoch and nanoseconds within them."""

    seconds: int
    nanos: int


class BlockId(NamedTuple):
    """A block's hash and its part set header (number of parts, hash of them); of no block: empty hashes and 0."""

    hash: bytes
    parts_total: int
    parts_hash: bytes


class Header(NamedTuple):
    """A block header; hashes are raw bytes, times UTC, `version` that of the block protocol and of the application."""

    version: tuple[int, int]
    chain_id: str
    height: int
    time: Time
    last_block_id: BlockId
    last_commit_hash: bytes
    data_hash: bytes
    validators_hash: bytes
    next_validators_hash: bytes
    consensus_hash: bytes
    app_hash: bytes
    last_results_hash: bytes
    evidence_hash: bytes
    proposer_address: bytes

    def hash(self) -> bytes:
        """The block's hash: RFC 6962's tree over the encodings of the fields, in order."""
        block, app = self.version
        hashes = (_length_delimited(1, value) for value in self[5:])
        fields = [
            _varint_field(1, block) + _varint_field(2, app),
            _length_delimited(1, self.chain_id.encode()),
            _varint_field(1, self.height),
            _timestamp(self.time),
            _block_id(self.last_block_id),
            *hashes,
        ]
        return merkle.root(map(merkle.leaf_hash, fields))


class Validator(NamedTuple):
    """A validator's Ed25519 public key (32 bytes) and its voting power, above 0."""

    public_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """SHA-256(public key)[:20]."""
        return hashlib.sha256(self.public_key).digest()[:ADDRESS_SIZE]


def validators_hash(validators: Sequence[Validator]) -> bytes:
    """RFC 6962's tree over the SimpleValidators, in the order of the set (power descending, then address)."""
    encoded = (
        _length_delimited(1, _length_delimited(1, each.public_key)) + _varint_field(2, each.power)
        for each in validators
    )
    return merkle.root(map(merkle.leaf_hash, encoded))


class Vote(NamedTuple):
    """One validator's precommit in a commit: when, its signature (64 bytes), and whether it was for the block."""

    time: Time
    signature: bytes
    for_block: bool = True


class Commit(NamedTuple):
    """The votes on a block in the order of the validators; None for one whose vote is not there."""

    height: int
    round: int
    block_id: BlockId
    votes: tuple[Vote | None, ...]

    def sign_bytes(self, vote: Vote, chain_id: str) -> bytes:
        """What the validator of `vote` signed: the CanonicalVote with its length in front (core/data_structures.md)."""
        voted = _length_delimited(4, _block_id(self.block_id)) if vote.for_block else b""
        canonical = (
            _varint_field(1, _PRECOMMIT)
            + _sfixed64_field(2, self.height)
            + _sfixed64_field(3, self.round)
            + voted
            + _message(5, _timestamp(vote.time))
            + _length_delimited(6, chain_id.encode())
        )
        return _varint(len(canonical)) + canonical


@dataclass(frozen=True, slots=True)
class LightBlock:
    """One height: header, the commit on it, and the validators that could vote."""

    header: Header
    commit: Commit
    validators: tuple[Validator, ...]

    def encode(self) -> bytes:
        """Its canonical CBOR."""
        return codec.encode(self.value(), MAX_SIZE)

    def value(self) -> dict[str, object]:
        """What is encoded: {"c": commit, "h": header, "v": validators}."""
        said, cast = self.header, self.commit
        votes = [None if each is None else [*each.time, each.signature, each.for_block] for each in cast.votes]
        return {
            "c": [cast.height, cast.round, list(cast.block_id), votes],
            "h": [list(said.version), said.chain_id, said.height, list(said.time), list(said.last_block_id), *said[5:]],
            "v": [list(each) for each in self.validators],
        }


def decode(encoded: bytes) -> LightBlock:
    """The light block of a canonical encoding; raises CodecError for anything else. Nothing is verified."""
    return of_value(codec.decode(encoded, MAX_SIZE))


def of_value(value: object) -> LightBlock:
    """The light block of a decoded value; raises CodecError."""
    match value:
        case {"c": list() as cast, "h": list() as said, "v": list() as validators, **rest} if not rest:
            if 0 < len(validators) <= MAX_VALIDATORS:
                return LightBlock(_header(said), _commit(cast), tuple(map(_validator, validators)))
    raise CodecError("not header, commit and validators", "light block")


def _header(value: list[Any]) -> Header:
    match value:
        case [[int() as block, int() as app], str() as chain_id, int() as height, time, last, *hashes]:
            if len(hashes) == 9 and all(type(each) is bytes for each in hashes) and _plain(block, app, height):
                return Header((block, app), chain_id, height, _time(time), _id(last), *hashes)
    raise CodecError("a malformed header", "light block")


def _commit(value: list[Any]) -> Commit:
    match value:
        case [int() as height, int() as round, block_id, list() as votes] if _plain(height, round):
            return Commit(height, round, _id(block_id), tuple(map(_vote, votes)))
    raise CodecError("a malformed commit", "light block")


def _vote(value: Any) -> Vote | None:
    match value:
        case None:
            return None
        case [int() as seconds, int() as nanos, bytes() as signature, bool() as for_block]:
            return Vote(_time([seconds, nanos]), signature, for_block)
    raise CodecError("a malformed vote", "light block")


def _validator(value: Any) -> Validator:
    match value:
        case [bytes() as key, int() as power] if len(key) == KEY_SIZE and type(power) is int and power > 0:
            return Validator(key, power)
    raise CodecError("a malformed validator", "light block")


def _id(value: Any) -> BlockId:
    match value:
        case [bytes() as hash, int() as total, bytes() as parts] if _plain(total):
            return BlockId(hash, total, parts)
    raise CodecError("a malformed block id", "light block")


def _time(value: Any) -> Time:
    match value:
        case [int() as seconds, int() as nanos] if _plain(nanos) and nanos < 10**9 and -(2**63) <= seconds < 2**63:
            if type(seconds) is int:
                return Time(seconds, nanos)
    raise CodecError("a malformed time", "light block")


def _plain(*numbers: int) -> bool:
    """Whether each is an integer (not a boolean) that int64 holds and that is not negative."""
    return all(type(each) is int and 0 <= each < 2**63 for each in numbers)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # int64 as two's complement
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _sfixed64_field(number: int, value: int) -> bytes:
    return _varint(number << 3 | 1) + value.to_bytes(8, "little", signed=True) if value else b""


def _message(number: int, content: bytes) -> bytes:
    """An embedded message, written even when empty."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _length_delimited(number: int, content: bytes) -> bytes:
    """A string or bytes field, omitted when empty."""
    return _message(number, content) if content else b""


def _timestamp(time: Time) -> bytes:
    return _varint_field(1, time.seconds) + _varint_field(2, time.nanos)


def _block_id(block_id: BlockId) -> bytes:
    """BlockID and CanonicalBlockID, which have the same encoding."""
    parts = _varint_field(1, block_id.parts_total) + _length_delimited(2, block_id.parts_hash)
    return _length_delimited(1, block_id.hash) + _message(2, parts)
