"""Trust policies: which logs are accepted, and which witnesses must have cosigned (C2SP tlog-policy).

A policy is a file of lines: `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME all|any|K NAME...` and one
`quorum NAME|none`. Names are octets, whatever their encoding; each is defined before it is used, and listed in at most
one group, so that no witness counts twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger import checkpoint, cosignature, keys
from ledger.checkpoint import Checkpoint, Signature, Verifier
from ledger.errors import CodecError, LedgerError, SignatureInvalid

MAX_SIZE = 256 * 1024  # octets of a policy file
_NONE = b"none"


class Group(NamedTuple):
    """Has witnessed when at least `threshold` of its members, by name, have."""

    threshold: int
    members: tuple[bytes, ...]


class Cosigned(NamedTuple):
    """A witness's key name, and when it cosigned, in seconds since the epoch."""

    witness: str
    time_s: int


class Accepted(NamedTuple):
    """A checkpoint that a policy accepts: the tree head, the log's key, and which of its witnesses cosigned."""

    head: Checkpoint
    log: Verifier
    cosigned: tuple[Cosigned, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Logs, witnesses and groups by name, and the name that must have witnessed; None when no cosignature is needed."""

    logs: tuple[Verifier, ...]
    witnesses: Mapping[bytes, Verifier] = field(default_factory=dict)
    groups: Mapping[bytes, Group] = field(default_factory=dict)
    quorum: bytes | None = None

    @classmethod
    def of_log(cls, origin: str, public_key: keys.PublicKey) -> Policy:
        """One log, no witnesses: what knowing a log's verifier key alone amounts to."""
        return cls((Verifier(origin, keys.raw(public_key)),))

    def accept(self, note: str) -> Accepted:
        """The checkpoint of a note that this policy accepts.

        1. it is signed by one of the logs, whose name is its origin    2. its witnesses make up the quorum

        Raises CodecError when it is malformed, SignatureInvalid when a signature of a known key is missing or does not
        verify or the quorum is not reached; the place is "checkpoint" or "witnesses".
        """
        try:
            text, signatures = checkpoint.split_note(note)
            head = checkpoint.parse(text)
            log = self._signer(head, text, signatures)  # (1)
        except LedgerError as error:
            raise type(error)(error.detail, "checkpoint") from error
        seen: dict[bytes, Cosigned] = {}
        for name, witness in self.witnesses.items():
            try:
                time_s = cosignature.cosigned(text, signatures, witness)
            except LedgerError as error:
                raise type(error)(error.detail, "witnesses") from error
            if time_s is not None:
                seen[name] = Cosigned(witness.name, time_s)
        if not self._has_quorum(seen):  # (2)
            needed = (self.quorum or _NONE).decode("utf-8", "replace")
            raise SignatureInvalid(f"{len(seen)} known witnesses cosigned it, not the quorum {needed}", "witnesses")
        return Accepted(head, log, tuple(seen.values()))

    def _signer(self, head: Checkpoint, text: str, signatures: Sequence[Signature]) -> Verifier:
        """The log that signed; every line of a known log's key must verify, as signed-note asks."""
        named = [log for log in self.logs if log.name == head.origin]
        if not named:
            raise SignatureInvalid("it is of a log that is not known here")
        signed = [log for log in named if checkpoint.signatures_of(log, signatures)]
        if not signed:
            raise SignatureInvalid(f"it is not signed by the key of {head.origin} that is known here")
        for log in signed:
            for signature in checkpoint.signatures_of(log, signatures):
                keys.check(log.key, signature, text.encode())
        return signed[0]

    def _has_quorum(self, cosigned: Collection[bytes]) -> bool:
        """Groups name only what is defined before them, so that one pass in their order decides each."""
        witnessed = set(cosigned)
        for name, group in self.groups.items():
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(name)
        return self.quorum is None or self.quorum in witnessed


def parse(text: bytes) -> Policy:
    """The policy of a file. Raises CodecError, its place the line ("line 3"), for anything that is not one."""
    if len(text) > MAX_SIZE:
        raise CodecError("longer than 256 KiB", "policy")
    reading = _Reading()
    for number, line in enumerate(text.split(b"\n"), 1):
        try:
            if any((octet < 0x20 and octet != 0x09) or octet == 0x7F for octet in line):
                raise CodecError("a control character other than tab and newline")
            words = [word for word in line.replace(b"\t", b" ").split(b" ") if word]
            if words and not words[0].startswith(b"#"):
                reading.take(words)
        except LedgerError as error:
            raise CodecError(error.detail, f"line {number}") from error
    return reading.policy()


class _Reading:
    """A policy file as read up to some line."""

    def __init__(self) -> None:
        self._logs: dict[bytes, Verifier] = {}
        self._witnesses: dict[bytes, Verifier] = {}
        self._groups: dict[bytes, Group] = {}
        self._members: set[bytes] = set()
        self._quorums: list[bytes] = []

    def policy(self) -> Policy:
        """The whole; raises CodecError without exactly one quorum line."""
        if len(self._quorums) != 1:
            raise CodecError("there must be exactly one quorum line", "policy")
        quorum = None if self._quorums[0] == _NONE else self._quorums[0]
        return Policy(tuple(self._logs.values()), self._witnesses, self._groups, quorum)

    def take(self, words: list[bytes]) -> None:
        """One line's words; raises CodecError."""
        match words:
            case [b"log", vkey] | [b"log", vkey, _]:
                verifier = checkpoint.parse_vkey(_text(vkey))
                if verifier.key in self._logs:
                    raise CodecError("the same log key again")
                self._logs[verifier.key] = verifier
            case [b"witness", name, vkey] | [b"witness", name, vkey, _]:
                verifier = cosignature.parse_cosigner(_text(vkey))
                if any(known.key == verifier.key for known in self._witnesses.values()):
                    raise CodecError("the same witness key again")
                self._witnesses[self._fresh(name)] = verifier
            case [b"group", name, threshold, *members] if members:
                self._fresh(name)
                self._groups[name] = Group(_threshold(threshold, len(members)), tuple(map(self._member, members)))
            case [b"quorum", name]:
                if name != _NONE:
                    self._defined(name)
                self._quorums.append(name)
            case _:
                raise CodecError("neither a log, a witness, a group nor a quorum")

    def _fresh(self, name: bytes) -> bytes:
        if name == _NONE or name in self._witnesses or name in self._groups:
            raise CodecError("a name that is defined already")
        return name

    def _defined(self, name: bytes) -> None:
        if name not in self._witnesses and name not in self._groups:
            raise CodecError("a name that is not defined above")

    def _member(self, name: bytes) -> bytes:
        self._defined(name)
        if name in self._members:
            raise CodecError("a name listed as a member before")
        self._members.add(name)
        return name


def _threshold(word: bytes, members: int) -> int:
    if word in (b"all", b"any"):
        return members if word == b"all" else 1
    if not word.isdigit() or word.startswith(b"0") or len(word) > 9 or not int(word) <= members:
        raise CodecError(f"a group's threshold is all, any, or a number from 1 to {members}")
    return int(word)


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise CodecError("a key name that is not UTF-8") from error
