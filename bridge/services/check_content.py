"""Reading a tree of blocks back from every copy of it that this node answers for, and mending what is not whole.

(1) a block is read from each copy that ought to hold it, and verified against its CID each time
(2) where one copy fails, the bytes of another take its place; where all fail, those of any other source
(3) the block written anew is read back
(4) what it links to follows; what lies below a block that nobody has cannot be checked, and is said so
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.copies import Copy
from bridge.errors import CairnError, ContentCorrupt, ContentMissing
from bridge.model import Block

__all__ = ["Checked", "ContentFinding", "check_tree"]

NOWHERE: Final = "nowhere"
Elsewhere = Callable[[bytes], bytes]
"""The verified block of a CID from any further source. Raises ContentMissing, ContentCorrupt, EngineFault."""


class ContentFinding(NamedTuple):
    """One copy of a block that was not whole: the block, where it lay, what was wrong, what mended it ("": nothing)."""

    block: bytes
    place: str
    what: str
    mended: str


class Checked(NamedTuple):
    """One block that was looked at: its CID, how many bytes were read of all its copies, what was found.

    `lost`: nobody has it.
    """

    cid: bytes
    octets: int
    findings: tuple[ContentFinding, ...] = ()
    lost: bool = False


def check_tree(
    root: bytes,
    copies: Sequence[Copy],
    elsewhere: Elsewhere,
    wanted: Callable[[bytes, int], bool] = lambda cid, depth: True,
) -> Iterator[Checked]:
    """(1) to (4) for every block of the tree, one at a time, depth first; those met again are not read again.

    Parameters
    ----------
    copies
        Those that ought to hold the tree.
    elsewhere
        Asked for a block that none of them has whole.
    wanted
        Asked for each link with its depth below the root (pages 1, instances 2): False leaves it out with all below it.

    Holds the CIDs of the blocks with links that it has passed. Raises EngineFault when a copy is not to be had.
    """
    seen: set[bytes] = set()
    ahead: list[Iterator[bytes]] = [iter((root,))]
    while ahead:
        cid = next(ahead[-1], None)
        if cid is None:
            ahead.pop()
            continue
        parts = cids.parse(cid)
        if cid in seen or parts.hash == cids.IDENTITY or not wanted(cid, len(ahead) - 1):
            continue
        checked, data = _check(cid, copies, elsewhere)
        if parts.codec != cids.RAW:
            seen.add(cid)
            if data is not None:
                try:
                    ahead.append(iter(dag.links(cid, data)))
                except ContentCorrupt as error:
                    finding = ContentFinding(cid, "its tree", f"{error.detail}; below it nothing was checked", "")
                    checked = checked._replace(findings=(*checked.findings, finding))
        yield checked


def _check(cid: bytes, copies: Sequence[Copy], elsewhere: Elsewhere) -> tuple[Checked, bytes | None]:
    """(1), (2) One block; its bytes, None when nobody has it."""
    data, source, octets = None, "", 0
    failed: list[tuple[Copy, str, str]] = []
    for copy in copies:
        if not copy.holds(cid):
            continue
        where = copy.where(cid)
        try:
            read = copy.read(cid)
        except ContentMissing:
            if copy.holds(cid):  # and was not trimmed meanwhile
                failed.append((copy, where, "missing"))
        except ContentCorrupt:
            failed.append((copy, where, "damaged"))
        else:
            octets += len(read)
            data, source = read, source or copy.name
    if data is not None and not failed:
        return Checked(cid, octets), data
    if data is None:
        data, source = _from_elsewhere(cid, elsewhere)
    if not failed:  # no copy ought to hold it: who has it is another's, and mends nothing here
        return Checked(cid, octets, () if data else (ContentFinding(cid, NOWHERE, "missing", ""),), data is None), data
    findings = tuple(_mended(copy, where, what, cid, data, source) for copy, where, what in failed)
    return Checked(cid, octets, findings, data is None), data


def _from_elsewhere(cid: bytes, elsewhere: Elsewhere) -> tuple[bytes | None, str]:
    try:
        return elsewhere(cid), "another source"
    except CairnError:
        return None, ""


def _mended(copy: Copy, where: str, what: str, cid: bytes, data: bytes | None, source: str) -> ContentFinding:
    """(2), (3)"""
    if data is None:
        return ContentFinding(cid, where, what, "")
    try:
        copy.mend(Block(cid, data))
        copy.read(cid)
    except CairnError as error:
        return ContentFinding(cid, where, f"{what}, and could not be mended: {error.detail}", "")
    return ContentFinding(cid, where, what, source)
