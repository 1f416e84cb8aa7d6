"""Which members keep a copy of a study's sealed blocks: a decision over members, assignments and time. Pure.

Members are ranked for each study by rendezvous hashing (highest random weight: Thaler and Ravishankar 1998), so that
every node ranks them alike, studies spread evenly, and a member that comes or goes moves no other's copies. What is
assigned stays where it is while it is good there: the rank decides only who comes next, and who goes when there are
too many. A copy is let go only when as many others as are wanted are confirmed by their holders' receipts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["Holding", "Move", "Peer", "Step", "is_lost", "plan", "ranked", "to_ask", "usable"]

_LABEL: Final = b"cairn/1 replica\0"
REFUSED_FOR_US: Final = 3600 * 1_000_000
"""How long a member that refused a study is not asked for it again, in microseconds."""


class Peer(NamedTuple):
    """Another member as this node sees it.

    `node` is its 16-byte id; `active`: it is a member and was not retired; `accepts`: it says that it keeps blocks for
    others; `silent` since when (microseconds) it has not answered, None: it answered when it was asked last. `fresh`:
    it was asked a short while ago, or else what is known of it is out of date, or nothing is.
    """

    node: bytes
    active: bool = True
    accepts: bool = True
    silent: int | None = None
    fresh: bool = True


class Holding(NamedTuple):
    """One assignment of a study that was not released.

    `node` is the holder; `confirmed`: a receipt of the newest root came from it; `refused` when (microseconds) it said
    that it does not keep the study, None: it did not.
    """

    node: bytes
    confirmed: bool = False
    refused: int | None = None


class Move(StrEnum):
    """What can be done with a member and a study."""

    ASSIGN = "assign"
    RELEASE = "release"


class Step(NamedTuple):
    """One thing to do: with which member, and why, in words."""

    move: Move
    node: bytes
    why: str


def is_lost(peer: Peer, now: int, lost_us: int) -> bool:
    """Whether a member does not count any more: retired, or silent for `lost_us` microseconds at `now`."""
    return not peer.active or (peer.silent is not None and now - peer.silent >= lost_us)


def usable(peers: Iterable[Peer]) -> list[Peer]:
    """The members that a copy may be given to as far as is known: neither lost nor silent just now, and accepting."""
    return [peer for peer in peers if peer.active and peer.accepts and peer.silent is None]


def to_ask(
    tag: bytes, copies: int, peers: Sequence[Peer], held: Sequence[Holding], now: int, lost_us: int
) -> list[bytes]:
    """The members next in rank for a study that has too few copies: to be asked whether they keep blocks for others.

    As many as are lacking and one more; those that refused or were silent when they were asked last come behind.
    """
    taken = {holding.node for holding in held}
    counting = {peer.node for peer in peers if not is_lost(peer, now, lost_us)}
    lacking = copies - sum(holding.refused is None and holding.node in counting for holding in held)
    free = [peer for peer in peers if peer.active and peer.node not in taken]
    good = {peer.node for peer in usable(free)}
    order = ranked(tag, good) + ranked(tag, [peer.node for peer in free if peer.node not in good])
    return order[: lacking + 1] if lacking > 0 else []


def ranked(tag: bytes, nodes: Collection[bytes]) -> list[bytes]:
    """Member nodes in the order in which they are to keep the study of a 16-byte tag."""
    return sorted(nodes, key=lambda node: (hashlib.sha256(_LABEL + tag + node).digest(), node))


def plan(tag: bytes, copies: int, peers: Sequence[Peer], held: Sequence[Holding], now: int, lost_us: int) -> list[Step]:
    """What is to be done next for one study; empty when nothing is, or nothing can be.

    Parameters
    ----------
    tag
        The study's 16-byte tag.
    copies
        Copies wanted at other members.
    peers
        The other members of the consortium, each once, retired ones too.
    held
        The assignments of this study that were not released, one a member.
    now, lost_us
        The time, and after how long a silent member counts as lost, both in microseconds.

    Nothing is given to a member before it was asked (`to_ask`), and nobody else takes its place before it has answered.

    A member that is lost is replaced at once and let go when the others suffice: one that comes back before that is
    taken as it is. One that was retired is let go at once. One that refuses does not count; it is let go after an hour,
    and may then be asked again.
    """
    known = {peer.node: peer for peer in peers}
    steps: list[Step] = []
    good: list[Holding] = []
    lost: list[Holding] = []
    for holding in held:
        peer = known.get(holding.node)
        if peer is None or not peer.active:
            steps.append(Step(Move.RELEASE, holding.node, "it is no longer a member"))
        elif holding.refused is not None:
            if now - holding.refused >= REFUSED_FOR_US or copies == 0:
                steps.append(Step(Move.RELEASE, holding.node, "it does not keep the study"))
        elif is_lost(peer, now, lost_us):
            lost.append(holding)
        else:
            good.append(holding)
    taken = {holding.node for holding in held}
    free = [peer.node for peer in usable(peers) if peer.node not in taken]
    for node in [node for node in ranked(tag, free)[: max(0, copies - len(good))] if known[node].fresh]:
        steps.append(Step(Move.ASSIGN, node, "the study has too few copies" if not lost else "a member is lost"))
    return [*steps, *_surplus(tag, copies, good, lost)]


def _surplus(tag: bytes, copies: int, good: Sequence[Holding], lost: Sequence[Holding]) -> list[Step]:
    """Who may go: the lost, then of those beyond the wanted number the last in rank, once the rest is confirmed."""
    order = {node: rank for rank, node in enumerate(ranked(tag, [holding.node for holding in good]))}
    by_worth = sorted(good, key=lambda holding: (not holding.confirmed, order[holding.node]))
    if sum(holding.confirmed for holding in by_worth[:copies]) < copies:
        return []
    gone = [Step(Move.RELEASE, holding.node, "it is lost, and others keep the study") for holding in lost]
    return [*gone, *(Step(Move.RELEASE, holding.node, "others keep the study") for holding in by_worth[copies:])]
