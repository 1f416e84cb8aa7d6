"""What commands do, once: by the running node for the local socket, or by the command under the run lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bridge import ledger_commands
from bridge.access import expiry
from bridge.errors import ConfigError, RequestError
from bridge.index.credentials import TokenRow
from bridge.model import Actor, ActorKind, Role
from bridge.node import Node
from bridge.services.backup import backup
from bridge.services.fsck import fsck
from bridge.services.import_files import import_files
from bridge.services.provenance import iso, now_us

Report = Callable[[str], None]
Command = Callable[[Node, Mapping[str, Any], Report], object]
OPERATOR = Actor(ActorKind.SYSTEM, "operator", Role.ADMIN, "", "command")


def perform(node: Node, name: str, arguments: Mapping[str, Any], report: Report) -> object:
    """Run a command by name; its result as JSON values. Raises CairnError; ConfigError for an unknown name."""
    command = COMMANDS.get(name)
    if command is None:
        raise ConfigError(f"the running node knows no command {name}; is it of another version?")
    return command(node, arguments, report)


def _status(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"version": node.version, "not_ready": node.ready(), **node.index.counts()}


def _token_create(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    role = Role(arguments["role"])
    name = arguments.get("name") or role.value
    expires = expiry.parse(arguments["expires"], now_us()) if arguments.get("expires") is not None else None
    token = node.tokens.create(role, name, expires)
    node.access.administered("admin.token", OPERATOR, {"did": "created", "name": name, "role": role.value})
    return {"token": token.secret, "id": token.id, "name": name, "role": role.value}


def _token_list(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"tokens": [_described(row) for row in node.tokens.list()]}


def _described(row: TokenRow) -> dict[str, object]:
    ended = row.expires is not None and row.expires <= now_us()
    state = "revoked" if row.revoked is not None else "expired" if ended else "valid"
    moments = {"created": row.created, "expires": row.expires, "revoked": row.revoked}
    return {"id": row.id, "name": row.name, "role": row.role, "state": state} | {
        name: iso(moment) if moment is not None else None for name, moment in moments.items()
    }


def _token_revoke(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    which = arguments["which"]
    live = [row for row in node.tokens.list() if row.revoked is None and which in (row.id, row.name)]
    if not live:
        raise RequestError("no live token has this id or name; see cairn token list")
    for row in live:
        node.tokens.revoke(row.id)
        node.access.administered("admin.token", OPERATOR, {"did": "revoked", "name": row.name, "id": row.id})
    return {"revoked": [row.id for row in live]}


def _login_link(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    role = Role(arguments["role"])
    name = arguments.get("name") or role.value
    secret = node.sessions.link(role, name)
    node.access.administered("admin.token", OPERATOR, {"did": "login link", "name": name, "role": role.value})
    # An auditor may not see the viewer, where a login leads otherwise.
    onward = "&next=/console/" if role is Role.AUDITOR else ""
    return {"url": f"http://{node.settings.web.host}:{node.settings.web.port}/login?token={secret}{onward}"}


def _import(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    path = Path(arguments["path"])
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    return import_files(node.store, OPERATOR, path, report)


def _fsck(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    findings = fsck(node, report, repair=bool(arguments.get("repair")))
    return {"findings": [{"place": finding.place, "what": finding.what} for finding in findings]}


def _backup(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return backup(node.settings.home, Path(arguments["to"]), report, content=not arguments.get("without_content"))


def _ledger_reindex(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"events": node.audit.rebuild(report)}


CREATING = frozenset({"token-create", "login-link", "import"})
"""What may be the first thing ever done at a CAIRN_HOME; the others need a node to be there."""
COMMANDS: dict[str, Command] = {
    "status": _status,
    "token-create": _token_create,
    "token-list": _token_list,
    "token-revoke": _token_revoke,
    "login-link": _login_link,
    "import": _import,
    "fsck": _fsck,
    "backup": _backup,
    "ledger-entries": ledger_commands.entries,
    "ledger-key": ledger_commands.key,
    "ledger-prove": ledger_commands.prove,
    "ledger-reindex": _ledger_reindex,
    "ledger-verify": ledger_commands.verify,
}
