"""What the commands of `bridge.share_cli` do, at a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.access import expiry
from bridge.consortium_model import Hindrance
from bridge.errors import ConfigError, RequestError
from bridge.index.shares import Given, Received
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services import share
from bridge.services.provenance import iso, now_us
from bridge.services.share import Sharing

__all__ = ["every", "grant", "revoke"]

Report = Callable[[str], None]
HINDERED_S: Final = 1.0
"""How long the ledger is waited for, although something is known that hinders it."""
POLL_S: Final = 0.1


def grant(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Give a study to a member; "finality" and, while that is "pending", "waits": why.

    The ledger is waited for, `wait` seconds, or one where it is known that it does not come. Errors as
    `services.share.grant`.
    """
    study, to, purpose = str(arguments["study"]), str(arguments["to"]), str(arguments["purpose"])
    expires = expiry.parse(arguments["expires"], now_us()) if arguments.get("expires") is not None else None
    sharing = _sharing(node)
    entry = share.grant(sharing, OPERATOR, study, to, purpose, expires)
    final, waits = _awaited(node, sharing, entry, float(arguments.get("wait") or 0))
    told = {"grant": entry.hex(), "study": study, "to": to, "finality": "final" if final else "pending"}
    return told | {"waits": [{"what": one.what, "advice": one.advice} for one in waits]}


def revoke(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """End a grant of this node; `still` are others of the same study to the same member, which go on.

    Errors as `services.share.revoke`; RequestError for what is no grant's id.
    """
    try:
        entry = bytes.fromhex(str(arguments["grant"]))
    except ValueError:
        raise RequestError("a grant is named by the id that cairn share grant and cairn share list tell") from None
    given = share.revoke(_sharing(node), OPERATOR, entry)
    rows = node.index.shares.all_given()
    still = [row.grant.hex() for row in rows if row.live and (row.study, row.node) == (given.study, given.node)]
    return {"grant": entry.hex(), "study": given.study, "to": given.member, "state": given.state, "still": still}


def every(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """What this node granted and what members granted it, the newest first."""
    _sharing(node)
    shares = node.index.shares
    return {
        "given": [_given(row) for row in shares.all_given()],
        "received": [_received(row) for row in shares.all_received()],
    }


def _awaited(node: Node, sharing: Sharing, entry: bytes, wait_s: float) -> tuple[bool, Sequence[Hindrance]]:
    """Whether an entry is final, within this time; if not, what hinders it as far as is known."""
    began = time.monotonic()
    while sharing.consortium.entry(entry) is None:
        waits = () if node.membership is None else node.membership.hindrances()
        waited = time.monotonic() - began
        if waited >= wait_s or (waits and waited >= HINDERED_S) or node.closed:
            return False, waits
        time.sleep(POLL_S)
    return True, ()


def _sharing(node: Node) -> Sharing:
    if node.sharing is None:
        raise ConfigError("this node is in no consortium: see cairn consortium init and join")
    return node.sharing


def _given(row: Given) -> dict[str, object]:
    return {
        **_common(row),
        "to": row.member,
        "delivered": _time(row.delivered),
        "receipt": _hex(row.receipt),
        "revocation": _hex(row.revocation),
        "keys_gone": _hex(row.gone),
        "refused": row.refused,
    }


def _received(row: Received) -> dict[str, object]:
    return {
        **_common(row),
        "from": row.member,
        "received": _time(row.received),
        "instances": row.instances,
        "why": row.why,
    }


def _common(row: Given | Received) -> dict[str, object]:
    return {
        "grant": row.grant.hex(),
        "kind": row.kind,
        "study": row.study,
        "purpose": row.purpose,
        "state": str(row.state),
        "granted": _time(row.at),
        "expires": _time(row.expires),
        "ended": _time(row.ended),
        "fault": row.fault,
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else iso(time_us)


def _hex(entry: bytes | None) -> str | None:
    return None if entry is None else entry.hex()
