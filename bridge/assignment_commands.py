"""`cairn content assign|unassign|assignments`: which member may fetch the sealed blocks of which study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.access import expiry
from bridge.errors import NotFound, RequestError
from bridge.index.assignments import Assignment
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.provenance import iso, now_us
from bridge.services.share import own_tree

Report = Callable[[str], None]
PURPOSE = "TREAT"


def assign(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Assign a study, or change until when; in the ledger before it holds. Raises NotFound, RequestError."""
    study, member = str(arguments["study"]), str(arguments["member"])
    own_tree(node.index.trees, study)
    known = [peer.name for peer in node.settings.members.peers]
    if member not in known:
        raise RequestError(f"no member of [[members.peers]] has this name; there are: {', '.join(known) or 'none'}")
    expires = expiry.parse(arguments["expires"], now_us()) if arguments.get("expires") is not None else None
    ends = {"expires": expires} if expires is not None else {}
    _record(node, "consent.grant", study, {"member": member, "of": "sealed blocks", **ends})
    node.index.assignments.assign(Assignment(member, study, expires))
    return _described(Assignment(member, study, expires))


def unassign(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Take an assignment back; it holds no longer before the ledger says so. Raises NotFound."""
    study, member = str(arguments["study"]), str(arguments["member"])
    if not node.index.assignments.unassign(member, study):
        raise NotFound("there is no such assignment")
    if node.index.trees.of_study(study):
        _record(node, "consent.revoke", study, {"member": member, "of": "sealed blocks"})
    return {"member": member, "study": study}


def every(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """All assignments, those that have expired too."""
    return {"assignments": [_described(assignment) for assignment in node.index.assignments.all()]}


def _record(node: Node, kind: str, study: str, body: Mapping[str, object]) -> None:
    node.access.about_study(kind, OPERATOR, node.keys.study_key(study), PURPOSE, body)


def _described(assignment: Assignment) -> dict[str, object]:
    ended = assignment.expires is not None and assignment.expires <= now_us()
    return {
        "member": assignment.member,
        "study": assignment.study,
        "state": "expired" if ended else "valid",
        "expires": iso(assignment.expires) if assignment.expires is not None else None,
    }
