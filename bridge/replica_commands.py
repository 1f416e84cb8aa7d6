"""`cairn content replicas`, and the commands of `cairn share` that break the glass: what they do at a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge import replica_overview
from bridge.consortium_model import Emergency
from bridge.emergencies import BROKEN_OFF, SEALED_S, Glass
from bridge.errors import ConfigError, NotFound, RequestError
from bridge.index.emergencies import EmergencyRow
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.provenance import iso, now_us

Report = Callable[[str], None]
LEFT_AFTER_US: Final = int(2 * SEALED_S) * 1_000_000
"""After so long nobody is any more about to write down what the entry tells."""


def replicas(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Copies elsewhere and copies kept here; how the members are. Raises NotFound for a study that is not held."""
    study = str(arguments["study"]) if arguments.get("study") else None
    if study is not None and not node.index.trees.of_study(study):
        raise NotFound("no such study is held")
    if node.consortium is None:
        raise ConfigError("this node is in no consortium: see cairn consortium init and join")
    found = replica_overview.replicas(node.index, study)
    names = {member.node: member.name for member in node.consortium.members()}
    peers = node.index.replicas_out.peers().values()
    return {
        "copies": node.settings.replication.copies,
        "accept": node.settings.replication.accept,
        "replicas": [
            {
                "study": one.study,
                "tag": one.tag.hex(),
                "member": one.member,
                "kept_here": one.kept_here,
                "state": one.state,
                "since": iso(one.since_us),
                "trouble": one.trouble,
            }
            for one in found
        ],
        "members": [
            {
                "member": names.get(peer.node, peer.node.hex()),
                "silent": iso(peer.silent) if peer.silent is not None else None,
                "lost": peer.lost,
                "accepts": peer.accepts,
            }
            for peer in sorted(peers, key=lambda peer: names.get(peer.node, ""))
        ],
    }


def emergency(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Break the glass. Errors as `bridge.emergencies.Glass.start`."""
    member, study, reason = (str(arguments[name]) for name in ("member", "study", "reason"))
    row = _glass(node).start(OPERATOR, member, study, reason)
    return {"emergency": row.entry.hex(), "of": row.member, "study": study, "until": iso(row.until)}


def emergency_end(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """End one of this node's own. Errors as `bridge.emergencies.Glass.end`."""
    try:
        entry = bytes.fromhex(str(arguments["emergency"]))
    except ValueError:
        raise RequestError("an emergency is named by the id that cairn share emergencies tells") from None
    row = _glass(node).end(OPERATOR, entry)
    return {"emergency": row.entry.hex(), "of": row.member}


def emergencies(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """All of them, the newest first; this hospital's own also when it was broken off before the other was asked."""
    own = _glass(node).sharing.consortium.own()
    name = own.name if own is not None else "this hospital"
    rows = node.index.emergencies.all()
    known = {row.entry for row in rows}
    left = [one for one in node.emergencies() if not one.local and one.entry not in known]
    told = [*((row.started, _described(row, name)) for row in rows), *((one.started_us, _left(one)) for one in left)]
    return {"emergencies": [one for _, one in sorted(told, key=lambda each: each[0], reverse=True)]}


def _glass(node: Node) -> Glass:
    if node.glass is None:
        raise ConfigError("this node is in no consortium: see cairn consortium init and join")
    return node.glass


def _left(one: Emergency) -> dict[str, object]:
    """One of which the entry alone tells: whoever broke the glass was broken off, or does so at this moment."""
    broken_off = one.started_us + LEFT_AFTER_US < now_us()
    return {
        "emergency": one.entry.hex(),
        "by": one.to_member,
        "of": one.from_member,
        "study": one.study,
        "reason": one.reason,
        "started": iso(one.started_us),
        "until": iso(one.ends_us),
        "state": "broken off" if broken_off else "asked",
        "trouble": BROKEN_OFF if broken_off else None,
        "reviewed": one.reviewed,
    }


def _described(row: EmergencyRow, own: str) -> dict[str, object]:
    over = row.ended is not None or row.until <= now_us()
    state = "over" if over else "refused" if row.refused else "open" if row.told is not None else "asked"
    return {
        "emergency": row.entry.hex(),
        "by": own if row.own else row.member,
        "of": row.member if row.own else own,
        "study": row.study,
        "reason": row.reason,
        "started": iso(row.started),
        "until": iso(row.until),
        "state": state,
        "trouble": row.trouble,
        "reviewed": row.reviewed is not None,
    }
