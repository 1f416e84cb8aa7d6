"""What the shared log says of sharing, written down as this node's rows; each entry once, in order.

    consent.grant    of this node: to be delivered; naming this node: to be expected
    consent.revoke   of a grant to this node, by who gave it: to be ended (services.end_share)
    share.receipt    of a grant of this node: the member has the study; or, of another outcome than 0, does not take it
    share.end        of a grant of this node: the member says that its keys are gone

The ledger decides: a grant whose row was lost, as with an index that was rebuilt, is found here again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.model import FinalEntry
from bridge.services.share import Followed, Sharing
from bridge.share_model import EMERGENCY, GRANT, Given, GivenState, Received, ReceivedState
from ledger.members import Member
from ledger.terms import SHARE_REFUSALS

__all__ = ["EXPIRED", "NAME", "REVOKED", "Terms", "end", "expected", "follow", "terms_of"]

NAME: Final = "shares"
TYPES: Final = ("consent.grant", "consent.revoke", "share.receipt", "share.end")
REVOKED, EXPIRED = "revoked", "expired"
UNKNOWN: Final = "it does not say why"


def follow(sharing: Sharing, followed: Followed) -> int:
    """Take in the next entries; how many there were. Raises StorageFault and as a commit."""
    entries = sharing.consortium.follow(followed.position(NAME), TYPES)
    own = sharing.consortium.own()
    if not entries or own is None:
        return 0
    for one in entries:
        _note(sharing, own, one)
    followed.advance(NAME, entries[-1].index)
    return len(entries)


class Terms(NamedTuple):
    """What an entry that a share rests on says: of which kind, from whom, to whom (node ids), which study, until when.

    A grant is stated by its giver, an emergency by who broke the glass; that one may not know the study's tag.
    """

    kind: str
    giver: bytes
    to: bytes
    tag: bytes | None
    expires: int | None


def expected(entry: FinalEntry, giver: Member, tag: bytes, now_us: int) -> Received:
    """The row of a share with this node, as its entry says it. Raises ValueError when no share rests on that."""
    terms = terms_of(entry)
    if terms is None:
        raise ValueError("no share rests on this entry")
    return Received(
        *(entry.id, terms.kind, None, tag, giver.node, giver.name, entry.entry.purpose),
        *(entry.from_us(now_us), terms.expires, ReceivedState.GRANTED.value),
    )


def end(sharing: Sharing, grant: bytes, why: str) -> None:
    """Have a grant to this node end, whatever another process does with it meanwhile; once."""
    while (received := sharing.shares.received(grant)) is not None and received.live:
        ending = {"state": ReceivedState.ENDING.value, "why": why, "fault": None, "again": 0, "tries": 0}
        if sharing.shares.change_received(received, **ending):
            return


def terms_of(entry: FinalEntry) -> Terms | None:
    """The terms of a share; None for an entry that none rests on, such as a grant to no member."""
    said, terms = entry.entry, entry.entry.terms
    expires = terms.get("x")
    until = expires if isinstance(expires, int) else None
    to, of, tag = terms.get("to"), terms.get("of"), terms.get("s")
    if said.type == "consent.grant" and isinstance(to, bytes) and said.study is not None:
        return Terms(GRANT, said.node, to, said.study, until)
    if said.type == "emergency.start" and isinstance(of, bytes):
        return Terms(EMERGENCY, of, said.node, tag if isinstance(tag, bytes) else None, until)
    return None


def _note(sharing: Sharing, own: Member, entry: FinalEntry) -> None:
    said = entry.entry
    if said.type == "consent.grant":
        _granted(sharing, own, entry)
        return
    for ref in said.refs:
        given, received = sharing.shares.given(ref), sharing.shares.received(ref)
        if said.type == "consent.revoke":
            _revoked(sharing, own, entry, given, received)
        elif given is not None and said.node == given.node and said.type == "share.receipt":
            sharing.shares.note(given.grant, **_received(entry))
        elif given is not None and said.node == given.node and said.type == "share.end":
            sharing.shares.note(given.grant, gone=entry.id)


def _received(entry: FinalEntry) -> dict[str, object]:
    """What a member's receipt says of what it was given."""
    if entry.entry.outcome == 0:
        return {"receipt": entry.id, "refused": None}
    reason = entry.entry.terms.get("w")
    return {"refused": SHARE_REFUSALS.get(reason if isinstance(reason, int) else 0, UNKNOWN)}


def _granted(sharing: Sharing, own: Member, entry: FinalEntry) -> None:
    terms = terms_of(entry)
    members = {member.node: member for member in sharing.consortium.members()}
    if terms is None or terms.tag is None or not {terms.giver, terms.to} <= members.keys():
        return
    if terms.to == own.node:
        _expect(sharing, expected(entry, members[terms.giver], terms.tag, sharing.clock()))
    elif terms.giver == own.node:
        study = sharing.keys.study_of(terms.tag)
        if study is not None:  # else its keys are gone, and nothing can be given
            sharing.shares.give(
                Given(
                    *(entry.id, GRANT, study, terms.tag, terms.to, members[terms.to].name, entry.entry.purpose),
                    *(entry.from_us(sharing.clock()), terms.expires, GivenState.WAITING.value),
                )
            )


def _expect(sharing: Sharing, received: Received) -> None:
    """Write down a grant to this node; of a tree that is here with its keys, as after an index was rebuilt, as held."""
    tree = sharing.trees.by_tag(received.tag)
    if tree is not None and tree.study is not None and tree.origin and not sharing.shares.received_of(received.tag):
        now = sharing.clock()
        held, study = ReceivedState.HELD.value, tree.study
        received = received._replace(state=held, study=study, root=tree.root, received=now)
    sharing.shares.expect(received)


def _revoked(sharing: Sharing, own: Member, entry: FinalEntry, given: Given | None, received: Received | None) -> None:
    node = entry.entry.node
    if given is not None and node == own.node:
        if given.live:  # revoked by a state of this node that the index does not have any more
            ended = entry.from_us(sharing.clock())
            sharing.shares.let(given, state=GivenState.REVOKED.value, ended=ended, revocation=entry.id)
        else:
            sharing.shares.note(given.grant, revocation=entry.id)
    if received is not None and node == received.node:
        end(sharing, received.grant, REVOKED)
