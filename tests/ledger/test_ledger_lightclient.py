"""CometBFT's light client: recorded blocks of a real network, every flipped byte, and what a thief would try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_source import octets

from ledger import codec, keys, light_block, light_block_json, lightclient
from ledger.errors import CodecError, LedgerError, ProofInvalid, SignatureInvalid
from ledger.light_block import BlockId, Commit, LightBlock, Time, Validator, Vote, validators_hash
from ledger.lightclient import (
    TooLittlePower,
    Trusting,
    find_path,
    verify,
    verify_commit,
    verify_first,
    verify_path,
)

VECTORS = json.loads((Path(__file__).parents[1] / "data/ledger/cometbft_light_client_vectors.json").read_text())
CHAIN = VECTORS["chain_id"]
BLOCKS = {
    int(item["signed_header"]["header"]["height"]): light_block_json.light_block(item, item["validators"])
    for item in VECTORS["items"]
}
SOON = Trusting(Time(BLOCKS[77].header.time.seconds + 60, 0), 3600)
HEIGHTS = sorted(BLOCKS)
GENESIS = BLOCKS[1].validators[::-1]


@pytest.mark.parametrize("height", HEIGHTS)
def test_each_recorded_block_is_committed_by_the_validators_recorded_with_it(height: int) -> None:
    block = BLOCKS[height]
    verify_commit(block, CHAIN)
    assert block.commit.block_id.hash == block.header.hash()
    assert block.header.validators_hash == validators_hash(block.validators)
    assert list(block.validators) == lightclient.ordered(block.validators)
    assert light_block.decode(block.encode()) == block


def test_a_commit_in_which_one_validator_of_much_power_alone_has_signed_holds() -> None:
    votes = [vote is not None for vote in BLOCKS[77].commit.votes]
    assert (votes, [each.power for each in BLOCKS[77].validators]) == ([True, False, False, False], [10, 1, 1, 1])


@pytest.mark.parametrize("height", [2, 61, 77])
def test_every_flipped_byte_of_header_commit_and_validators_is_found(height: int) -> None:
    encoded = BLOCKS[height].encode()
    for at in range(len(encoded)):
        for flip in (0x01, 0x80):
            damaged = encoded[:at] + bytes([encoded[at] ^ flip]) + encoded[at + 1 :]
            with pytest.raises(LedgerError):
                verify_commit(light_block.decode(damaged), CHAIN)


@pytest.mark.parametrize("height", [2, 61, 77])
def test_every_changed_character_of_what_the_rpc_answered_is_found(height: int) -> None:
    item = next(each for each in VECTORS["items"] if int(each["signed_header"]["header"]["height"]) == height)
    for path, text in _texts(item):
        if path[-1] == "proposer_priority":
            continue  # neither hashed nor signed, and not read
        for at in range(len(text)):
            changed = json.loads(json.dumps(item))
            _put(changed, path, text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
            with pytest.raises(LedgerError):
                verify_commit(light_block_json.light_block(changed, changed["validators"]), CHAIN)


def test_a_network_is_followed_from_height_to_height_across_a_change_of_validators() -> None:
    assert BLOCKS[63].header.next_validators_hash != BLOCKS[63].header.validators_hash
    path = [BLOCKS[height] for height in (1, 2, 61, 62, 63, 64, 65)]
    assert verify_path(GENESIS, path, CHAIN, SOON) == BLOCKS[65]
    with pytest.raises(ProofInvalid):
        verify_path(GENESIS, path[::-1], CHAIN, SOON)
    with pytest.raises(ProofInvalid):
        verify_path(GENESIS, [], CHAIN, SOON)


def test_heights_are_skipped_while_more_than_a_third_of_what_is_trusted_has_signed() -> None:
    verify(BLOCKS[1], BLOCKS[65], SOON)
    with pytest.raises(TooLittlePower):
        verify(BLOCKS[2], BLOCKS[77], SOON)  # one of four signed it, with a power that they do not know


def test_the_next_height_must_have_the_validators_that_were_named_for_it() -> None:
    stranger = BLOCKS[63]
    forged = LightBlock(stranger.header._replace(next_validators_hash=bytes(32)), stranger.commit, stranger.validators)
    with pytest.raises(ProofInvalid, match="named"):
        verify(forged, BLOCKS[64], SOON)


def test_trust_expires_and_time_and_height_only_go_forward() -> None:
    then = BLOCKS[1].header.time
    with pytest.raises(ProofInvalid, match="expired"):
        verify(BLOCKS[1], BLOCKS[2], Trusting(Time(then.seconds + 3600, then.nanos), 3600))
    with pytest.raises(ProofInvalid, match="future"):
        verify(BLOCKS[1], BLOCKS[2], Trusting(then, 3600, drift_s=0))
    for older in (BLOCKS[1], BLOCKS[2]):
        with pytest.raises(ProofInvalid, match="not above"):
            verify(BLOCKS[2], older, SOON)


def test_the_genesis_leads_to_any_height_that_a_third_of_its_validators_signed() -> None:
    for height in (61, 64):
        verify_first(GENESIS, BLOCKS[height], CHAIN)
    with pytest.raises(TooLittlePower):
        verify_first(GENESIS, BLOCKS[77], CHAIN)
    with pytest.raises(TooLittlePower):
        verify_first([each._replace(power=9) for each in BLOCKS[1].validators[3:]], BLOCKS[64], CHAIN)


def test_a_path_has_no_more_blocks_than_the_changes_of_validators_ask_for() -> None:
    asked: list[int] = []

    def fetch(height: int) -> LightBlock:
        asked.append(height)
        return BLOCKS[height]

    assert find_path(GENESIS, 65, CHAIN, SOON, fetch) == [BLOCKS[65]]
    assert asked == [65]
    with pytest.raises(KeyError):  # halfway to 77, of which nothing was recorded
        find_path(GENESIS, 77, CHAIN, SOON, fetch)
    assert asked == [65, 77, 38]


def chain_of(changes: dict[int, str]) -> dict[int, LightBlock]:
    """Blocks 1 to 40 of a network whose validators become these (a letter each) at these heights."""
    named = dict(zip("abcdefghijkl", MANY, strict=True))
    sets = {0: ()} | {
        height: tuple(lightclient.ordered([Validator(keys.raw(named[one].public_key()), 1) for one in letters]))
        for height, letters in changes.items()
    }
    blocks = {}
    for height in range(1, 41):
        now, then = (sets[max(each for each in sets if each <= at)] for at in (height, height + 1))
        header = BLOCKS[1].header._replace(
            height=height,
            time=Time(BLOCKS[1].header.time.seconds + height, 0),
            validators_hash=validators_hash(now),
            next_validators_hash=validators_hash(then),
        )
        commit = Commit(height, 0, BlockId(header.hash(), 1, bytes(32)), ())
        blank = Vote(header.time, b"")
        signers = {keys.raw(key.public_key()): key for key in MANY}
        votes = tuple(
            blank._replace(signature=signers[each.public_key].sign(commit.sign_bytes(blank, CHAIN))) for each in now
        )
        blocks[height] = LightBlock(header, commit._replace(votes=votes), now)
    return blocks


MANY = [Ed25519PrivateKey.from_private_bytes(octets(f"member {number}", 32)) for number in range(12)]


def test_a_path_goes_by_blocks_halfway_where_all_validators_were_replaced_in_steps() -> None:
    blocks = chain_of({1: "abcd", 9: "bcde", 17: "defg", 25: "fghi", 33: "ijkl"})
    path = find_path(blocks[1].validators, 40, CHAIN, SOON, blocks.__getitem__)
    assert verify_path(blocks[1].validators, path, CHAIN, SOON) == blocks[40]
    assert 1 < len(path) < 10
    for without in (path[1:], [path[0], path[-1]]):
        with pytest.raises(TooLittlePower):
            verify_path(blocks[1].validators, without, CHAIN, SOON)
    at_once = chain_of({1: "abcd", 20: "efgh"})  # the next height follows all the same: it was named
    assert find_path(at_once[1].validators, 40, CHAIN, SOON, at_once.__getitem__)[-1] == at_once[40]


def test_a_path_goes_by_the_blocks_that_were_kept_where_the_validators_changed() -> None:
    changes = {1: "abcd", 9: "efgh", 17: "ijkl", 25: "abcd", 33: "efgh"}  # nobody stays
    blocks = chain_of(changes)
    kept = [height for change in list(changes)[1:] for height in (change - 1, change)]
    held = {height: blocks[height] for height in (*kept, *range(36, 41))}
    path = find_path(blocks[1].validators, 40, CHAIN, SOON, held.__getitem__, lightclient.among(kept, 36))
    assert verify_path(blocks[1].validators, path, CHAIN, SOON) == blocks[40]
    del kept[2]
    with pytest.raises(TooLittlePower):
        find_path(blocks[1].validators, 40, CHAIN, SOON, held.__getitem__, lightclient.among(kept, 36))


def test_a_commit_of_another_chain_is_refused() -> None:
    with pytest.raises(ProofInvalid, match="another chain"):
        verify_commit(BLOCKS[1], "chain-2P21zS")


KEYS = [Ed25519PrivateKey.from_private_bytes(octets(f"validator {number}", 32)) for number in range(4)]
OF = {keys.raw(key.public_key()): key for key in KEYS}


def committed(votes: str, powers: tuple[int, ...] = (1, 1, 1, 1)) -> LightBlock:
    """A block with these votes: "b" for the block, "n" for none, "-" absent, "x" of another's signature."""
    validators = tuple(
        lightclient.ordered([Validator(keys.raw(key.public_key()), p) for key, p in zip(KEYS, powers, strict=False)])
    )
    header = BLOCKS[1].header._replace(
        validators_hash=validators_hash(validators), next_validators_hash=validators_hash(validators)
    )
    commit = Commit(header.height, 3, BlockId(header.hash(), 1, bytes(32)), ())
    cast: list[Vote | None] = []
    for kind, validator in zip(votes, validators, strict=True):
        vote = Vote(header.time, b"", kind != "n")
        key = OF[validators[0 if kind == "x" else validators.index(validator)].public_key]
        cast.append(None if kind == "-" else vote._replace(signature=key.sign(commit.sign_bytes(vote, CHAIN))))
    return LightBlock(header, commit._replace(votes=tuple(cast)), validators)


@pytest.mark.parametrize("votes", ["bbbb", "bbb-", "bbbn", "-bbb"])
def test_three_of_four_are_enough(votes: str) -> None:
    verify_commit(committed(votes), CHAIN)


@pytest.mark.parametrize("votes", ["bb--", "bbnn", "bbn-", "nnnn", "----"])
def test_two_of_four_are_not_and_votes_for_no_block_do_not_count(votes: str) -> None:
    with pytest.raises(ProofInvalid, match="two thirds"):
        verify_commit(committed(votes), CHAIN)


def test_exactly_two_thirds_are_not_enough() -> None:
    with pytest.raises(ProofInvalid, match="two thirds"):
        verify_commit(committed("bb-", (1, 1, 1)), CHAIN)


def test_a_vote_that_does_not_verify_spoils_a_commit_that_would_hold_without_it() -> None:
    with pytest.raises(SignatureInvalid):
        verify_commit(committed("bbbx"), CHAIN)


def test_a_validator_that_is_named_twice_does_not_count_twice() -> None:
    block = committed("bb--")
    doubled = (block.validators[0],) * 3 + (block.validators[3],)
    header = block.header._replace(validators_hash=validators_hash(doubled))
    commit = block.commit._replace(block_id=block.commit.block_id._replace(hash=header.hash()), votes=())
    vote = Vote(header.time, b"")
    signature = OF[doubled[0].public_key].sign(commit.sign_bytes(vote, CHAIN))
    votes = (vote._replace(signature=signature),) * 3 + (None,)
    with pytest.raises(ProofInvalid, match="twice"):
        verify_commit(LightBlock(header, commit._replace(votes=votes), doubled), CHAIN)


def test_what_is_not_a_light_block_is_refused_not_raised_as_a_bug() -> None:
    said: dict[str, Any] = codec.decode(BLOCKS[2].encode(), light_block.MAX_SIZE)  # type: ignore[assignment]
    for value in (None, [], {}, {**said, "x": 1}, {**said, "v": []}, {**said, "h": []}, {**said, "c": said["h"]}):
        with pytest.raises(CodecError):
            light_block.of_value(value)
    for path in _places(said):
        for other in (None, True, -1, 2**63, "text", b"", [], {}):
            changed = codec.decode(codec.encode(said, light_block.MAX_SIZE), light_block.MAX_SIZE)
            if _get(said, path) == other and type(_get(said, path)) is type(other):
                continue
            if other is None and len(path) == 3 and path[:2] == ("c", 3):
                continue  # three votes of four do
            _put(changed, path, other)
            with pytest.raises(LedgerError):
                verify_commit(light_block.of_value(changed), CHAIN)


def test_an_answer_of_the_rpc_without_one_of_its_fields_is_refused() -> None:
    item = VECTORS["items"][0]
    for path, _ in _texts(item):
        if path[-1] in ("proposer_priority", "app"):
            continue
        changed = json.loads(json.dumps(item))
        inner = _get(changed, path[:-1])
        del inner[path[-1]]
        with pytest.raises(CodecError):
            light_block_json.light_block(changed, changed["validators"])


def _texts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], str]]:
    """Every text within a JSON value, with where it is."""
    if isinstance(value, str):
        return [(path, value)]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, each in inner for found in _texts(each, (*path, key))]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in [(*path, key), *_places(each, (*path, key))]]


def _get(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _put(value: Any, path: tuple[Any, ...], new: object) -> None:
    _get(value, path[:-1])[path[-1]] = new
