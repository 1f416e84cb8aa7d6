"""What commands do, once: by the running node for the local socket, or by the command under the run lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bridge import (
    alert_commands,
    assignment_commands,
    consortium_commands,
    content_commands,
    ledger_commands,
    ledger_verification,
    replica_commands,
    share_commands,
    study_commands,
    study_show,
)
from bridge.access import expiry
from bridge.errors import CairnError, CapacityError, ConfigError, NotFound, RequestError
from bridge.index.credentials import TokenRow
from bridge.index.transfer import copy_out
from bridge.ledger_reading import index_place
from bridge.model import OPERATOR, Role
from bridge.node import COMMAND, Node
from bridge.services.backup import backup
from bridge.services.fixity import check_all
from bridge.services.fsck import fsck
from bridge.services.import_files import import_files
from bridge.services.provenance import iso, now_us

LONGEST_NAME, LONGEST_PATH = 64, 500
Report = Callable[[str], None]
Command = Callable[[Node, Mapping[str, Any], Report], object]


def perform(node: Node, name: str, arguments: Mapping[str, Any], report: Report) -> object:
    """Run a command by name; its result as JSON values. Raises CairnError; ConfigError for an unknown name."""
    command = COMMANDS.get(name)
    if command is None:
        raise ConfigError(f"the running node knows no command {name}; is it of another version?")
    if name in AUDITED and node.owner != COMMAND:
        node.access.audited(OPERATOR, name)
    return command(node, arguments, report)


def _status(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"version": node.version, "not_ready": node.ready(), **node.index.counts()}


def _token_create(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    role = Role(arguments["role"])
    name = _holder(arguments, role)
    expires = expiry.parse(arguments["expires"], now_us()) if arguments.get("expires") is not None else None
    study = _studied(node, arguments, role)
    token = node.tokens.create(role, name, expires, study)
    ends = {"expires": expires} if expires is not None else {}
    of = {"of": "sealed blocks", "for": study} if study is not None else {}
    body = {"did": "created", "name": name, "role": role.value, "id": token.id, **ends, **of}
    node.access.administered("admin.token", OPERATOR, body)
    return {"token": token.secret, "id": token.id, "name": name, "role": role.value}


def _studied(node: Node, arguments: Mapping[str, Any], role: Role) -> str | None:
    """The one study that a token shall be good for. Raises RequestError for another role, NotFound when not held."""
    study = arguments.get("study")
    if study is None:
        return None
    if role is not Role.VIEWER:
        raise RequestError("a token for one study has the role viewer")
    if not node.index.trees.of_study(str(study)):
        raise NotFound("no such study is held")
    return str(study)


def _token_list(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"tokens": [_described(row) for row in node.tokens.list()]}


def _described(row: TokenRow) -> dict[str, object]:
    ended = row.expires is not None and row.expires <= now_us()
    state = "revoked" if row.revoked is not None else "expired" if ended else "valid"
    moments = {"created": row.created, "expires": row.expires, "revoked": row.revoked}
    told: dict[str, object] = {"id": row.id, "name": row.name, "role": row.role, "state": state, "study": row.study}
    return told | {name: iso(moment) if moment is not None else None for name, moment in moments.items()}


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
    name = _holder(arguments, role)
    secret = node.sessions.link(role, name)
    node.access.administered("admin.token", OPERATOR, {"did": "login link", "name": name, "role": role.value})
    # An auditor may not see the viewer, where a login leads otherwise.
    onward = "&next=/console/" if role is Role.AUDITOR else ""
    return {"url": f"http://{node.settings.web.host}:{node.settings.web.port}/login?token={secret}{onward}"}


def _holder(arguments: Mapping[str, Any], role: Role) -> str:
    name = str(arguments.get("name") or role.value)
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise RequestError(f"a name has at most {LONGEST_NAME} printable characters")
    return name


def _import(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    path = Path(arguments["path"])
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    return import_files(node.store, OPERATOR, path, report)


def _fsck(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    if arguments.get("content"):
        return check_all(node, report, float(arguments.get("sample") or 100)).answer()
    findings = fsck(node, report, repair=bool(arguments.get("repair")))
    return {"findings": [{"place": finding.place, "what": finding.what} for finding in findings]}


def _backup(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    to, content = Path(arguments["to"]), not arguments.get("without_content")
    said: dict[str, object] = {"path": str(to)[-LONGEST_PATH:], "content": content}
    try:
        node.access.administered("archive.export", OPERATOR, said)
    except (
        CapacityError
    ) as error:  # as on a full disk, where a backup is needed most; who runs it can copy files anyway
        report(f"the backup could not be recorded: {error.detail}")
    try:
        copy = None if isinstance(index_place(node.settings), Path) else partial(copy_out, node.index.database)
        return backup(node.settings.home, to, report, content=content, get=node.content.get, copy_index=copy)
    except CairnError as error:
        node.access.administered("archive.export", OPERATOR, {**said, "failed": error.slug}, outcome=8)
        raise


def _ledger_reindex(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    return {"events": node.audit.rebuild(report)}


AUDITED = frozenset({"ledger-entries", "ledger-prove", "ledger-alerts"})
"""What reads the ledger and is recorded, where a node runs; the files of one that does not are read by other means."""
CREATING = frozenset({"token-create", "login-link", "import"})
"""What may be the first thing ever done at a CAIRN_HOME; the others need a node to be there."""
CONTENT = frozenset(
    {"fsck", "backup", "study-show", "study-erase", "study-export", "study-import", "content-status", "content-repair"}
)
"""What reads or keeps stored content, for which a Kubo of the node's own must run."""
RECORDING = CREATING | CONTENT | {"token-revoke", "content-assign", "content-unassign", "ledger-review"}
"""What may record something, which gets its entry at once also where no node runs."""
COMMANDS: dict[str, Command] = {
    "status": _status,
    "token-create": _token_create,
    "token-list": _token_list,
    "token-revoke": _token_revoke,
    "login-link": _login_link,
    "import": _import,
    "fsck": _fsck,
    "backup": _backup,
    "consortium-members": consortium_commands.members,
    "consortium-propose": consortium_commands.propose,
    "consortium-vote": consortium_commands.vote,
    "content-status": content_commands.status,
    "content-repair": content_commands.repair,
    "content-replicas": replica_commands.replicas,
    "content-assign": assignment_commands.assign,
    "content-unassign": assignment_commands.unassign,
    "content-assignments": assignment_commands.every,
    "key-show": study_commands.key_show,
    "share-emergencies": replica_commands.emergencies,
    "share-emergency": replica_commands.emergency,
    "share-emergency-end": replica_commands.emergency_end,
    "share-grant": share_commands.grant,
    "share-list": share_commands.every,
    "share-revoke": share_commands.revoke,
    "study-erase": study_commands.erase,
    "study-erasures": study_commands.erasures,
    "study-export": study_commands.export,
    "study-show": study_show.show,
    "study-import": study_commands.import_,
    "ledger-alerts": alert_commands.alerts,
    "ledger-review": alert_commands.review,
    "ledger-entries": ledger_commands.entries,
    "ledger-key": ledger_commands.key,
    "ledger-prove": ledger_commands.prove,
    "ledger-reindex": _ledger_reindex,
    "ledger-verify": ledger_verification.verify,
}
