"""What this node granted, brought to the member: the study's keys, sealed to it, once the grant is final.

    (1) the grant's entry is final here: from now on the member may fetch the study's sealed blocks
    (2) the study's manifest, as far as it is made
    (3) the package: the keys that its instances are sealed under, bound to grant, members, tag and root
    (4) the package to the member's listener; what fails is tried again, ever more seldom
    (5) a study that grows under a live grant is delivered again; one whose time is over is shut, its key renewed

The sealed blocks themselves the member pulls (services.receive_share).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from bridge.crypto import study_key_file
from bridge.crypto.hpke import Recipient
from bridge.crypto.study_key_file import Envelope
from bridge.errors import CairnError, ContentMissing, RequestError
from bridge.services.share import Lane, Sharing, at_once, complete
from bridge.share_model import Given, GivenState
from ledger.keys import SigningKey
from ledger.members import Member

__all__ = ["PATH", "again", "deliver", "package", "recipient_of"]

log = logging.getLogger(__name__)
PATH: Final = "/consortium/shares"
SECOND: Final = 1_000_000
SETTLING: Final = 10 * SECOND
"""How long a study that still grows is waited for before what there is of it is delivered."""
INTERRUPTED: Final = 30 * SECOND
"""A revocation this old is nobody's any more who is still at it."""
REFUSED_WAIT: Final = 600 * SECOND
"""How long a member that refuses a package is not asked to take it again."""
FIRST_WAIT, LONGEST_WAIT = SECOND // 4, 30 * SECOND


def again(now: int, tries: int) -> int:
    """When to try again after so many failures in a row: after a quarter of a second, doubling up to half a minute."""
    return now + min(FIRST_WAIT << min(tries, 20), LONGEST_WAIT)


def deliver(sharing: Sharing, lane: Lane = at_once) -> int:
    """(1) to (5) for all that is due; how many packages were delivered. Raises StorageFault and as a commit.

    Each member's packages are brought in a lane of its own.
    """
    now, shares = sharing.clock(), sharing.shares
    for given in shares.lapsed_given(now):
        if given.live and shares.let(given, state=GivenState.EXPIRED.value, ended=now):  # (5)
            sharing.keys.next_generation(given.study)
    for given in shares.due_given(GivenState.REVOKING, now):
        if (given.ended or 0) + INTERRUPTED < now:
            complete(sharing, given)
    for given in shares.due_given(GivenState.WAITING, now):
        if sharing.consortium.entry(given.grant) is not None:
            shares.let(given, state=GivenState.GRANTED.value)  # (1)
    due = [*shares.due_given(GivenState.GRANTED, now), *shares.outdated(now)]
    of: dict[bytes, list[Given]] = {}
    for given in due:
        of.setdefault(given.node, []).append(given)
    return sum(lane(node, partial(_deliver_all, sharing, rows)) for node, rows in of.items())


def package(sharing: Sharing, given: Given, root: bytes, member: Member) -> bytes:
    """(3) The study key file (version 2) of a grant, sealed to the member and signed by this node.

    Raises ContentMissing when the keys are gone, RequestError for a member to whom nothing can be sealed.
    """
    keys = [sharing.keys.open(given.tag, generation) for generation in sharing.trees.generations(given.tag)]
    if not keys:
        raise ContentMissing("the study has no images of this node's own any more")
    keystore = sharing.keystore
    signer = SigningKey(keystore.signing_seed)
    to = recipient_of(member)
    envelope = Envelope(
        log=sharing.log,
        sender=keystore.node_id,
        sender_key=signer.public_key(),
        recipient=to.node,
        origin=keystore.node_id,
        tag=given.tag,
        generations=tuple(key.generation for key in keys),
        root=root,
        made=sharing.clock(),
        grant=given.grant,
    )
    try:
        return study_key_file.write(envelope, keys, to, signer)
    except ValueError as error:
        raise RequestError(f"the study's key cannot be sealed to this member: {error}") from None


def recipient_of(member: Member) -> Recipient:
    """To whom a member's studies are sealed, as its card says."""
    return Recipient(member.card.recipient[:16], member.card.recipient[16:])


def _deliver_all(sharing: Sharing, rows: Sequence[Given]) -> int:
    return sum(_deliver(sharing, given, sharing.clock()) for given in rows)


def _deliver(sharing: Sharing, given: Given, now: int) -> bool:
    root = _root(sharing, given, now)  # (2)
    if root is None:
        return False
    try:
        member = next(one for one in sharing.consortium.members() if one.node == given.node)
        data = package(sharing, given, root, member)  # (3)
        listener = sharing.listener(given.node)
    except CairnError as error:
        return _later(sharing, given, error, again(now, given.tries + 1))
    try:
        listener.ask("POST", PATH, data)  # (4)
    except (ContentMissing, RequestError) as error:  # it answered, and does not take it
        return _later(sharing, given, error, now + REFUSED_WAIT)
    except CairnError as error:
        return _later(sharing, given, error, again(now, given.tries + 1))
    return sharing.shares.change_given(
        given, state=GivenState.DELIVERED.value, root=root, delivered=sharing.clock(), fault=None, tries=0, again=0
    )


def _later(sharing: Sharing, given: Given, error: CairnError, when: int) -> bool:
    tries = given.tries + 1
    log.warning("a share is not delivered yet", extra={"slug": error.slug, "peer": given.member, "tries": tries})
    sharing.shares.change_given(given, fault=error.detail[:200], tries=tries, again=when)
    return False


def _root(sharing: Sharing, given: Given, now: int) -> bytes | None:
    """(2) The root to deliver; None while instances still arrive, for a while."""
    tree = sharing.trees.by_tag(given.tag)
    if tree is None:
        sharing.shares.change_given(given, fault="the study is not held any more", again=again(now, 20))
        return None
    if now < given.at + SETTLING and given.state == GivenState.GRANTED:
        held = sharing.trees.manifest(given.tag)
        if held.covered != len(held.instances):
            return None
    return tree.root
