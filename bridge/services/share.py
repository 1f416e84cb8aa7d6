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
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from bridge.access import expiry
from bridge.content.incoming import Source
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.errors import Busy, NotFound, RequestError
from bridge.index.shares import GRANT, Given, GivenState, Shares
from bridge.index.trees import Trees
from bridge.model import Actor, Tree
from bridge.ports import Consortium, ContentStore
from bridge.services.access import SYSTEM
from bridge.services.provenance import Clock, now_us
from bridge.services.statement import Statements
from ledger.members import Member

__all__ = ["Listener", "Sharing", "complete", "grant", "own_tree", "revoke"]

log = logging.getLogger(__name__)
SEALED_S: Final = 10.0
"""How long a grant waits to be sealed, so that its id can be told."""
_PURPOSE: Final = re.compile(r"[A-Z]{1,16}")
_EMERGENCY: Final = "ETREAT"


class Listener(Source, Protocol):
    """Another member's listener, as `bridge.content.gateway_client.GatewayClient`."""

    def ask(self, method: str, path: str, body: bytes | Mapping[str, object] | None = None) -> object:
        """What it answers to a request. Raises EngineFault, ContentMissing, RequestError."""


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


def grant(sharing: Sharing, actor: Actor, study: str, to: str, purpose: str, expires: str | None) -> bytes:
    """Give a study to the member named `to`; the grant's id (its entry's leaf hash), durable, final a moment later.

    Parameters
    ----------
    study
        Its Study Instance UID.
    purpose
        An HL7 purpose of use code.
    expires
        As `bridge.access.expiry.parse`; None: until it is revoked.

    Raises NotFound when the study is not held, RequestError when it has no images of this node's own, for a member,
    purpose or time that cannot be; Busy when the grant stands and is not sealed yet: `share list` tells it later.
    """
    if not _PURPOSE.fullmatch(purpose) or purpose == _EMERGENCY:
        raise RequestError("a study is shared for an HL7 purpose of use such as TREAT; an emergency is not granted")
    until = expiry.parse(expires, sharing.clock()) if expires is not None else None
    member, tree = _member(sharing.consortium, to), own_tree(sharing.trees, study)  # (1)
    key = sharing.keys.study_key(study)
    body = {"to": member.node, "x": until, "g": key.generation}
    root = sharing.statements.make(
        "consent.grant", actor, body, study=key, purpose=purpose, detail={"member": member.name}
    )  # (2)
    entry = sharing.statements.entry_id(root, SEALED_S, final=False)
    if entry is None:
        raise Busy("the grant stands, and has no id before the ledger's process has sealed it: see cairn share list")
    sharing.shares.give(
        Given(
            *(entry, GRANT, study, tree.tag, member.node, member.name, purpose, sharing.clock(), until),
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


def _member(consortium: Consortium, name: str) -> Member:
    own = consortium.own()
    if own is None:
        raise RequestError("this node is not a member of the consortium yet")
    others = [member for member in consortium.members() if member.active and member.node != own.node]
    for member in others:
        if member.name == name:
            return member
    known = ", ".join(member.name for member in others) or "none"
    raise RequestError(f"no other member of the consortium has this name; there are: {known}")
