"""A copy of a log's published files (checkpoint, tiles, entry bundles), verified with nothing but its key.

What a mirror fetched over HTTP, or a copy of the ledger's directory, is enough for every entry's signature and place in
the chain, the tree over all of them, the checkpoint, and each tile. Records are not among these files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ledger import checkpoint, entry, kept, merkle, tiles
from ledger.checkpoint import Checkpoint, Verifier
from ledger.entry import leaf_hash
from ledger.errors import CodecError, LedgerError
from ledger.finding import Finding
from ledger.genesis import Genesis
from ledger.members import State
from ledger.policy import Accepted, Policy
from ledger.replay import SharedTrust
from ledger.shared_policy import quorum_policy
from ledger.tile_files import CHECKPOINT, TileFiles
from ledger.tiles import ENTRIES, WIDTH, Tile
from ledger.verify import LogCheck, LogReader, Trust, Visitor, verify_log
from ledger.verify_shared import MembersLogCheck, of_origin, verify_shared


class Published(NamedTuple):
    """What was verified: the accepted checkpoint (None when it is not), and everything that does not hold."""

    accepted: Accepted | None
    findings: list[Finding]


def verify(directory: Path, policy: Policy, since: Checkpoint | None = None, visit: Visitor | None = None) -> Published:
    """Every finding about the published log below a directory, up to its checkpoint; `visit` is told of each entry.

    `since` is an older checkpoint of the log, signed by its key, which the log must continue. Of a log that members
    share, the policy names their keys: `ledger.verify_shared.MembersLogCheck` says what is checked. Raises OSError.
    """
    files = TileFiles(directory)
    try:
        note = files.checkpoint()
        if note is None:
            return Published(None, [Finding(CHECKPOINT, "it is missing")])
        accepted = policy.accept(note)
    except UnicodeDecodeError:
        return Published(None, [Finding(CHECKPOINT, "it is not UTF-8")])
    except LedgerError as error:
        return Published(None, [Finding(error.place or CHECKPOINT, error.detail)])
    head, log = accepted.head, accepted.log
    reading = _Bundles(files, head.size)
    envelopes, trust = reading.envelopes(), _checked_by(reading.first(), policy, head, log)
    report = verify_log(envelopes, [(head.size, note)], trust, visit)
    findings = reading.findings + report.findings
    if not reading.findings:  # else the tree is not known to its end
        findings += _tiles(files, LogReader(head.size, reading.leaves, lambda start, end: [], report.nodes))
        if since is not None:
            findings += kept.contradictions(since, head.size, lambda size: merkle.root(reading.leaves(0, size)))
    return Published(accepted, findings)


def _checked_by(first: bytes | None, policy: Policy, head: Checkpoint, log: Verifier) -> Trust | LogCheck:
    """By its first entry: the one key of a node's own log, or the keys of the members of a shared one."""
    try:
        if first is not None and of_origin(entry.read(first), head.origin):
            return MembersLogCheck(policy.logs, head, policy)
    except CodecError:  # found with the entry
        pass
    return Trust.solo(log.key, head.origin)


class SharedCopy(NamedTuple):
    """What a copy of a shared log showed, up to its checkpoint: entries, members, who cosigned, what does not hold.

    `cosigned` is the newest checkpoint that a quorum of the members cosigned, None when none did.
    """

    size: int
    state: State | None
    cosigned: Accepted | None
    findings: list[Finding]


def verify_shared_copy(directory: Path, genesis: Genesis, visit: Visitor | None = None) -> SharedCopy:
    """Every finding about a shared log's published files below a directory, from its genesis on.

    Members and keys follow from the genesis and the entries; more than two thirds of the members must have cosigned the
    checkpoint. Raises OSError.
    """
    files, origin = TileFiles(directory), genesis.origin
    try:
        note = files.checkpoint()
        if note is None:
            return SharedCopy(0, None, None, [Finding(CHECKPOINT, "it is missing")])
        size = checkpoint.parse(checkpoint.split_note(note)[0]).size
    except UnicodeDecodeError:
        return SharedCopy(0, None, None, [Finding(CHECKPOINT, "it is not UTF-8")])
    except LedgerError as error:
        return SharedCopy(0, None, None, [Finding(CHECKPOINT, error.detail)])
    reading = _Bundles(files, size)
    report, state = verify_shared(reading.envelopes(), [(size, note)], SharedTrust(genesis), visit)
    findings = reading.findings + report.findings
    if not reading.findings:
        findings += _tiles(files, LogReader(size, reading.leaves, lambda start, end: [], report.nodes))
    try:
        return SharedCopy(size, state, quorum_policy(state, origin).accept(note), findings)
    except LedgerError as error:
        return SharedCopy(size, state, None, [*findings, Finding(error.place or CHECKPOINT, error.detail)])


def _tiles(files: TileFiles, log: LogReader) -> Iterator[Finding]:
    """The hash tiles that the checkpoint needs; others may be there, since a log grows while it is copied."""
    for tile in tiles.tiles(log.size):
        if tile.level == ENTRIES:
            continue
        try:
            if files.read(tile) != log.content(tile):
                yield Finding(tile.path(), "it does not hold what the log says")
        except FileNotFoundError:
            yield Finding(tile.path(), "it is missing")


class _Bundles:
    """The envelopes in the entry bundles of a tree of `size`, as far as they can be read."""

    def __init__(self, files: TileFiles, size: int) -> None:
        self._files, self._wanted = files, size
        self.findings: list[Finding] = []
        self._leaves: list[bytes] = []

    def envelopes(self) -> Iterator[bytes]:
        """Every envelope in order; ends with a finding where a bundle is missing or damaged."""
        for tile in tiles.tiles(self._wanted):
            if tile.level != ENTRIES:
                return
            try:
                found = self._bundle(tile)
            except (OSError, CodecError) as error:
                what = "it is missing" if isinstance(error, OSError) else str(error)
                self.findings.append(Finding(tile.path(), what))
                return
            for envelope in found:
                self._leaves.append(leaf_hash(envelope))
                yield envelope

    def first(self) -> bytes | None:
        """The first envelope; None when it cannot be read."""
        try:
            return self._bundle(Tile(ENTRIES, 0, min(self._wanted, WIDTH)))[0] if self._wanted else None
        except (OSError, CodecError):
            return None

    def leaves(self, start: int, end: int) -> list[bytes]:
        """Leaf hashes of what was read, indices [start, end)."""
        return self._leaves[start:end]

    def _bundle(self, tile: Tile) -> list[bytes]:
        try:
            content, width = self._files.read(tile), tile.width
        except FileNotFoundError:
            # A partial bundle may have given way to the full one (tlog-tiles, Partial Tiles).
            content, width = self._files.read(tile._replace(width=WIDTH)), WIDTH
        found = tiles.split_bundle(content)
        if len(found) != width:
            raise CodecError(f"{len(found)} entries instead of {width}")
        return found[: tile.width]
