"""Why entries of a node wait for their block, in words for people, with what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge.consensus.condition import LEFT_BEHIND, OLD_S, Condition
from bridge.consortium_model import Hindrance
from ledger.members import Member

__all__ = ["apart", "hindrances"]

SECOND: Final = 1_000_000
STALE_US: Final = int(OLD_S * SECOND)
GRACE_US: Final = 2 * SECOND
"""How long a member may be away before it is missed: connections break and are made again within a second."""
LATE_US: Final = 60 * SECOND
RETIRED: Final = (
    "this hospital is no longer a member of the consortium: it was retired by vote, and nothing of it is taken any "
    "more; it goes on storing, and serves its own viewers from what it holds"
)
MEND: Final = (
    "End the node and that CometBFT, and start the node once with CAIRN_LEDGER__COMETBFT__MANAGED=true cairn serve, "
    "ledger.cometbft.home naming the home of that CometBFT: it takes over a state from two members. When cairn "
    "consortium members tells the height that the others have, end it, and start both as before."
)
VOTELESS: Final = (
    "ledger: this hospital's vote is missing, for its CometBFT signs with a key that the members do not know, as after "
    "the loss of its home; it has all blocks. Have them vote for the key: cairn consortium propose rotate --keep-key"
)
LOST: Final = "Nothing is lost: what waits is on this node’s disk, and is handed over again and again."


def hindrances(
    own: Member | None, active: Sequence[Member], waiting_since: int | None, told: Condition | None, now: int
) -> tuple[Hindrance, ...]:
    """What keeps this node's entries from being final now, the first cause first; empty when nothing does.

    CometBFT needs validators with more than two thirds of all votes (CometBFT spec, consensus: +2/3).

    Parameters
    ----------
    own
        This node as a member; None when it is none.
    active
        The members now.
    waiting_since
        When the oldest entry that waits was made, in microseconds since the epoch; None when none waits.
    told
        What the ledger's process told last; None when nothing was told.
    """
    found = _membership(own, waiting_since)
    if not found:
        found = _process(told, now)
        if told is not None:
            found += [*_quorum(active, told, now), *_refusal(told)]
    if not found and waiting_since is not None and now - waiting_since > LATE_US:
        found.append(
            Hindrance(
                "Enough members are connected, and yet no block takes what waits here",
                "Look at consortium/cometbft/cairn-cometbft.log in this node’s home, and ask the other hospitals "
                f"whether their entries are taken. {LOST}",
                waiting_since,
            )
        )
    return tuple(found)


def apart(own: Member | None, active: Sequence[Member], told: Condition | None, now: int) -> list[str]:
    """What of the consortium is not as it should be at a node that takes and serves images all the same.

    Lines for `/readyz`, which may be read by anybody: names of members, no more. A process that says nothing is told
    of there by itself. Parameters as `hindrances`.
    """
    if own is not None and not own.active:
        return [RETIRED]
    if told is None or now - told.at > STALE_US:
        return []
    if told.cometbft:
        return [f"ledger: {told.cometbft}{f'. {MEND}' if told.cometbft == LEFT_BEHIND else ''}"]
    found = [f"ledger: {one.what}" for one in (*_quorum(active, told, now), *_refusal(told)) if own is not None]
    return [*found, VOTELESS] if told.voteless else found


def _membership(own: Member | None, waiting_since: int | None) -> list[Hindrance]:
    if own is not None and own.active:
        return []
    if own is None:
        return [
            Hindrance(
                "This hospital is not a member yet: the members have not voted it in",
                "Send its card (consortium/card in its home) to a member, who proposes it, and read the fingerprint to "
                "each other by telephone. It takes part by itself once more than two thirds have voted for it.",
                waiting_since,
            )
        ]
    return [
        Hindrance(
            "This hospital was retired by vote: nothing of it is taken any more",
            "What it wrote stays. Storing and viewing go on here; speak with the other members.",
            waiting_since,
        )
    ]


def _process(told: Condition | None, now: int) -> list[Hindrance]:
    if told is None or now - told.at > STALE_US:
        return [
            Hindrance(
                "The process that keeps the ledger says nothing",
                "It is started again by itself when it ends. If this stays, look at the node’s log, and start the node "
                f"anew. {LOST}",
                told.at if told is not None else None,
            )
        ]
    if not told.cometbft:
        return []
    if told.cometbft == LEFT_BEHIND:
        return [Hindrance(f"Left behind: {LEFT_BEHIND}", f"{MEND} {LOST}", told.cometbft_since)]
    return [
        Hindrance(
            f"CometBFT cannot be used: {told.cometbft}",
            "It is started again by itself, at longest after a minute. If this stays, look at "
            "consortium/cometbft/cairn-cometbft.log in this node’s home.",
            told.cometbft_since,
        )
    ]


def _quorum(active: Sequence[Member], told: Condition, now: int) -> list[Hindrance]:
    """Too few votes are heard: whose are missing, and since when they are too few."""
    powers = {member.name: member.power for member in active}
    unheard = {name: at for name, at in told.unheard.items() if now - at >= GRACE_US}
    total = sum(powers.values())
    heard, since = total, None
    for name, at in sorted(unheard.items(), key=lambda row: row[1]):
        heard -= powers.get(name, 0)
        if 3 * heard <= 2 * total:
            since = at
            break
    if since is None:
        return []
    missing = sorted((one for one in active if one.name in unheard and one.power), key=lambda one: one.name)
    heard = total - sum(member.power for member in missing)
    names = _listed([member.name for member in missing])
    places = ", ".join(member.card.address.partition("@")[2] for member in missing)
    return [
        Hindrance(
            f"No quorum: {names} {'is' if len(missing) == 1 else 'are'} not heard; {heard} of {total} votes are here, "
            f"and {2 * total // 3 + 1} are needed",
            f"Ask there whether the node runs, and whether CometBFT can be reached from here: {places}. {LOST}",
            since,
        )
    ]


def _refusal(told: Condition) -> list[Hindrance]:
    if not told.refused:
        return []
    return [
        Hindrance(
            f"The members’ rules refuse this node’s next entry: “{told.refused}”",
            "If this node was restored from a backup, or its home copied, it writes entries that the others have "
            "already: docs/consortium.md, “Backup”, tells what to do. Until then its entries wait.",
            told.refused_since,
        )
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
