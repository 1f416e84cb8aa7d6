"""Which role may do what: the table of DESIGN section 8. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.errors import Forbidden
from bridge.model import Action, Actor, ActorKind, Role

ALLOWED: Final[Mapping[Role, frozenset[Action]]] = {
    Role.VIEWER: frozenset({Action.SEARCH, Action.RETRIEVE, Action.FETCH}),
    Role.CLINICIAN: frozenset({Action.SEARCH, Action.RETRIEVE, Action.FETCH, Action.STORE}),
    Role.DEVICE: frozenset({Action.STORE}),
    Role.AUDITOR: frozenset({Action.AUDIT}),
    Role.ADMIN: frozenset(Action),
}
"""Viewer reads; clinician reads and stores; device stores; auditor sees the ledger and console; admin may do all.

To fetch is to be given sealed blocks; of which study, the gateway decides (`bridge.services.gateway`)."""


def may(actor: Actor, action: Action) -> bool:
    """Whether the actor may. The node itself may do all; an actor without a role nothing.

    Another member may fetch and nothing else; so may whose credential names one study, as far as its role goes.
    """
    if actor.kind is ActorKind.SYSTEM:
        return True
    if actor.kind is ActorKind.PEER:
        return action is Action.FETCH
    if actor.study is not None and action is not Action.FETCH:
        return False
    return actor.role is not None and action in ALLOWED[actor.role]


def check(actor: Actor, action: Action) -> None:
    """Return when the actor may. Raises Forbidden otherwise."""
    if not may(actor, action):
        if actor.study is not None:
            raise Forbidden("this credential is good for the sealed blocks of one study and nothing else")
        raise Forbidden(f"this needs a role that may {action.value}")
