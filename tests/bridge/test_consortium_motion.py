"""What is shown of a change before it is proposed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bridge.consortium_model import Motion, Planned
from bridge.consortium_motion import described, planned
from bridge.errors import NotFound, RequestError
from bridge.ports import Consortium
from bridge.services.govern import Governance
from ledger import genesis
from tests.ledger.ledger_hospitals import HOSPITALS, Hospital, joined

A, B, C, D = HOSPITALS
LEDGER = joined()


class Seen:
    """What governance asks of a consortium."""

    def own(self) -> object:
        return LEDGER.state.members[A.node]

    def state(self) -> object:
        return LEDGER.state

    def members(self) -> object:
        return list(LEDGER.state.members.values())


def plan(motion: Motion) -> Planned:
    governance = Governance(cast(Consortium, cast(Any, Seen())), cast(Any, None))
    return described(LEDGER.state, motion, planned(governance, motion))


def test_a_new_hospital_s_card_is_decoded() -> None:
    card = Hospital("h7").card(power=3)
    found = plan(Motion("enroll", card=genesis.card_text(card)))
    assert (found.member, found.total, found.after, found.largest, found.needed) == ("h7", 4, 7, 3, 3)
    assert found.former is None
    assert found.card is not None
    assert (found.card.url, found.card.address) == (card.url, card.address)
    assert found.card.fingerprint == genesis.fingerprint(card.signed)
    assert found.card.until_us is None  # the tests' certificates are none


def test_a_former_card_is_shown_beside_the_new_one() -> None:
    new = B.with_key("b two").card(url="https://elsewhere.example:8043")
    found = plan(Motion("rotate", card=genesis.card_text(new)))
    assert found.former is not None and found.card is not None
    assert (found.former.url, found.card.url) == ("https://h1.example:8043", "https://elsewhere.example:8043")
    assert found.former.consensus == found.card.consensus
    assert found.former.key != found.card.key


def test_votes_are_counted_as_they_would_be_then() -> None:
    retired, weighed = plan(Motion("retire", "h3")), plan(Motion("power", "h3", power=5))
    assert (retired.total, retired.after, retired.power) == (4, 3, 1)
    assert (weighed.total, weighed.after, weighed.largest) == (4, 8, 5)


@pytest.mark.parametrize("card", ["", "-----BEGIN CAIRN MEMBER CARD-----", "x" * 20_000, "é"])
def test_what_is_no_card_is_refused(card: str) -> None:
    with pytest.raises(RequestError, match="card"):
        plan(Motion("enroll", card=card))


def test_what_has_no_effect_is_refused_before_anything_is_shown() -> None:
    with pytest.raises(RequestError, match="name or one of these keys"):
        plan(Motion("enroll", card=genesis.card_text(A.card())))
    with pytest.raises(NotFound):
        plan(Motion("retire", "h9"))
