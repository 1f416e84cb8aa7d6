"""The Merkle tree of RFC 6962 section 2.1 and RFC 9162 section 2.1, with SHA-256.

Indices count from 0. A frontier is the compact range of a tree: the roots of its perfect subtrees from the largest
(leftmost) to the smallest, one for each bit set in its size. Proofs are lists of 32-byte hashes from the leaf up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from ledger.errors import ProofInvalid, TreeMismatch

HASH_SIZE = 32  # bytes

#: Reads a perfect subtree's root: (level, index) -> hash over leaves [index << level, (index + 1) << level).
NodeReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data): RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): RFC 6962 section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """The tree hash over leaf hashes in order; over none, SHA-256 of nothing."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


class Frontier:
    """A compact range from 0: what is needed to append leaves and to say the root, in O(log n) space.

    Raises TreeMismatch when `hashes` are not one 32-byte hash per bit set in `size`.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if size < 0 or len(hashes) != size.bit_count() or any(len(item) != HASH_SIZE for item in hashes):
            raise TreeMismatch(f"{len(hashes)} hashes are not the frontier of {size} leaves", "frontier")
        self.size = size
        self._hashes = list(hashes)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._hashes)

    def append(self, leaf: bytes, visit: Callable[[int, int, bytes], None] | None = None) -> None:
        """Add one leaf hash; `visit(level, index, hash)` is told of the leaf and each perfect subtree it completes."""
        self.join(0, leaf, visit)

    def join(self, level: int, subtree: bytes, visit: Callable[[int, int, bytes], None] | None = None) -> None:
        """Add a perfect subtree of 2**level leaves by its root; tells `visit` of it and of those it completes.

        Raises TreeMismatch unless the size is a multiple of its leaves.
        """
        if self.size & (1 << level) - 1:
            raise TreeMismatch(f"no subtree of level {level} begins at leaf {self.size}", "frontier")
        index, current = self.size >> level, subtree
        self.size += 1 << level
        if visit:
            visit(level, index, current)
        while index & 1:
            current = node_hash(self._hashes.pop(), current)
            index >>= 1
            level += 1
            if visit:
                visit(level, index, current)
        self._hashes.append(current)

    def root(self) -> bytes:
        """The tree hash: RFC 9162 section 2.1.1."""
        if not self._hashes:
            return EMPTY_ROOT
        current = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            current = node_hash(left, current)
        return current

    def copy(self) -> Frontier:
        """An independent copy."""
        return Frontier(self.size, self._hashes)


def node_reader(leaves: Sequence[bytes]) -> NodeReader:
    """A reader over leaf hashes held in memory; recomputes each subtree."""

    def read(level: int, index: int) -> bytes:
        return root(leaves[index << level : (index + 1) << level])

    return read


def _cover(start: int, end: int) -> list[tuple[int, int]]:
    """The perfect subtrees (level, index) that the range [start, end) falls into, left to right; start is aligned."""
    cover = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        cover.append((level, start >> level))
        start += 1 << level
    return cover


def _range_root(start: int, end: int, read: NodeReader) -> bytes:
    """The tree hash over leaves [start, end), where start is a multiple of the largest power of two in the range."""
    hashes = [read(level, index) for level, index in _cover(start, end)]
    current = hashes.pop()
    while hashes:
        current = node_hash(hashes.pop(), current)
    return current


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1; raises ProofInvalid unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < middle:
            proof.append(_range_root(middle, end, read))
            end = middle
        else:
            proof.append(_range_root(start, middle, read))
            start = middle
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> None:
    """Raise ProofInvalid unless the proof leads from the leaf hash to the root: RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of {size}")
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("the inclusion proof is too long")
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            current = node_hash(current, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofInvalid("the inclusion proof is too short")
    if current != expected:
        raise ProofInvalid("the inclusion proof leads to another root")


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2, empty when old is 0 or equals new.

    Raises ProofInvalid unless 0 <= old <= new.
    """
    if not 0 <= old <= new:
        raise ProofInvalid(f"no tree of {old} before one of {new}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= middle:
            proof.append(_range_root(middle, end, read))
            end = middle
        else:
            proof.append(_range_root(start, middle, read))
            start, whole = middle, False
    # The old root itself is known to the verifier when the old tree is a whole left subtree.
    if not whole:
        proof.append(_range_root(start, end, read))
    return proof[::-1]


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ProofInvalid unless the proof shows that the old tree is a prefix of the new: RFC 9162 section 2.1.4.2."""
    if not 0 <= old <= new:
        raise ProofInvalid(f"no tree of {old} before one of {new}")
    if old in (0, new):
        if proof or (old == 0 and old_root != EMPTY_ROOT) or (old == new and old_root != new_root):
            raise ProofInvalid("trees of these sizes are not consistent")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofInvalid("the consistency proof is empty")
    position, last = old - 1, new - 1
    while position & 1:
        position >>= 1
        last >>= 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("the consistency proof is too long")
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            second = node_hash(second, sibling)
        position >>= 1
        last >>= 1
    if last != 0 or first != old_root or second != new_root:
        raise ProofInvalid("the consistency proof leads to other roots")
