"""What a validator that lost the record of its votes may have signed, by what the others show of recorded blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.consensus import configuration, home
from bridge.consensus.forgotten_votes import AHEAD, signed_at_most
from bridge.consensus.rpc_proxy import PATH
from bridge.errors import EngineFault
from ledger.light_block import Validator
from ledger.light_block_json import light_block

VECTORS = json.loads((Path(__file__).parents[2] / "data/ledger/cometbft_light_client_vectors.json").read_text())
CHAIN = VECTORS["chain_id"]
ITEMS = {int(item["signed_header"]["header"]["height"]): item for item in VECTORS["items"]}
EQUAL = [at for at, item in sorted(ITEMS.items()) if [one["voting_power"] for one in item["validators"]] == ["1"] * 4]
EARLY, LATE = EQUAL[0], EQUAL[-1]
SET = light_block(ITEMS[LATE], ITEMS[LATE]["validators"]).validators
TRUSTED = {one.public_key: one.power for one in SET}
OWN, OTHERS = SET[0].address, [one.address for one in SET[1:]]


class Member:
    """A member's listener; its CometBFT's newest block is of a height, None: it does not answer."""

    name = "member"

    def __init__(self, newest: int | None, /, catching_up: bool = False, **altered: Any) -> None:
        self._item = None if newest is None else ITEMS[newest]
        self._catching_up, self._altered = catching_up, altered

    def ask(self, method: str, path: str) -> Any:
        if self._item is None:
            raise EngineFault("it does not answer")
        what = path.removeprefix(PATH).partition("?")[0]
        if what == "status":
            return {"sync_info": {"catching_up": self._catching_up}}
        if what == "commit":
            signed = self._item["signed_header"]
            return {"signed_header": {**signed, "header": {**signed["header"], **self._altered}}}
        assert what == "validators" and path.endswith("&page=1&per_page=100")
        return {"validators": self._item["validators"], "total": str(len(self._item["validators"]))}


def told(*members: Member, own: bytes = OWN, trusted: dict[bytes, int] = TRUSTED) -> int | None:
    return signed_at_most(own, list(zip(OTHERS, members, strict=False)), trusted, CHAIN)


def test_nothing_beyond_the_newest_block_that_is_shown_and_two_more_was_signed() -> None:
    assert told(Member(EARLY), Member(LATE), Member(EARLY)) == LATE + AHEAD


@pytest.mark.parametrize(
    "third",
    [Member(None), Member(LATE, catching_up=True), Member(LATE, height=str(LATE + 1000)), Member(LATE, time="x")],
)
def test_nothing_is_said_while_one_of_the_others_shows_none(third: Member) -> None:
    assert told(Member(LATE), Member(LATE), third) is None
    assert told(Member(LATE), Member(LATE)) is None
    assert told() is None


def test_a_block_of_validators_that_nobody_knows_is_none() -> None:
    strangers = {Validator(bytes([at]) * 32, 1).public_key: 1 for at in range(4)}
    assert told(*(Member(LATE) for _ in range(3)), trusted=strangers) is None


def test_who_has_more_than_a_third_of_the_votes_is_told_nothing_and_who_has_none_all() -> None:
    strong = max(ITEMS)
    validators = light_block(ITEMS[strong], ITEMS[strong]["validators"]).validators
    assert [one.power for one in validators] == [10, 1, 1, 1]
    others = [(one.address, Member(strong)) for one in validators]
    trusted = {one.public_key: one.power for one in validators}
    assert signed_at_most(validators[0].address, others[1:], trusted, CHAIN) is None
    assert signed_at_most(validators[1].address, [*others[:1], *others[2:]], trusted, CHAIN) == strong + AHEAD
    assert signed_at_most(bytes(20), others, trusted, CHAIN) == strong + AHEAD


def test_a_key_without_its_record_is_told_apart_from_a_home_that_has_none(tmp_path: Path) -> None:
    assert home.forgot_votes(tmp_path) is None
    own = home.make_keys(tmp_path)
    assert home.forgot_votes(tmp_path) is None
    (tmp_path / home.VALIDATOR_STATE).unlink()
    assert home.forgot_votes(tmp_path) == Validator(own.consensus, 1).address
    home.write(tmp_path / home.VALIDATOR_STATE, configuration.validator_state(9))
    assert home.forgot_votes(tmp_path) is None and home.identity(tmp_path) == own
    assert json.loads(configuration.validator_state(9)) == {"height": "9", "round": 2**31 - 1, "step": 3}
