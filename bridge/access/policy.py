"""Which role may do what: the table of DESIGN section 8. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.errors import Forbidden
from bridge.model import Action, Actor, ActorKind, Role

ALLOWED: Final[Mapping[Role, frozenset[Action]]] = {
    Role.VIEWER: frozenset({Action.SEARCH, Action.RETRIEVE}),
    Role.CLINICIAN: frozenset({Action.SEARCH, Action.RETRIEVE, Action.STORE}),
    Role.DEVICE: frozenset({Action.STORE}),
    Role.AUDITOR: frozenset({Action.AUDIT}),
    Role.ADMIN: frozenset(Action),
}
"""Viewer reads; clinician reads and stores; device stores; auditor sees the ledger and console; admin may do all."""


def may(actor: Actor, action: Action) -> bool:
    """Whether the actor may. The node itself may do all; an actor without a role nothing."""
    if actor.kind is ActorKind.SYSTEM:
        return True
    return actor.role is not None and action in ALLOWED[actor.role]


def check(actor: Actor, action: Action) -> None:
    """Return when the actor may. Raises Forbidden otherwise."""
    if not may(actor, action):
        raise Forbidden(f"this needs a role that may {action.value}")
