"""Proof that a consortium committed to a log: CometBFT's header and commit over a block record. Pure.

A file of it is canonical CBOR: `b` the block record, `s` the consortium's state after that block, `p` light blocks
that lead from the validators of the genesis to a header whose app hash is the record's SHA-256, `v` the version. With a
proof (C2SP tlog-proof) of an entry under that block's tree it shows, to who has the genesis and nothing else,

    entry -> Merkle tree -> block record -> app hash -> header -> more than two thirds of the validators' power

and by the state whose entry it is and which keys the members had.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ledger import block, codec, entry, light_block, lightclient, members, proof
from ledger.block import BlockRecord
from ledger.checkpoint import Verifier, split_note
from ledger.errors import CodecError, LedgerError, ProofInvalid, SignatureInvalid
from ledger.genesis import Genesis
from ledger.light_block import LightBlock, Validator
from ledger.lightclient import Trusting
from ledger.members import Member, State
from ledger.policy import Policy
from ledger.proof import Proved

VERSION: Final = 1
MAX_SIZE: Final = 64 * 1024 * 1024  # bytes of a file
MAX_PATH: Final = 1000  # light blocks in it
STEPS: Final = ("format", "header", "validators", "commit", "block", "state", *proof.STEPS[1:])
"""What is checked, in order; the place of an error is one of these."""


class Committed(NamedTuple):
    """What was shown: the block record, the state after it, the light block that holds its hash, and who signed that.

    `power` of all validators together, `signed` of those whose votes are in the commit.
    """

    record: BlockRecord
    state: State
    block: LightBlock
    signed: int
    power: int


class Shown(NamedTuple):
    """An entry that a consortium committed to: the proof's outcome, and the member whose entry it is."""

    proved: Proved
    member: Member


def validators(genesis: Genesis) -> list[Validator]:
    """The validators that the chain begins with."""
    return [Validator(card.consensus, card.power) for card in genesis.cards if card.power]


def find_path(
    genesis: Genesis,
    height: int,
    trusting: Trusting,
    fetch: Callable[[int], LightBlock],
    between: Callable[[int, int], int] = lightclient.halfway,
) -> list[LightBlock]:
    """Light blocks that lead from the genesis to a height; as `lightclient.find_path`."""
    return lightclient.find_path(validators(genesis), height, genesis.chain_id, trusting, fetch, between)


def encode(record: bytes, state: bytes, path: list[LightBlock]) -> bytes:
    """The file of an encoded block record, the encoded state after it, and a path; raises CodecError when too large."""
    if not 0 < len(path) <= MAX_PATH:
        raise CodecError(f"a path has at most {MAX_PATH} blocks", "commit proof")
    value = {"b": record, "p": [each.value() for each in path], "s": state, "v": VERSION}
    return codec.encode(value, MAX_SIZE)


def verify(encoded: bytes, genesis: Genesis, trusting: Trusting) -> Committed:
    """What a file shows to who trusts the genesis.

    1. its light blocks lead from the validators of the genesis to one that more than two thirds signed
    2. whose app hash is that of the block record, of an earlier height of this ledger
    3. whose state is the one here

    Raises LedgerError, its place the step that failed.
    """
    try:
        record, state, path = _decode(encoded)
    except CodecError as error:
        raise CodecError(f"{error}", "format") from error
    last = lightclient.verify_path(validators(genesis), path, genesis.chain_id, trusting)  # (1)
    if block.app_hash(record) != last.header.app_hash:  # (2)
        raise ProofInvalid("its hash is not the app hash that the header holds", "block")
    said = block.decode(record)
    if said.ledger != genesis.ledger or said.height >= last.header.height:
        raise ProofInvalid("it is of another ledger, or not of an earlier height", "block")
    try:
        after = members.decode(state)
    except LedgerError as error:
        raise CodecError(error.detail, "state") from error
    if members.state_hash(after) != said.state:  # (3)
        raise ProofInvalid("it is not the one that the block record names", "state")
    signed = sum(
        validator.power
        for validator, vote in zip(last.validators, last.commit.votes, strict=True)
        if vote is not None and vote.for_block
    )
    return Committed(said, after, last, signed, sum(each.power for each in last.validators))


def verify_entry(text: str, committed: Committed, genesis: Genesis) -> Shown:
    """What a proof of an entry shows under a verified commit.

    1. its checkpoint is signed by members alone, and of the block's tree    2. the entry's leaf is in it, at its index
    3. the entry is of this ledger and signed with the key that its member had    4. the record is in its batch

    Raises LedgerError, its place the step that failed.
    """
    parts, state = proof.parse(text), committed.state
    logs = [Verifier(genesis.origin, row.key) for member in state.members.values() for row in member.keys]
    accepted = Policy(tuple(logs)).accept(parts.note)  # (1)
    known = {(log.name, log.id) for log in logs}
    if any((line.name, line.id) not in known for line in split_note(parts.note)[1]):
        raise SignatureInvalid("it has a signature of a key that is no member's", "checkpoint")
    if (accepted.head.size, accepted.head.root) != (committed.record.size, committed.record.root):
        raise ProofInvalid("it is not of the tree that was committed to", "checkpoint")
    try:
        said = entry.read(parts.envelope)
        member = state.members.get(said.node)
        if said.ledger != genesis.ledger or member is None:
            raise SignatureInvalid("it is of another ledger, or of no member")
    except LedgerError as error:
        raise type(error)(error.detail, "entry") from error
    return Shown(proof.verify_parts(parts, accepted, member.key_at(said.sequence)), member)  # (2) to (4)


def bare(text: str, genesis: Genesis) -> str:
    """A proof without the cosignatures of its checkpoint, which a commit makes superfluous. Raises CodecError."""
    parts = proof.parse(text)
    said, lines = split_note(parts.note)
    kept = [line for line in lines if line.name == genesis.origin]
    signed = "".join(f"— {each.name} {base64.b64encode(each.id + each.signature).decode()}\n" for each in kept)
    return proof.encode(parts.envelope, parts.index, parts.path, f"{said}\n{signed}", parts.of)


def _decode(encoded: bytes) -> tuple[bytes, bytes, list[LightBlock]]:
    value: Any = codec.decode(encoded, MAX_SIZE)
    match value:
        case {"b": bytes() as record, "p": list() as path, "s": bytes() as state, "v": 1, **rest} if not rest:
            if type(value["v"]) is int and 0 < len(path) <= MAX_PATH:
                return record, state, [light_block.of_value(each) for each in path]
    raise CodecError("not a proof of a commit, or of another version")
