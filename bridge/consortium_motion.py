"""What would be put to the vote, as people are shown it before they do."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509

from bridge.consortium_model import CardOverview, Motion, Planned
from bridge.errors import RequestError
from bridge.services.govern import Governance, Plan
from ledger import genesis as ledger_genesis
from ledger import terms
from ledger.errors import LedgerError
from ledger.genesis import Card
from ledger.members import State

__all__ = ["described", "planned"]

_LONGEST: Final = 16 << 10


def planned(governance: Governance, motion: Motion) -> Plan:
    """The plan of a motion. Raises NotFound, RequestError as `Governance.plan`, and for what is no card."""
    return governance.plan(motion.do, motion.member, _card(motion), motion.power)


def described(state: State, motion: Motion, plan: Plan) -> Planned:
    """What it would change, of a state in which it would have an effect. Pure."""
    member = next((one for one in state.active if one.name == plan.name), None)
    card, powers = _card(motion), {one.name: one.power for one in state.active}
    total, power = sum(powers.values()), powers.get(plan.name, 0)
    match motion.do:
        case terms.ENROLL if card is not None:
            powers[card.name] = card.power
        case terms.RETIRE:
            powers.pop(plan.name, None)
        case terms.POWER:
            powers[plan.name] = motion.power or 0
    return Planned(
        motion=motion,
        member=plan.name,
        power=power,
        total=total,
        after=sum(powers.values()),
        largest=max(powers.values(), default=0),
        needed=state.quorum,
        former=_overview(member.card) if member is not None and card is not None else None,
        card=_overview(card) if card is not None else None,
    )


def _card(motion: Motion) -> Card | None:
    if motion.do not in (terms.ENROLL, terms.ROTATE):
        return None
    if not motion.card.strip() or len(motion.card) > _LONGEST:
        raise RequestError("put in the hospital’s card, from -----BEGIN to -----END")
    try:
        return ledger_genesis.parse_card(motion.card)
    except LedgerError as error:
        raise RequestError(f"this is not a whole card: {error.detail}") from error


def _overview(card: Card) -> CardOverview:
    try:
        ends = x509.load_der_x509_certificate(card.certificate).not_valid_after_utc
        until = round(ends.timestamp()) * 1_000_000
    except ValueError:
        until = None
    return CardOverview(
        name=card.name,
        node=card.node,
        url=card.url,
        address=card.address,
        power=card.power,
        fingerprint=ledger_genesis.fingerprint(card.signed),
        key=hashlib.sha256(card.key).digest(),
        consensus=hashlib.sha256(card.consensus).digest(),
        certificate=hashlib.sha256(card.certificate).digest(),
        until_us=until,
    )
