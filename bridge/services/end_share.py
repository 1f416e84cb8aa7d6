"""A grant to this node has ended, by its giver's revocation or by time: what it brought is given up.

    (1) another grant of the same tree that lives keeps all of it: only this grant ends
    (2) the keys of the tree deleted, durably: from here on nothing of it can be opened
    (3) the tree forgotten: its instances, what searches know of them, its blocks that nothing else needs
    (4) the content engine lets go of its roots
    (5) the entry `share.end`: this node attests that the keys are gone
    (6) the row: it has ended
    (7) other received trees of the study are taken in anew: an instance of two of them was found by the first alone

What this node stored itself stays, with what it added to the study. Packs hold the sealed bytes until they are removed;
without the keys these are noise. What somebody looked at or exported before cannot be called back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.content import dag
from bridge.content.at_hand import at_hand_only
from bridge.content.pins import Pin
from bridge.errors import CairnError, ContentCorrupt, ContentMissing
from bridge.model import Tree
from bridge.services.deliver_share import again
from bridge.services.receive_share import Receiver, incoming_of, state
from bridge.services.share import Sharing
from bridge.share_model import Received, ReceivedState

__all__ = ["Ending", "end_shares"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """What ending works with besides: the pins of a tree (row) and what forgets blocks that were put a while ago.

    `kept_for_others`: whether the sealed blocks of a study tag stay here as a replica.
    """

    receiver: Receiver
    pins: Callable[[int], Sequence[Pin]]
    release: Callable[[Sequence[bytes]], None]
    kept_for_others: Callable[[bytes], bool]


def end_shares(ending: Ending) -> int:
    """(1) to (7) for every grant that is due; how many ended. Raises StorageFault and as a commit."""
    sharing = ending.receiver.sharing
    return sum(_end(ending, one) for one in sharing.shares.due_received(ReceivedState.ENDING, sharing.clock()))


def _end(ending: Ending, received: Received) -> bool:
    sharing = ending.receiver.sharing
    try:
        with ending.receiver.lock:
            if not _also_granted(ending, received):  # (1)
                _give_up(ending, received)
            ended = {"state": ReceivedState.ENDED.value, "ended": sharing.clock(), "package": None, "fault": None}
            sharing.shares.change_received(received, **ended)  # (6)
            _take_in_anew(ending, received)  # (7)
    except CairnError as error:
        log.error("a share that has ended is not given up yet", extra={"slug": error.slug, "peer": received.member})
        tries = received.tries + 1
        waits = {"fault": error.detail[:200], "tries": tries, "again": again(sharing.clock(), tries)}
        sharing.shares.change_received(received, **waits)
        return False
    return True


def _also_granted(ending: Ending, received: Received) -> bool:
    sharing, now = ending.receiver.sharing, ending.receiver.sharing.clock()
    return any(
        other.live and other.grant != received.grant and (other.expires is None or other.expires > now)
        for other in sharing.shares.received_of(received.tag)
        if other.received is not None
    )


def _give_up(ending: Ending, received: Received) -> None:
    sharing = ending.receiver.sharing
    tree = sharing.trees.by_tag(received.tag)
    opened = sharing.keys.disown(received.tag) > 0 or received.received is not None  # (2)
    if received.root is not None:
        with incoming_of(ending.receiver, received.node, received.root) as incoming:
            incoming.discard()
    if tree is not None and tree.origin is not None:
        _forget(ending, tree)  # (3), (4)
    elif (
        received.root is not None and not ending.kept_for_others(received.tag) and not _is_held(sharing, received.root)
    ):
        sharing.content.unpin(received.root)  # interrupted before
    study = received.study or sharing.keys.study_of(received.tag)
    if opened and study is not None:
        state(sharing, "share.end", received._replace(study=study), {"why": received.why})  # (5)


def _is_held(sharing: Sharing, root: bytes) -> bool:
    """Whether some tree has this root: a package may name any, and what it names is not its giver's for that."""
    return sharing.trees.by_root(root) is not None


def _forget(ending: Ending, tree: Tree) -> None:
    sharing = ending.receiver.sharing
    keep = ending.kept_for_others(tree.tag)
    roots = [pin.root for pin in ending.pins(tree.id)]
    blocks = [] if keep else _blocks(ending, tree)
    sharing.shares.forget(tree.tag, blocks, keep_sealed=keep)
    if not keep:
        ending.release(blocks)
        for root in roots:
            sharing.content.unpin(root)


def _blocks(ending: Ending, tree: Tree) -> list[bytes]:
    """The CIDs of a tree, as far as its blocks are at hand."""
    found: list[bytes] = []
    if tree.root is None:
        return found
    try:
        with at_hand_only():
            for cid, _ in dag.order(tree.root, ending.receiver.sharing.content.get):
                found.append(cid)
    except (ContentMissing, ContentCorrupt):
        log.warning("a part of a share's blocks is not known any more")
    return found


def _take_in_anew(ending: Ending, received: Received) -> None:
    shares = ending.receiver.sharing.shares
    for other in shares.all_received(received.study) if received.study is not None else ():
        if other.state == ReceivedState.HELD and other.tag != received.tag and other.package is not None:
            shares.change_received(other, state=ReceivedState.OFFERED.value, again=0, tries=0)
