"""A tree as a CAR for who takes the blocks in any order: read from the packs in large pieces, where they lie together.

Packs are CARs, so that a stretch of one is a stretch of the CAR to be made; nothing is parsed, and nothing is verified
that the receiver verifies anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from bridge.content import car, dag
from bridge.content.packs import PackStore
from bridge.content.passed import PassedCids
from bridge.errors import IntegrityError

__all__ = ["pieces"]

PIECE: Final = 256 << 10
_WINDOW_BLOCKS: Final = 512
_WINDOW_BYTES: Final = 64 << 20


class _Section(NamedTuple):
    pack: int
    start: int
    end: int
    cid: bytes


def pieces(
    root: bytes,
    packs: PackStore,
    get: dag.Get,
    skip: Callable[[bytes], bool] = lambda cid: False,
    *,
    verified: bool = False,
) -> Iterator[bytes]:
    """The CAR of the tree below `root`, in pieces of about 256 KiB; its root first, the others nearly so.

    Parameters
    ----------
    get
        The verified block, wherever it lies: for blocks with links, and for what the packs do not hold (any more).
    skip
        As `dag.order`.
    verified
        Take every block by `get`, in the order of the tree.

    Holds the positions of 512 blocks at most, and of the tree what `dag.order` holds. Raises what `get` does.
    """
    return _joined(_stretches(root, packs, get, skip, verified))


def _stretches(
    root: bytes, packs: PackStore, get: dag.Get, skip: Callable[[bytes], bool], verified: bool
) -> Iterator[bytes]:
    yield car.encode_header([root])
    window: list[_Section] = []
    size = 0
    for cid, data in dag.order(root, get, skip, PassedCids()):
        position = None if verified else packs.position(cid)
        if position is None:
            block = get(cid) if data is None else data
            yield car.section_head(cid, len(block))
            yield block
            continue
        head = len(car.section_head(cid, position.length))
        window.append(_Section(position.pack, position.offset - head, position.offset + position.length, cid))
        size += position.length
        if len(window) == _WINDOW_BLOCKS or size >= _WINDOW_BYTES:
            yield from _read(window, packs, get)
            window, size = [], 0
    yield from _read(window, packs, get)


def _read(window: list[_Section], packs: PackStore, get: dag.Get) -> Iterator[bytes]:
    """The sections of a window by pack and offset, those that touch each other read as one."""
    window.sort()
    first = 0
    while first < len(window):
        behind = first + 1
        while behind < len(window) and _touch(window[behind - 1], window[behind]):
            behind += 1
        run, first = window[first:behind], behind
        at, end = run[0].start, run[-1].end
        try:
            while at < end:
                piece = packs.read(run[0].pack, at, min(PIECE, end - at))
                yield piece
                at += len(piece)
        except IntegrityError:
            yield from _one_by_one(run, at, packs, get)


def _touch(one: _Section, other: _Section) -> bool:
    return one.pack == other.pack and one.end == other.start


def _one_by_one(run: list[_Section], at: int, packs: PackStore, get: dag.Get) -> Iterator[bytes]:
    """What follows `at` in a run whose stretch cannot be read: each block by `get`, the first one's rest."""
    for section in run:
        if section.end > at:
            block = get(section.cid)
            whole = car.section_head(section.cid, len(block)) + block
            yield whole[max(at - section.start, 0) :]


def _joined(stretches: Iterable[bytes]) -> Iterator[bytes]:
    """Small ones together, large ones as they are."""
    waiting: list[bytes] = []
    size = 0
    for stretch in stretches:
        waiting.append(stretch)
        size += len(stretch)
        if size >= PIECE:
            yield stretch if len(waiting) == 1 else b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
