"""Giving a study to another hospital, and ending that: what the operator or the console asks for.

Granting
    (1) to an active member; the study has a tree of this node's own
    (2) the entry `consent.grant`: to whom, until when; durable, and ordered by consensus as soon as that answers
    (3) the row that `services.deliver_share` works from, once the entry is final

Revoking
    (1) nothing is served to the member any more, from this moment
    (2) what is stored from now on is sealed under a new generation of the study's key
    (3) the entry `consent.revoke`, which the member follows (services.end_share)

A revocation that was interrupted is completed by `complete`. What somebody has seen or copied cannot be called back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bridge.content.incoming import Source
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.errors import Busy, NotFound, RequestError
from bridge.model import Actor, StudyTree, Tree
from bridge.ports import Consortium, ContentStore
from bridge.services.access import SYSTEM
from bridge.services.provenance import Clock, now_us
from bridge.services.statement import Statements
from bridge.share_model import GRANT, Given, GivenState, Received, ReceivedState
from ledger.members import Member
from ledger.types import EMERGENCY, PURPOSES

__all__ = [
    "PURPOSES_OF_GRANTS",
    "Followed",
    "Lane",
    "Listener",
    "Shares",
    "Sharing",
    "Trees",
    "at_once",
    "complete",
    "grant",
    "other_member",
    "own_tree",
    "revoke",
]

log = logging.getLogger(__name__)
SEALED_S: Final = 10.0
"""How long a grant waits to be sealed, so that its id can be told."""
PURPOSES_OF_GRANTS: Final = tuple(code for code in PURPOSES if code not in (EMERGENCY, "BTG"))
"""What a study may be given for: the purposes of use (HL7 v3 ActReason) but those of breaking the glass."""


class Listener(Source, Protocol):
    """Another member's listener, as `bridge.content.gateway_client.GatewayClient`."""

    def ask(self, method: str, path: str, body: bytes | Mapping[str, object] | None = None) -> object:
        """What it answers to a request. Raises EngineFault, ContentMissing, RequestError."""


Lane = Callable[[bytes, Callable[[], int]], int]
"""Does some work with a member (node id): at once, with what it gives, or beside the rest, with 0."""


def at_once(node: bytes, work: Callable[[], int]) -> int:
    """The lane in which everything waits for everything."""
    return work()


class Shares(Protocol):
    """The rows of what was given and received, as `bridge.index.shares.Shares`.

    Every method may raise StorageFault; those that write, as a commit. A change is made only while the row is in the
    state of what was read of it: False when it is not.
    """

    def give(self, given: Given) -> bool:
        """Write down a grant to a member; False when it is known already."""

    def expect(self, received: Received) -> bool:
        """Write down a grant to this node; False when it is known already."""

    def given(self, grant: bytes) -> Given | None:
        """The row of a grant to a member."""

    def received(self, grant: bytes) -> Received | None:
        """The row of a grant to this node."""

    def all_given(self, study: str | None = None) -> Sequence[Given]:
        """All grants to members; of a study, the oldest first."""

    def all_received(self, study: str | None = None) -> Sequence[Received]:
        """All grants to this node; of a study, the oldest first."""

    def received_of(self, tag: bytes) -> Sequence[Received]:
        """All grants to this node of one tree."""

    def due_given(self, state: GivenState, now: int) -> Sequence[Given]:
        """The grants to members in a state that may be tried now."""

    def due_received(self, state: ReceivedState, now: int) -> Sequence[Received]:
        """The grants to this node likewise."""

    def lapsed_given(self, now: int) -> Sequence[Given]:
        """The grants to members whose time is over and that were not ended."""

    def lapsed_received(self, now: int) -> Sequence[Received]:
        """The grants to this node likewise."""

    def outdated(self, now: int) -> Sequence[Given]:
        """What was delivered of studies that have grown since, and may be tried now."""

    def change_given(self, before: Given, **values: object) -> bool:
        """Change the row of a grant to a member."""

    def change_received(self, before: Received, **values: object) -> bool:
        """Change the row of a grant to this node."""

    def note(self, grant: bytes, **values: object) -> bool:
        """Write down what was learned of a grant to a member, whatever its state."""

    def let(self, given: Given, **values: object) -> bool:
        """Change a row as `change_given`, and at once what the member may fetch: what its grants that live allow."""

    def forget(self, tag: bytes, blocks: Sequence[bytes], *, keep_sealed: bool) -> object:
        """Forget a received tree, as `bridge.index.forgetting.forget`; durable on return."""


class Trees(Protocol):
    """The trees of studies, as `bridge.index.trees.Trees`. Every method may raise StorageFault."""

    def of_study(self, study: str) -> Sequence[Tree]:
        """The trees of a study, this node's own first."""

    def by_tag(self, tag: bytes) -> Tree | None:
        """The tree of a study tag."""

    def by_root(self, root: bytes) -> Tree | None:
        """The tree whose root this is now."""

    def manifest(self, tag: bytes) -> StudyTree:
        """The manifest of a study tag. Raises NotFound."""

    def generations(self, tag: bytes) -> Sequence[int]:
        """The generations of keys that its instances are sealed under, ascending."""


class Followed(Protocol):
    """How far the shared log was followed, as `bridge.index.followed.FollowedTo`."""

    def position(self, name: str) -> int:
        """The index of the last entry seen to; -1 for none."""

    def advance(self, name: str, position: int) -> None:
        """The entry at this index was seen to; durable on return."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the recipes of sharing work with: this node's keys, stores and ledger, and the other members.

    `log` is the name of this node's log; `listener` finds a member's by its node id (EngineFault when there is none).
    """

    keystore: Keystore
    log: str
    consortium: Consortium
    statements: Statements
    shares: Shares
    trees: Trees
    content: ContentStore
    keys: Keyring
    listener: Callable[[bytes], Listener]
    clock: Clock = now_us


def grant(sharing: Sharing, actor: Actor, study: str, to: str, purpose: str, expires: int | None) -> bytes:
    """Give a study to the member named `to`; the grant's id (its entry's leaf hash), durable, final a moment later.

    Parameters
    ----------
    study
        Its Study Instance UID.
    purpose
        One of `PURPOSES_OF_GRANTS`.
    expires
        Microseconds since the epoch; None: until it is revoked.

    Raises NotFound when the study is not held, RequestError when it has no images of this node's own, for a member,
    purpose or time that cannot be; Busy when the grant stands and is not sealed yet: `share list` tells it later.
    """
    if purpose not in PURPOSES_OF_GRANTS:
        raise RequestError(f"a study is shared for one of these HL7 purposes of use: {', '.join(PURPOSES_OF_GRANTS)}")
    if expires is not None and expires <= sharing.clock():
        raise RequestError("the grant would be over already")
    member, tree = other_member(sharing.consortium, to), own_tree(sharing.trees, study)  # (1)
    key = sharing.keys.study_key(study)
    body = {"to": member.node, "x": expires, "g": key.generation}
    root = sharing.statements.make(
        "consent.grant", actor, body, study=key, purpose=purpose, detail={"member": member.name}
    )  # (2)
    entry = sharing.statements.entry_id(root, SEALED_S, final=False)
    if entry is None:
        raise Busy("the grant stands, and has no id before the ledger's process has sealed it: see cairn share list")
    sharing.shares.give(
        Given(
            *(entry, GRANT, study, tree.tag, member.node, member.name, purpose, sharing.clock(), expires),
            GivenState.WAITING.value,
        )
    )  # (3)
    return entry


def revoke(sharing: Sharing, actor: Actor, grant: bytes) -> Given:
    """End a grant of this node: at once here, and at the member when it hears of it; what was ended.

    Raises NotFound for a grant that is not this node's, RequestError for one that has ended.
    """
    given = sharing.shares.given(grant)
    if given is None:
        raise NotFound("this node has made no such grant")
    if not given.live or not sharing.shares.let(given, state=GivenState.REVOKING.value, ended=sharing.clock()):  # (1)
        raise RequestError("the grant has ended already")
    return _complete(sharing, actor, given._replace(state=GivenState.REVOKING.value))


def complete(sharing: Sharing, given: Given) -> None:
    """(2), (3) of a revocation that was interrupted; without effect for any other."""
    if given.state == GivenState.REVOKING:
        _complete(sharing, SYSTEM, given)


def own_tree(trees: Trees, study: str) -> Tree:
    """This node's own tree of a study, which is what it may share.

    Raises NotFound when the study is not held, RequestError when all of it came from other nodes.
    """
    found = trees.of_study(study)
    if not found:
        raise NotFound("no such study is held")
    if found[0].origin is not None:
        raise RequestError("all images of the study came from another hospital: it alone may share them")
    return found[0]


def _complete(sharing: Sharing, actor: Actor, given: Given) -> Given:
    key = sharing.keys.next_generation(given.study)  # (2)
    root = sharing.statements.make(
        *("consent.revoke", actor, None, [given.grant], key, given.purpose), {"member": given.member}
    )  # (3)
    entry = sharing.statements.entry_id(root, 0.0, final=False)
    sharing.shares.change_given(given, state=GivenState.REVOKED.value, revocation=entry, fault=None)
    return given._replace(state=GivenState.REVOKED.value)


def other_member(consortium: Consortium, name: str) -> Member:
    """An active member by its name. Raises RequestError for no other's, and where this node is no member any more."""
    own = consortium.own()
    if own is None:
        raise RequestError("this node is not a member of the consortium yet")
    if not own.active:  # the others take no entry of it: what is asked of them would wait for ever
        raise RequestError("this hospital was retired by vote: the others take nothing of it any more")
    others = [member for member in consortium.members() if member.active and member.node != own.node]
    for member in others:
        if member.name == name:
            return member
    known = ", ".join(member.name for member in others) or "none"
    raise RequestError(f"no other member of the consortium has this name; there are: {known}")
