"""`cairn ledger verify FILE`: proofs, checkpoints and copies of a log, checked without a node and without CAIRN_HOME.

Answers are JSON values: {"valid", "kind": "proof"|"checkpoint"|"log", "log", "size", "cosigned", "findings"} and, of a
proof, {"entry", "record"}; what is not valid has "findings" and, as "step", the place of the first.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from ledger import checkpoint, commit_proof, kept, policy, proof, published
from ledger import genesis as ledger_genesis
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.event import OUTCOMES
from ledger.finding import Finding
from ledger.genesis import Genesis
from ledger.light_block import Time
from ledger.lightclient import Trusting
from ledger.policy import Accepted, Policy
from ledger.proof import Proved
from ledger.types import ENTRY_TYPES

Report = Callable[[str], None]
DATABASE = "ledger.db"
_TOLD_EVERY = 10_000
NO_KEY = (
    "a key that is taken from the file itself proves nothing: give the log's key, got from the node by another way "
    "(--key VKEY, as `cairn ledger key` prints it), or a trust policy (--policy FILE)"
)


def trusted(vkey: str | None, policy_file: Path | None) -> Policy:
    """The policy of a verifier key or of a policy file. Raises ConfigError without either, or when one is malformed."""
    if (vkey is None) == (policy_file is None):
        raise ConfigError(NO_KEY if vkey is None else "give either --key or --policy, not both")
    try:
        if vkey is not None:
            verifier = checkpoint.parse_vkey(vkey)
            return Policy.of_log(verifier.name, verifier.key)
        assert policy_file is not None
        read = policy.parse(policy_file.read_bytes())
    except LedgerError as error:
        raise ConfigError(f"{'--key' if vkey is not None else '--policy'}: {error}") from error
    if not read.logs:
        raise ConfigError("--policy: the policy names no log")
    return read


def verify(path: Path, trust: Policy, since: Path | None, consistency: Path | None, report: Report) -> dict[str, Any]:
    """What a proof, a checkpoint or a directory of published files shows; `since` is an older checkpoint or proof.

    `consistency` is a consistency proof between the two, as `GET /ledger/consistency` answers. Raises ConfigError when
    it is none, and without it when the two are of different sizes and cannot be compared without the log.
    """
    try:
        older = None if since is None else kept.read(_text(since), trust).head
    except LedgerError as error:
        return _refused("checkpoint", [kept.unreadable(error)])
    if path.is_dir():
        return _verify_copy(path, trust, older, report)
    kind = "proof"
    try:
        text = _text(path)
        kind = "proof" if text.startswith(proof.FIRST_LINE) else "checkpoint"
        if kind == "checkpoint":
            accepted = trust.accept(text)
            answer = _accepted(kind, accepted)
        else:
            proved = proof.verify_under(text, trust)
            accepted = Accepted(proved.head, proved.log, proved.cosigned)
            answer = _accepted(kind, accepted) | {"entry": _entry(proved), "record": _record(proved)}
    except LedgerError as error:
        return _refused(kind, [Finding(error.place or "format", error.detail)])
    if older is not None:
        findings = _compare(kind, accepted.head, older, consistency)
        if findings:
            return _refused(kind, findings)
    return answer


def _compare(kind: str, head: Checkpoint, older: Checkpoint, consistency: Path | None) -> list[Finding]:
    """Two signed tree heads without the log between them."""
    if head.size == older.size or (kind == "checkpoint" and head.size < older.size):
        return kept.contradictions(older, head.size, lambda size: head.root)
    if consistency is not None:
        return kept.unproved(older, head, _hashes(consistency))
    sizes = sorted((older.size, head.size))
    raise ConfigError(
        f"checkpoints of {sizes[0]} and {sizes[1]} entries are compared by a consistency proof (--consistency FILE, as "
        f"the node answers at /ledger/consistency?from={sizes[0]}&to={sizes[1]}), by a copy of the log's published "
        "files as FILE, or by `cairn ledger verify --since` on the node"
    )


def _hashes(path: Path) -> list[bytes]:
    """The hashes of a consistency proof. Raises ConfigError."""
    try:
        proved = json.loads(path.read_bytes())["proof"]
        return [base64.b64decode(item, validate=True) for item in proved]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError('--consistency: not a JSON object with the hashes in base64 as "proof"') from error


def verify_commit(path: Path, commit: Path, genesis_file: Path) -> dict[str, Any]:
    """What a proof of an entry shows to who has the genesis of its consortium, by the commit on its tree.

    As `verify` of a proof, and "member" whose entry it is, "committed" {"height", "time", "signed", "of"}: how much of
    the validators' power signed. Raises ConfigError for a genesis that is none.
    """
    genesis = _genesis(genesis_file)
    now = Trusting(Time(*divmod(time.time_ns(), 10**9)), None)
    try:
        committed = commit_proof.verify(_content(commit), genesis, now)
        proved, member = commit_proof.verify_entry(_text(path), committed, genesis)
    except LedgerError as error:
        return _refused("proof", [Finding(error.place or "format", error.detail)])
    accepted = Accepted(proved.head, proved.log, proved.cosigned)
    said, header = committed.record, committed.block.header
    return _accepted("proof", accepted) | {
        "entry": _entry(proved),
        "record": _record(proved),
        "member": member.name,
        "committed": {
            "height": said.height,
            "time": _time(said.time_us),
            "chain": header.chain_id,
            "signed": committed.signed,
            "of": committed.power,
        },
    }


def _genesis(file: Path) -> Genesis:
    try:
        return ledger_genesis.from_json(file.read_text("utf-8"))
    except (LedgerError, UnicodeDecodeError) as error:
        raise ConfigError(f"--genesis: {error}") from error


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(commit_proof.MAX_SIZE + 1)


def verify_from_genesis(directory: Path, genesis_file: Path, report: Report) -> dict[str, Any]:
    """What a copy of a shared log shows to who has its genesis: a member's folder with its database, or tiles alone.

    {"valid", "kind": "shared log", "log", "size", "members", "cosigned", "cosigned_size", "findings"}. Raises
    ConfigError for a genesis that is none.
    """

    def told(done: int, of: int) -> None:
        if done and done % _TOLD_EVERY == 0:
            report(f"{done} entries verified")

    genesis = _genesis(genesis_file)
    if (directory / DATABASE).is_file():
        from ledger.audit_shared import verify_database

        found = verify_database(directory, genesis, told)
    else:
        found = published.verify_shared_copy(directory, genesis, lambda index, envelope, said: told(index, 0))
    if found.findings or found.cosigned is None:
        return _refused("shared log", found.findings or [Finding("checkpoint", "there is none")])
    active = found.state.active if found.state is not None else ()
    return _accepted("shared log", found.cosigned) | {
        "size": found.size,
        "cosigned_size": found.cosigned.head.size,
        "members": sorted(member.name for member in active),
    }


def _verify_copy(directory: Path, trust: Policy, since: Checkpoint | None, report: Report) -> dict[str, Any]:
    def visit(index: int, envelope: bytes, said: object) -> None:
        if index and index % _TOLD_EVERY == 0:
            report(f"{index} entries verified")

    found = published.verify(directory, trust, since, visit)
    if found.accepted is None or found.findings:
        return _refused("log", found.findings)
    return _accepted("log", found.accepted)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(4 * proof.MAX_SIZE + 1)  # no character takes more than four bytes
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise LedgerError("it is not UTF-8", "format") from error


def _accepted(kind: str, accepted: Accepted) -> dict[str, Any]:
    return {
        "valid": True,
        "kind": kind,
        "log": accepted.head.origin,
        "size": accepted.head.size,
        "cosigned": [{"witness": item.witness, "time": _time(item.time_s * 1_000_000)} for item in accepted.cosigned],
        "findings": [],
    }


def _refused(kind: str, findings: list[Finding]) -> dict[str, Any]:
    return {"valid": False, "kind": kind, "step": findings[0].place, "findings": _described(findings)}


def _described(findings: list[Finding]) -> list[dict[str, str]]:
    return [{"place": finding.place, "what": finding.what} for finding in findings]


def _entry(proved: Proved) -> dict[str, Any]:
    said = proved.entry
    return {
        "id": proved.leaf.hex(),
        "index": proved.index,
        "type": said.type,
        "meaning": ENTRY_TYPES[said.type].meaning,
        "time": _time(said.time_us),
        "node": said.node.hex(),
        "sequence": said.sequence,
        "purpose": said.purpose,
        "outcome": said.outcome,
    }


def _record(proved: Proved) -> dict[str, Any] | None:
    if proved.record_leaf is None:
        return None
    if proved.record is None:
        return {"id": proved.record_leaf.hex(), "withheld": True}
    said = proved.record
    body = _plain(said.body)
    return {
        "id": proved.record_leaf.hex(),
        "withheld": False,
        "type": said.type,
        "time": _time(said.time_us),
        "body": body,
    }


def _plain(value: object) -> Any:
    """A record's body as JSON: byte strings in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _time(time_us: int) -> str:
    """RFC 3339 in UTC; microseconds as a number where the calendar ends."""
    try:
        moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    except (ValueError, OverflowError, OSError):
        return f"{time_us} microseconds after 1970"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentences(answer: Mapping[str, Any]) -> str:
    """What was proved, or what does not hold, in words."""
    if not answer["valid"]:
        lines = [f"{finding['place']}: {finding['what']}" for finding in answer["findings"]]
        return "\n".join([f"NOT VALID: this {answer['kind']} does not hold.", *lines])
    lines = []
    if answer["kind"] == "proof":
        entry = answer["entry"]
        stated = f"{entry['type']}, {OUTCOMES[entry['outcome']]}, purpose {entry['purpose'] or 'none'}"
        lines.append(
            f"valid: the node {entry['node']} signed, as its entry {entry['sequence']} at {entry['time']}: "
            f"{entry['meaning'].rstrip('.')} ({stated})."
        )
        lines += _record_sentences(answer["record"])
        lines.append(f"The entry is number {entry['index']} of {answer['size']} in the log {answer['log']}.")
    elif answer["kind"] == "checkpoint":
        lines.append(f"valid: the log {answer['log']} signed that it holds {answer['size']} entries.")
    elif answer["kind"] == "shared log":
        lines.append(
            f"valid: all {answer['size']} entries of the shared log {answer['log']}, from its genesis on; members now: "
            f"{', '.join(answer['members'])}."
        )
        lines.append(f"The first {answer['cosigned_size']} entries are cosigned by more than two thirds of them.")
    else:
        lines.append(f"valid: all {answer['size']} entries of the log {answer['log']}, their tree and its files.")
    if "committed" in answer:
        found = answer["committed"]
        lines.append(
            f"It is {answer['member']}'s, and {found['signed']} of {found['of']} of the power of the validators of "
            f"{found['chain']} signed that height {found['height']}, at {found['time']}, committed to it."
        )
        return "\n".join(lines)
    lines += [f"Cosigned by {item['witness']} at {item['time']}." for item in answer["cosigned"]]
    if not answer["cosigned"]:
        lines.append("No witness was asked for: that there is no second history rests on the log's own key.")
    return "\n".join(lines)


def _record_sentences(record: Mapping[str, Any] | None) -> list[str]:
    if record is None:
        return []
    if record["withheld"]:
        return [f"It covers the record {record['id']}, whose content is withheld."]
    body = json.dumps(record["body"], ensure_ascii=False, sort_keys=True)
    return [f"It covers this record, {record['type']} at {record['time']}: {body}"]
