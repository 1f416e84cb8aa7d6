"""What a member grants this node, taken in: its package, then the study's sealed blocks, then the study itself.

When the package comes (`accept`), over the members' listener
    (1) the package: signed by the member whose connection it is, sealed to this node, opened
    (2) its grant: final here, of that member, to this node, of that study, neither ended nor over
    (3) the row that says so; the same package again changes nothing

Behind it (`take_in`), once for each package
    (4) the grant again, as it stands now
    (5) what is missing of the study's tree, pulled from the member's gateway     bridge.content.incoming
    (6) every block, the manifest and every instance verified, then taken in      services.import_study
    (7) the entry `share.receipt`
    (8) the row: it is held

What is refused leaves nothing but a record of that, words for who looks, and an entry that tells the giver why: a
`share.receipt` of outcome 8, once for each reason. What fails for now is tried again, ever more seldom; what came of
the blocks stays until then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bridge.content.at_hand import at_hand_only
from bridge.content.incoming import Delivered, Incoming
from bridge.crypto import study_key_file
from bridge.crypto.study_key_file import Envelope
from bridge.errors import Busy, CairnError, CarInvalid, Forbidden, IntegrityError, KeyFileInvalid
from bridge.model import Actor, ActorKind, FinalEntry
from bridge.services.access import SYSTEM, Access
from bridge.services.deliver_share import again, recipient_of
from bridge.services.follow_shares import EXPIRED, end, expected, terms_of
from bridge.services.import_study import Delivery, Recipient, import_study
from bridge.services.received_study import read_manifest
from bridge.services.share import Lane, Sharing, at_once
from bridge.share_model import EMERGENCY, Received, ReceivedState
from ledger.members import Member
from ledger.terms import SHARE_REFUSALS

__all__ = ["Receiver", "accept", "incoming_of", "member_actor", "refusal", "state", "take_in"]

log = logging.getLogger(__name__)
MOST_WRONG: Final = 3
"""Times that blocks which are not what they must be are asked for again."""
FAILED: Final = 8
"""EventOutcomeIndicator of what was not taken in (PS3.15 A.5): serious failure."""
BLOCKS, PACKAGE, ENDED = SHARE_REFUSALS


@dataclass(frozen=True, slots=True)
class Receiver:
    """Who takes in: the recipes' surroundings, the importer, and where what is on its way lies.

    `incoming` may hold `most` bytes; `lock` keeps taking in and ending apart.
    """

    sharing: Sharing
    importer: Recipient
    access: Access
    incoming: Path
    most: int
    lock: threading.Lock


def accept(sharing: Sharing, access: Access, actor: Actor, data: bytes) -> str:
    """(1) to (3): a package that a member brings; the state that its grant is in now.

    Raises Forbidden for a package or grant that does not hold, Busy when the grant is not final here yet (to be brought
    again), StorageFault and as a commit. A refusal is recorded.
    """
    giver = next((one for one in sharing.consortium.members() if one.active and one.name == actor.name), None)
    try:
        if giver is None:
            raise Forbidden("a package is brought by an active member of the consortium")
        envelope, study = _opened(sharing, giver, data)  # (1)
        entry = sharing.consortium.entry(envelope.grant or b"")
        if entry is None:
            raise Busy("the grant is not final here yet")
        return _offer(sharing, giver, entry, envelope, study, data)
    except Forbidden as error:
        access.refused(actor, actor.address, f"a share: {error.detail}")
        raise


def take_in(receiver: Receiver, lane: Lane = at_once) -> int:
    """(4) to (8) for every package that is due; how many studies were taken in. Raises StorageFault, as a commit.

    What each member gives is taken in in a lane of its own.
    """
    sharing, now = receiver.sharing, receiver.sharing.clock()
    for received in sharing.shares.lapsed_received(now):
        if received.live:
            end(sharing, received.grant, EXPIRED)
    of: dict[bytes, list[Received]] = {}
    for received in sharing.shares.due_received(ReceivedState.OFFERED, now):
        of.setdefault(received.node, []).append(received)
    return sum(lane(node, partial(_take_all_in, receiver, rows)) for node, rows in of.items())


def refusal(
    entry: FinalEntry, giver: Member, own: Member, envelope: Envelope, received: Received | None, now: int
) -> str | None:
    """(2) Why a package does not hold under its grant, in words; None when it does. Pure."""
    terms = terms_of(entry)
    if terms is None:
        return "the entry that it names is no grant"
    if terms.giver != giver.node:
        return "the grant is not of the member that brings it"
    if terms.to != own.node:
        return "the grant is to another member"
    if terms.tag != envelope.tag and not (terms.kind == EMERGENCY and terms.tag is None):
        return "the grant is of another study"
    if terms.expires is not None and terms.expires <= now:
        return "the grant's time is over"
    if received is not None and received.state in (ReceivedState.ENDING, ReceivedState.ENDED):
        return f"the grant has ended: {received.why}"
    if not giver.active:
        return "the member that gave it is retired"
    return None


def state(sharing: Sharing, kind: str, received: Received, detail: Mapping[str, object] | None = None) -> None:
    """State something of a received study: under the giver's tag of it, the record sealed under this node's own key.

    So the giver knows of which study it is, and the record can be read when the grant has ended.
    """
    assert received.study is not None
    told = {"member": received.member, **(detail or {})}
    key, purpose = sharing.keys.study_key(received.study), received.purpose
    sharing.statements.make(kind, SYSTEM, None, [received.grant], key, purpose, told, tag=received.tag)


def member_actor(name: str) -> Actor:
    """A member as who acts, when nobody's request is at hand."""
    return Actor(ActorKind.PEER, name, None, "", "members")


def _opened(sharing: Sharing, giver: Member, data: bytes) -> tuple[Envelope, str]:
    """(1) The package and the study whose keys are in it. Raises Forbidden."""
    keystore = sharing.keystore
    try:
        envelope = study_key_file.read(data)
        if envelope.grant is None:
            raise Forbidden("the package names no grant")
        of = recipient_of(giver).node
        if envelope.sender_key not in giver.usable() or envelope.sender != of or envelope.origin != of:
            raise Forbidden("the package is not of the member that brings it")
        return envelope, study_key_file.open_keys(envelope, keystore.node_id, keystore.agreement_seed).study
    except KeyFileInvalid as error:
        raise Forbidden(f"the package: {error.detail}") from None


def _offer(sharing: Sharing, giver: Member, entry: FinalEntry, envelope: Envelope, study: str, data: bytes) -> str:
    """(2), (3); raises Forbidden."""
    while True:
        received = sharing.shares.received(entry.id)
        _judge(sharing, giver, entry, envelope, received)
        if received is None:
            sharing.shares.expect(expected(entry, giver, envelope.tag, sharing.clock()))
            continue
        if received.state in (ReceivedState.OFFERED, ReceivedState.HELD):
            if received.root == envelope.root:
                return received.state  # the same again
            if received.made is not None and envelope.made < received.made:
                raise Busy("a newer package of this grant came before")
        values = {"study": study, "root": envelope.root, "package": data, "made": envelope.made}
        fresh = {"state": ReceivedState.OFFERED.value, "fault": None, "why": None, "again": 0, "tries": 0}
        if sharing.shares.change_received(received, **values, **fresh):
            return ReceivedState.OFFERED.value


def _judge(sharing: Sharing, giver: Member, entry: FinalEntry, envelope: Envelope, received: Received | None) -> None:
    own = sharing.consortium.own()
    if own is None:
        raise Busy("this node is not a member of the consortium yet")
    why = refusal(entry, giver, own, envelope, received, sharing.clock())
    if why is not None:
        raise Forbidden(why)


def _take_all_in(receiver: Receiver, rows: Sequence[Received]) -> int:
    return sum(_take_in(receiver, received) for received in rows)


def _take_in(receiver: Receiver, received: Received) -> bool:
    sharing = receiver.sharing
    try:
        with _Pull(receiver, received) as pull:
            pull.judge()  # (4)
            pull.fetch()  # (5)
            with receiver.lock:
                return pull.settle()
    except (Forbidden, KeyFileInvalid) as error:
        _refuse(receiver, received, error)
    except CarInvalid as error:
        _remove(receiver, received)
        if received.tries + 1 >= MOST_WRONG:
            _refuse(receiver, received, error)
        else:
            _later(sharing, received, error)
    except CairnError as error:
        _later(sharing, received, error)
    return False


class _Pull:
    """One package on its way to being a study."""

    def __init__(self, receiver: Receiver, received: Received) -> None:
        self._receiver = receiver
        self._received = received
        self._sharing = receiver.sharing
        self._envelope = study_key_file.read(received.package or b"")
        self._incoming = incoming_of(receiver, received.node, self._envelope.root)

    def __enter__(self) -> _Pull:
        return self

    def __exit__(self, *error: object) -> None:
        self._incoming.close()

    def judge(self) -> None:
        """(4) Whether it still holds. Raises Forbidden."""
        entry = self._sharing.consortium.entry(self._received.grant)
        giver = next((one for one in self._sharing.consortium.members() if one.node == self._received.node), None)
        if entry is None or giver is None:
            raise Busy("the grant is not final here yet")
        _judge(self._sharing, giver, entry, self._envelope, self._sharing.shares.received(self._received.grant))

    def fetch(self) -> None:
        """(5) The blocks that are missing. Errors as `Incoming.fetch`."""
        tree = self._sharing.trees.by_tag(self._envelope.tag)
        partly = tree is not None and tree.root is not None
        self._incoming.fetch(self._sharing.listener(self._received.node), partly_held=partly)

    def settle(self) -> bool:
        """(6) to (8), while nothing is ended; whether the study is held now."""
        self.judge()
        received, sharing = self._received, self._sharing
        if received.received is not None and self._brings_nothing():
            held = sharing.shares.change_received(received, state=ReceivedState.HELD.value)
            self._incoming.discard()
            return held
        delivery = Delivery(received.grant, received.purpose, self._known)
        with at_hand_only():
            imported = import_study(
                *(self._receiver.importer, member_actor(received.member), self._incoming.file, _quiet),
                key_file=received.package,
                sender_key=self._envelope.sender_key,
                delivery=delivery,
            )  # (6)
        state(sharing, "share.receipt", received._replace(study=imported.study))  # (7)
        size, now = self._incoming.size, sharing.clock()
        told = {"instances": imported.instances, "octets": size, "told": None}
        held = sharing.shares.change_received(received, state=ReceivedState.HELD.value, received=now, **told)  # (8)
        self._incoming.discard()
        return held

    def _brings_nothing(self) -> bool:
        """Whether all of it was taken in before: a former state again, however often, leaves no entry."""
        file, root = self._incoming.file, self._envelope.root
        with at_hand_only():
            came = read_manifest(Delivered(file, root, self._sharing.content))
        return came.tag == self._envelope.tag and set(came.links) <= set(self._known(came.tag))

    def _known(self, tag: bytes) -> tuple[bytes, ...]:
        tree = self._sharing.trees.by_tag(tag)
        return () if tree is None else self._sharing.trees.manifest(tag).instances


def incoming_of(receiver: Receiver, giver: bytes, root: bytes) -> Incoming:
    """What is on its way of a tree from a member (node id): nobody's who names the same root."""
    sharing, room = receiver.sharing, receiver.importer.require_room
    return Incoming(receiver.incoming, root, sharing.content, receiver.most, room, of=giver.hex())


def _remove(receiver: Receiver, received: Received) -> None:
    """Remove what came of a tree."""
    try:
        if received.root is not None:
            incoming_of(receiver, received.node, received.root).discard()
    except CairnError as error:
        log.error("what was fetched of a share cannot be removed", extra={"slug": error.slug})


def _later(sharing: Sharing, received: Received, error: CairnError) -> None:
    tries = received.tries + 1
    log.warning("a share is not here yet", extra={"slug": error.slug, "peer": received.member, "tries": tries})
    now = sharing.clock()
    sharing.shares.change_received(received, fault=error.detail[:200], tries=tries, again=again(now, tries))


def _refuse(receiver: Receiver, received: Received, error: CairnError) -> None:
    """For good: until its giver brings another package. The giver is told by the ledger."""
    sharing, reason = receiver.sharing, _reason(error)
    if received.told != reason:
        told = {"member": received.member, "why": error.detail[:400]}
        sharing.statements.make(
            *("share.receipt", SYSTEM, {"w": reason}, [received.grant], None, received.purpose, told), outcome=FAILED
        )
    log.warning("a share is refused", extra={"slug": error.slug, "peer": received.member})
    receiver.access.refused(member_actor(received.member), "", f"a share: {error.detail}"[:400])
    why = error.detail[:200]
    kept: dict[str, object] = {"state": ReceivedState.REFUSED.value, "why": why, "fault": None, "package": None}
    if received.received is not None:  # an earlier state of the study is held, and stays until the grant ends
        kept = {"state": ReceivedState.HELD.value, "fault": why, "tries": 0, "again": 0}
    sharing.shares.change_received(received, **kept, told=reason)
    if isinstance(error, IntegrityError | Forbidden):
        _remove(receiver, received)


def _reason(error: CairnError) -> int:
    """A refusal as entries tell it (`ledger.terms.SHARE_REFUSALS`)."""
    return PACKAGE if isinstance(error, KeyFileInvalid) else BLOCKS if isinstance(error, CarInvalid) else ENDED


def _quiet(text: str) -> None:
    """Progress that nobody waits for."""
