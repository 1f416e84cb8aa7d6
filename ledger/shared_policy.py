"""Who vouches for a shared log: its members' keys as trust policies (C2SP tlog-policy). Pure.

Every member signs the checkpoint with its ledger key, under the one origin, and cosigns it under its name. A quorum of
cosignatures says that more than two thirds of the members hold that very tree.
"""

from __future__ import annotations

from typing import Final

from ledger import checkpoint
from ledger.checkpoint import Checkpoint, Verifier
from ledger.members import Member, State
from ledger.policy import Group, Policy

GROUP: Final = "members"


def log_policy(at: State, origin: str, own: bytes | None = None, key: bytes | None = None) -> Policy:
    """Which checkpoints are signed for the log: with a key that any member, or the one that is `own`, has or had.

    `key` is the one that the copy's holder has itself (32 bytes). While it catches up, and until it was voted in, no
    member of the state has it: nobody else's counts for its copy all the same.
    """
    members = [member for member in at.members.values() if own is None or member.node == own]
    known = [log for member in members for log in logs_of(member, origin)]
    held = [] if key is None else [Verifier(origin, key)]
    return Policy(tuple(dict.fromkeys([*known, *held])))


def logs_of(member: Member, origin: str) -> list[Verifier]:
    """The verifiers of what a member signed for the log: of its key now, and of those before."""
    return [Verifier(origin, row.key) for row in member.keys]


def quorum_policy(at: State, origin: str) -> Policy:
    """A checkpoint signed by any member and cosigned by more than two thirds of the active ones."""
    witnesses = {member.name.encode(): member.card.witness() for member in at.active}
    group = Group(at.quorum, tuple(sorted(witnesses)))
    return Policy(log_policy(at, origin).logs, witnesses, {_group_name(at).encode(): group}, _group_name(at).encode())


def policy_text(at: State, origin: str) -> str:
    """The same as a file that `cairn ledger verify FILE --policy FILE` reads."""
    active = sorted(at.active, key=lambda member: member.name)
    former = [member for member in at.members.values() if not member.active]
    lines = [f"# {origin}: {len(active)} members, {at.quorum} of them must have cosigned"]
    for member in (*active, *sorted(former, key=lambda member: member.name)):
        lines += [f"log {log.vkey()}" for log in logs_of(member, origin)]
    lines += [f"witness {member.name} {member.card.witness().vkey()}" for member in active]
    group = _group_name(at)
    lines += [f"group {group} {at.quorum} {' '.join(member.name for member in active)}", f"quorum {group}"]
    return "\n".join(lines) + "\n"


def cosignature_of(note: str, member: Member, origin: str) -> tuple[Checkpoint, str]:
    """The tree head of a note that this very member signed and cosigned, and its cosignature's line.

    Raises LedgerError when it is malformed, or one of its two signatures is missing or does not verify.
    """
    witness, name = member.card.witness(), member.name.encode()
    head = Policy(tuple(logs_of(member, origin)), {name: witness}, {}, name).accept(note).head
    own = checkpoint.signatures_of(witness, checkpoint.split_note(note)[1])
    return head, checkpoint.signature_line(witness, own[-1])


def _group_name(at: State) -> str:
    """A name that no member has."""
    name = GROUP
    while any(member.name == name for member in at.members.values()):
        name += "-"
    return name
