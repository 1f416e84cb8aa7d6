"""A light client for CometBFT: whether a block was committed, from what a client trusts already. Pure.

CometBFT v0.38 spec, light-client/verification; the rules are those of its light/verifier.go:

- a commit holds when each vote in it verifies and those for the block have more than two thirds of the power;
- the next height is trusted when its validators are those that the trusted header named for it;
- a later one when more than a third of the power of the trusted validators is among those who signed it, so that at
  least one honest validator of the trusted set vouches for the new one.

What is trusted expires: validators that left may sign anything once their stake or standing no longer binds them.
Unlike CometBFT's own light client every vote is verified, also beyond two thirds: no byte of a commit is free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from ledger import keys
from ledger.errors import ProofInvalid, SignatureInvalid
from ledger.light_block import MAX_POWER, Commit, Header, LightBlock, Time, Validator, validators_hash

_NANOS = 10**9


class TooLittlePower(ProofInvalid):
    """Too few of the validators that are trusted have signed: a block between may lead there."""


class Trusting(NamedTuple):
    """When a check takes place, for how long what is trusted stays so, and how far clocks may differ; seconds.

    Without a period trust does not expire: who looks back at what was decided years ago relies on it that a third of
    the members of then did not sign another history since.
    """

    now: Time
    period_s: int | None
    drift_s: int = 10


def verify_first(validators: Sequence[Validator], block: LightBlock, chain_id: str) -> None:
    """Raise unless a block may be trusted because the validators of the genesis (in any order) are.

    They are its own still, or more than a third of their power signed it. Raises as `verify_commit`.
    """
    verify_commit(block, chain_id)
    if validators_hash(ordered(validators)) != block.header.validators_hash:
        verify_overlap(validators, block)


def verify(trusted: LightBlock, block: LightBlock, trusting: Trusting) -> None:
    """Raise unless `block`, of a greater height, may be trusted because `trusted` is.

    Raises TooLittlePower when no more than a third of the trusted power signed (a height between them may do),
    ProofInvalid when a hash, height or time does not follow or the trust has expired, SignatureInvalid for a vote that
    does not verify.
    """
    check_time(trusted.header, block.header, trusting)
    if block.header.height == trusted.header.height + 1:
        verify_commit(block, trusted.header.chain_id)
        if block.header.validators_hash != trusted.header.next_validators_hash:
            raise ProofInvalid("its validators are not those that the trusted header named", "validators")
    else:
        verify_commit(block, trusted.header.chain_id)
        verify_overlap(trusted.validators, block)


def halfway(last: int, ahead: int) -> int:
    """The height between two heights; `last` when there is none."""
    return (last + ahead) // 2


def among(kept: Collection[int], earliest: int) -> Callable[[int, int], int]:
    """As `halfway`, where only the heights from `earliest` on and those that were `kept` are to be had.

    There is a path when the last height of each set of validators was kept, and the first of the next.
    """

    def between(last: int, ahead: int) -> int:
        height = halfway(last, ahead)
        if height >= earliest or height == last:
            return height
        found = [each for each in (*kept, earliest) if last < each < ahead]
        return min(found, key=lambda each: abs(each - height), default=last)

    return between


def find_path(
    validators: Sequence[Validator],
    target: int,
    chain_id: str,
    trusting: Trusting,
    fetch: Callable[[int], LightBlock],
    between: Callable[[int, int], int] = halfway,
) -> list[LightBlock]:
    """Blocks that lead from the validators of the genesis to the height `target`, which is the last of them.

    As few as the changes of validators allow: where one does not lead to another, that of a height `between` is
    fetched, which is as `halfway` and may know which heights are to be had. Raises as `verify` when there is no path,
    and what `fetch` raises.
    """
    path: list[LightBlock] = []
    ahead = [fetch(target)]
    while ahead:
        try:
            if path:
                verify(path[-1], ahead[-1], trusting)
            else:
                verify_first(validators, ahead[-1], chain_id)
        except TooLittlePower:
            last = path[-1].header.height if path else 0
            height = between(last, ahead[-1].header.height)
            if height <= last:
                raise
            ahead.append(fetch(height))
        else:
            path.append(ahead.pop())
    return path


def verify_path(
    validators: Sequence[Validator], path: Sequence[LightBlock], chain_id: str, trusting: Trusting
) -> LightBlock:
    """The last block of a path that begins with the validators of the genesis; raises as `verify`."""
    if not path:
        raise ProofInvalid("no block", "header")
    verify_first(validators, path[0], chain_id)
    _check_future(path[0].header, trusting)
    for trusted, block in pairwise(path):
        verify(trusted, block, trusting)
    return path[-1]


def verify_commit(block: LightBlock, chain_id: str) -> None:
    """Raise unless more than two thirds of a block's validators have signed its header.

    (1) the header is of this chain, and its validators are the ones here    (2) the commit is on this header
    (3) each vote verifies    (4) those for the block have more than two thirds of the power

    Raises ProofInvalid, SignatureInvalid; the place is "header", "validators" or "commit".
    """
    header, commit = block.header, block.commit
    if header.chain_id != chain_id:  # (1)
        raise ProofInvalid("it is of another chain", "header")
    total = sum(validator.power for validator in block.validators)
    if not 0 < total <= MAX_POWER or len({each.public_key for each in block.validators}) != len(block.validators):
        raise ProofInvalid("the validators' power is out of bounds, or one is named twice", "validators")
    if validators_hash(block.validators) != header.validators_hash:
        raise ProofInvalid("they are not those that the header names", "validators")
    if commit.height != header.height or commit.block_id.hash != header.hash():  # (2)
        raise ProofInvalid("it is on another block", "commit")
    if len(commit.votes) != len(block.validators):
        raise ProofInvalid("not as many votes as validators", "commit")
    signed = _signed(commit, block.validators, chain_id)  # (3)
    if 3 * sum(validator.power for validator in signed) <= 2 * total:  # (4)
        raise ProofInvalid("no more than two thirds of the power have signed", "commit")


def verify_overlap(trusted: Collection[Validator], block: LightBlock) -> None:
    """Raise TooLittlePower unless more than a third of the trusted power voted for a block whose commit is verified."""
    voted = {
        validator.public_key
        for validator, vote in zip(block.validators, block.commit.votes, strict=True)
        if vote is not None and vote.for_block
    }
    power = sum(validator.power for validator in trusted if validator.public_key in voted)
    if 3 * power <= sum(validator.power for validator in trusted):
        raise TooLittlePower("no more than a third of the trusted power has signed", "commit")


def check_time(trusted: Header, header: Header, trusting: Trusting) -> None:
    """Raise ProofInvalid unless height and time go on from the trusted header, which has not expired."""
    if header.height <= trusted.height:
        raise ProofInvalid("its height is not above the trusted one's", "header")
    if trusting.period_s is not None and _nanos(trusted.time) + trusting.period_s * _NANOS <= _nanos(trusting.now):
        raise ProofInvalid("what was trusted has expired", "header")
    if _nanos(header.time) <= _nanos(trusted.time):
        raise ProofInvalid("its time is not after the trusted one's", "header")
    _check_future(header, trusting)


def ordered(validators: Collection[Validator]) -> list[Validator]:
    """Validators in the order of a set, which its hash is over: power descending, then address ascending."""
    return sorted(validators, key=lambda each: (-each.power, each.address))


def _signed(commit: Commit, validators: Sequence[Validator], chain_id: str) -> list[Validator]:
    """Those who voted for the block. A vote that does not verify spoils the commit, whatever it was for."""
    signed = []
    for validator, vote in zip(validators, commit.votes, strict=True):
        if vote is None:
            continue
        try:
            keys.check(validator.public_key, vote.signature, commit.sign_bytes(vote, chain_id))
        except SignatureInvalid as error:
            raise SignatureInvalid(f"the vote of {validator.address.hex()} does not verify", "commit") from error
        if vote.for_block:
            signed.append(validator)
    return signed


def _check_future(header: Header, trusting: Trusting) -> None:
    if _nanos(header.time) >= _nanos(trusting.now) + trusting.drift_s * _NANOS:
        raise ProofInvalid("its time lies in the future", "header")


def _nanos(time: Time) -> int:
    return time.seconds * _NANOS + time.nanos
