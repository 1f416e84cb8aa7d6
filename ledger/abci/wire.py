"""ABCI 2.0 on the wire: requests read, responses written (tendermint/abci/types.proto of CometBFT v0.38 to v0.40).

Pure: bytes in, values out. The numbers are those of the fields there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from ledger.abci.messages import (
    ACCEPT,
    REJECT,
    Answer,
    Block,
    Checked,
    Finalized,
    Info,
    InitChain,
    Misbehavior,
    Proposal,
    Snapshot,
    ValidatorUpdate,
)
from ledger.abci.proto3 import Message, field, integer, octets, text, varint
from ledger.errors import CodecError

MESSAGE_BYTES: Final = 100 << 20
"""The largest message that CometBFT sends or takes over the socket (abci/types/messages.go, maxMsgSize)."""


class Echo(NamedTuple):
    """To be said again."""

    message: str


class Flush(NamedTuple):
    """Whatever is held back is to be sent."""


class InfoRequest(NamedTuple):
    """CometBFT's own version, and that of the ABCI that it speaks."""

    version: str
    abci_version: str


class Query(NamedTuple):
    """A question from CometBFT's RPC, or whether a peer may connect."""

    path: str
    data: bytes
    height: int


class CheckTx(NamedTuple):
    """A transaction that wants into the mempool, or is looked at again after a block."""

    tx: bytes
    recheck: bool


class PrepareProposal(NamedTuple):
    proposal: Proposal


class ProcessProposal(NamedTuple):
    proposal: Proposal


class ExtendVote(NamedTuple):
    """Only asked when the genesis enables vote extensions, which ours does not."""


class VerifyVoteExtension(NamedTuple):
    extension: bytes


class Commit(NamedTuple):
    """The last executed block is to be made durable."""


class ListSnapshots(NamedTuple):
    """Which snapshots there are."""


class OfferSnapshot(NamedTuple):
    snapshot: Snapshot
    app_hash: bytes


class LoadSnapshotChunk(NamedTuple):
    height: int
    format: int
    chunk: int


class ApplySnapshotChunk(NamedTuple):
    position: int
    chunk: bytes
    sender: str


Request: TypeAlias = (
    Echo
    | Flush
    | InfoRequest
    | InitChain
    | Query
    | CheckTx
    | Commit
    | ListSnapshots
    | OfferSnapshot
    | LoadSnapshotChunk
    | ApplySnapshotChunk
    | PrepareProposal
    | ProcessProposal
    | ExtendVote
    | VerifyVoteExtension
    | Block
)
"""Every request of ABCI 2.0; `Block` is FinalizeBlock's."""


# --- requests ------------------------------------------------------------------------------------------------------


def request(message: bytes) -> Request:
    """Read one `tendermint.abci.Request`. Raises CodecError for what is no protobuf, or no request that is known."""
    read = Message(message)
    kind = read.last
    make = _REQUESTS.get(kind)
    if make is None:
        raise CodecError(f"request {kind} of ABCI is not known")
    return make(read.message(kind))


def _init_chain(read: Message) -> InitChain:
    return InitChain(
        time_ns=read.time(1),
        chain_id=read.text(2),
        validators=tuple(_validator_update(each) for each in read.messages(4)),
        app_state=read.octets(5),
        initial_height=read.int64(6),
    )


def _prepare_proposal(read: Message) -> PrepareProposal:
    return PrepareProposal(
        Proposal(
            txs=read.each(2),
            height=read.int64(5),
            time_ns=read.time(6),
            proposer=read.octets(8),
            misbehavior=_misbehavior(read, 4),
            max_tx_bytes=read.int64(1),
        )
    )


def _process_proposal(read: Message) -> ProcessProposal:
    return ProcessProposal(
        Proposal(
            txs=read.each(1),
            height=read.int64(5),
            time_ns=read.time(6),
            proposer=read.octets(8),
            misbehavior=_misbehavior(read, 3),
            hash=read.octets(4),
        )
    )


def _finalize_block(read: Message) -> Block:
    return Block(
        txs=read.each(1),
        height=read.int64(5),
        time_ns=read.time(6),
        proposer=read.octets(8),
        hash=read.octets(4),
        misbehavior=_misbehavior(read, 3),
    )


def _misbehavior(read: Message, number: int) -> tuple[Misbehavior, ...]:
    return tuple(
        Misbehavior(
            kind=each.int32(1),
            address=each.message(2).octets(1),
            height=each.int64(3),
            time_ns=each.time(4),
            total_power=each.int64(5),
            power=each.message(2).int64(3),
        )
        for each in read.messages(number)
    )


def _validator_update(read: Message) -> ValidatorUpdate:
    key = read.message(1)
    if len(key.octets(1)) != 32:  # tendermint.crypto.PublicKey: 1 is ed25519
        raise CodecError("a validator's key is not Ed25519")
    return ValidatorUpdate(key.octets(1), read.int64(2))


def _snapshot(read: Message) -> Snapshot:
    return Snapshot(read.uint64(1), read.uint32(2), read.uint32(3), read.octets(4), read.octets(5))


_REQUESTS: Final[Mapping[int, Callable[[Message], Request]]] = {
    1: lambda read: Echo(read.text(1)),
    2: lambda read: Flush(),
    3: lambda read: InfoRequest(read.text(1), read.text(4)),
    5: _init_chain,
    6: lambda read: Query(read.text(2), read.octets(1), read.int64(3)),
    8: lambda read: CheckTx(read.octets(1), read.int32(2) != 0),
    11: lambda read: Commit(),
    12: lambda read: ListSnapshots(),
    13: lambda read: OfferSnapshot(_snapshot(read.message(1)), read.octets(2)),
    14: lambda read: LoadSnapshotChunk(read.uint64(1), read.uint32(2), read.uint32(3)),
    15: lambda read: ApplySnapshotChunk(read.uint32(1), read.octets(2), read.text(3)),
    16: _prepare_proposal,
    17: _process_proposal,
    18: lambda read: ExtendVote(),
    19: lambda read: VerifyVoteExtension(read.octets(4)),
    20: _finalize_block,
}


# --- responses -----------------------------------------------------------------------------------------------------


def exception(words: str) -> bytes:
    """CometBFT ends its client when it reads this."""
    return field(1, text(1, words))


def echoed(message: str) -> bytes:
    return field(2, text(1, message))


def flushed() -> bytes:
    return field(3, b"")


def info(answer: Info) -> bytes:
    body = text(1, answer.data) + text(2, answer.version) + integer(3, answer.app_version)
    return field(4, body + integer(4, answer.height) + octets(5, answer.app_hash))


def chain_begun(app_hash: bytes) -> bytes:
    """InitChain: consensus parameters and validators stay those of the genesis."""
    return field(6, octets(3, app_hash))


def answered(answer: Answer) -> bytes:
    """Query."""
    body = integer(1, answer.code) + text(3, answer.log) + octets(7, answer.value) + integer(9, answer.height)
    return field(7, body)


def checked(verdict: Checked) -> bytes:
    """CheckTx."""
    return field(9, _verdict(verdict))


def committed(retain_height: int) -> bytes:
    return field(12, integer(3, retain_height))


def snapshots(listed: Iterable[Snapshot]) -> bytes:
    return field(13, b"".join(field(1, _snapshot_body(each)) for each in listed))


def snapshot_offered(result: int) -> bytes:
    return field(14, integer(1, result))


def snapshot_chunk(chunk: bytes) -> bytes:
    return field(15, octets(1, chunk))


def chunk_applied(result: int) -> bytes:
    return field(16, integer(1, result))


def prepared(txs: Iterable[bytes]) -> bytes:
    return field(17, b"".join(field(1, tx) for tx in txs))


def processed(accepted: bool) -> bytes:
    return field(18, integer(1, ACCEPT if accepted else REJECT))


def vote_extended() -> bytes:
    return field(19, b"")


def vote_extension_verified(accepted: bool) -> bytes:
    return field(20, integer(1, ACCEPT if accepted else REJECT))


def finalized(block: Finalized) -> bytes:
    """FinalizeBlock."""
    body = b"".join(field(2, _verdict(each)) for each in block.results)
    for update in block.validator_updates:
        body += field(3, field(1, field(1, update.public_key)) + integer(2, update.power))
    return field(21, body + octets(5, block.app_hash))


def _verdict(verdict: Checked) -> bytes:
    """Code and log have the same numbers in ResponseCheckTx and ExecTxResult."""
    return integer(1, verdict.code) + text(3, verdict.log)


def _snapshot_body(each: Snapshot) -> bytes:
    numbers = integer(1, each.height) + integer(2, each.format) + integer(3, each.chunks)
    return numbers + octets(4, each.hash) + octets(5, each.metadata)


# --- framing -------------------------------------------------------------------------------------------------------


def framed(message: bytes) -> bytes:
    """A message as it stands on the socket: its length as unsigned varint before it."""
    return varint(len(message)) + message


def unframed(buffer: bytes | bytearray, start: int = 0) -> tuple[bytes, int] | None:
    """The message that begins at `start` and where the next one does; None while it is not whole.

    Raises CodecError for a length beyond `MESSAGE_BYTES`, as soon as it is read.
    """
    length = shift = 0
    for at in range(start, min(len(buffer), start + 5)):
        length |= (buffer[at] & 0x7F) << shift
        if buffer[at] < 0x80:
            end = at + 1 + length
            if length > MESSAGE_BYTES:
                break
            return (bytes(memoryview(buffer)[at + 1 : end]), end) if end <= len(buffer) else None
        shift += 7
    else:
        if len(buffer) - start < 5:
            return None
    raise CodecError(f"an ABCI message of more than {MESSAGE_BYTES} bytes")
