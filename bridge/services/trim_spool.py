"""Trimming the spool beside a content engine: the oldest packs go, once they are no longer needed here.

(1) a pack that nobody writes to, of which everything is stored, pinned and verified
(2) every live block in it is read back from the engine once more, and mended there from the pack if need be
(3) record that the pack is being removed
(4) remove its file
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from bridge import crash
from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.copies import Copy
from bridge.content.pack_format import HEADER, pack_number, pack_path, packs_in
from bridge.content.trim import remove_pack
from bridge.content.upkeep import Pack, trimmable
from bridge.errors import ContentCorrupt, IntegrityError
from bridge.model import Block
from bridge.ports import ContentStore
from bridge.services.provenance import Clock

__all__ = ["ContentEngine", "Spool", "SpoolIndex"]

log = logging.getLogger(__name__)
TRIM_S: Final = 30.0
FULL_S: Final = 5.0
NOT_YET_S: Final = 60.0
STUCK_S: Final = 600.0
ARRIVING_US: Final = 86_400_000_000
"""No instance takes a day to arrive."""


class SpoolIndex(Protocol):
    """What the index knows of packs. Every method may raise StorageFault."""

    def roots_of(self, pack: int) -> Sequence[bytes] | None:
        """The roots below which the pack's instances lie; None unless each was verified and is the tree's newest."""

    def blocks(self, pack: int) -> Iterator[tuple[bytes, bool]]:
        """Every CID in the pack but those of superseded copies, and whether it is an instance's."""

    def extent(self, pack: int) -> int:
        """How many bytes of the pack the sections of all blocks take that the index knows there."""

    def names(self, cid: bytes) -> bool:
        """Whether a tree has this block for its root or one of its pages."""

    def trim(self, pack: int, at: int) -> None:
        """(6) Record that the pack's file is being removed."""

    def trimmed(self) -> Collection[int]:
        """The packs whose file was removed, or was about to be."""

    def untrim(self, pack: int) -> None:
        """Record that the pack's file is there."""


class ContentEngine(ContentStore, Protocol):
    """An engine beside the spool, and what can be asked of it alone."""

    @property
    def copy(self) -> Copy:
        """The blocks that the engine holds by itself."""

    def pinned(self) -> Collection[bytes]:
        """Every root that the engine pins recursively, as it says itself. Raises EngineFault."""

    def refetch(self, cid: bytes) -> None:
        """Have a block that it lost or damaged from another engine of its kind that it is connected to.

        Raises ContentMissing, ContentCorrupt when none has it, EngineFault.
        """

    def unsafe(self) -> str | None:
        """Why what it holds may be lost by a power cut; None when it is known to fsync. Raises EngineFault."""


class _NotYet(Exception):
    """A pack that may go later: it is in use, or a study in it is on its way."""


class Spool:
    """The packs beside an engine; one thread at a time, but for `fault`.

    Parameters
    ----------
    index, engine
        What is known of the packs, and where all that is in them is kept too.
    directory, most, is_full
        Where the packs lie, how many bytes of them may, and whether their disk is full: then none may.
    clock, now
        Microseconds since the epoch; monotonic seconds.
    """

    def __init__(
        self,
        index: SpoolIndex,
        engine: ContentEngine,
        directory: Path,
        most: int,
        clock: Clock,
        now: Callable[[], float],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._index, self._engine, self._directory, self._most = index, engine, directory, most
        self._is_full = is_full
        self._clock, self._now = clock, now
        self._again = 0.0
        self._stuck: dict[int, tuple[float, str]] = {}
        self.mended = 0
        """How many blocks the engine was given again."""

    def packs(self) -> tuple[Sequence[Pack], int]:
        """The packs, oldest first, from time to time, and how many bytes of them may stay.

        Whether one is verified is asked only while more have to go.
        """
        now = self._now()
        if now < self._again:
            return (), self._most
        full = self._is_full()
        most = 0 if full else self._most
        stuck = {number for number, (until, _) in self._stuck.items() if until > now}
        files = [(pack_number(path), path.stat().st_size) for path in packs_in(self._directory)]
        beyond = sum(size for _, size in files) - most
        found = []
        for number, size in files:
            verified = beyond > 0 and number not in stuck and self._index.roots_of(number) is not None
            beyond -= size if verified else 0
            found.append(Pack(number, size, verified))
        if not trimmable(found, most):
            self._again = now + (FULL_S if full else TRIM_S)
        return found, most

    def fault(self, unsafe: str | None) -> str:
        """Why the spool holds more than it may; empty when it does not, or only for now. `unsafe`: nothing may go."""
        size = _size(self._directory)
        if size <= self._most:
            return ""
        if unsafe is not None:
            return f"the spool holds {size} bytes, {size - self._most} more than content.spool_bytes: {unsafe}"
        reasons = [reason for _, reason in [*self._stuck.values()] if reason]
        return f"the spool cannot be trimmed: {reasons[0]}" if reasons else ""

    def try_all_now(self) -> None:
        """Leave no pack for later."""
        self._stuck.clear()
        self._again = 0.0

    def begin_again(self) -> None:
        """Packs that a crash kept from being removed are spool again."""
        for pack in set(self._index.trimmed()) & {pack_number(path) for path in packs_in(self._directory)}:
            self._index.untrim(pack)

    def trim(self, pack: int) -> None:
        """(6) Remove a pack, or leave it for a while when something stands against it.

        Raises EngineFault, StorageFull, StorageFault.
        """
        try:
            removed = remove_pack(self._directory, pack, lambda: self._last_look(pack))
            crash.step("trim_spool.3")
            self._stuck.pop(pack, None)
            if not removed:
                raise _NotYet
            log.info("a pack is trimmed: the content engine was read back", extra={"pack": pack})
        except _NotYet:
            self._stuck[pack] = self._now() + NOT_YET_S, ""
        except IntegrityError as error:
            self._stuck[pack] = self._now() + STUCK_S, f"pack {pack:08d}.car: {error.detail}"

    def _last_look(self, pack: int) -> None:
        """Before the only other copy goes: every root is pinned now, every live block is read back now.

        What the index does not know in the pack may belong to an instance that is still arriving: it must be old.
        Raises _NotYet when it is too early, ContentMissing when a block in it is nowhere else to be had.
        """
        file = pack_path(self._directory, pack).stat()
        unknown = file.st_size - len(HEADER) - self._index.extent(pack)
        if unknown and self._clock() - file.st_mtime_ns // 1000 < ARRIVING_US:
            raise _NotYet
        roots = self._index.roots_of(pack)
        if roots is None or set(roots) - set(self._engine.pinned()):
            raise _NotYet
        for cid, owned in self._index.blocks(pack):
            try:
                self._engine.copy.read(cid)
            except IntegrityError:
                if not owned and self._is_former(cid):
                    continue
                if not owned:
                    raise
                self._engine.copy.mend(Block(cid, self._engine.get(cid)))
                self._engine.copy.read(cid)
                self.mended += 1
        crash.step("trim_spool.1")
        self._index.trim(pack, self._clock())
        crash.step("trim_spool.2")

    def _is_former(self, cid: bytes) -> bool:
        """Whether this is a page or root that newer ones have taken the place of."""
        if cids.parse(cid).codec != cids.DAG_CBOR or self._index.names(cid):
            return False
        data = self._engine.get(cid)
        for decode in (manifest.decode_page, manifest.decode_root):
            with contextlib.suppress(ContentCorrupt):
                decode(data)
                return True
        return False


def _size(packs: Path) -> int:
    """The bytes in a spool; one that is removed meanwhile counts for nothing."""
    total = 0
    for path in packs_in(packs):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
