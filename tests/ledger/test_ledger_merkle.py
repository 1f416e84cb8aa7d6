"""The Merkle tree against RFC 6962's definitions and known vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle
from ledger.errors import ProofInvalid, TreeMismatch

# The eight inputs and roots of the reference implementation's tests (certificate-transparency, merkle_tree_test).
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(leaves: list[bytes]) -> bytes:
    """MTH, word for word from RFC 6962 section 2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(naive(leaves[:split]), naive(leaves[split:]))


def some(size: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d" % number) for number in range(size)]


def test_known_roots() -> None:
    assert merkle.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    hashes = [merkle.leaf_hash(item) for item in INPUTS]
    assert [merkle.root(hashes[: size + 1]).hex() for size in range(8)] == ROOTS


def test_known_inclusion_path() -> None:
    hashes = [merkle.leaf_hash(item) for item in INPUTS]
    path = merkle.inclusion_proof(5, 8, merkle.node_reader(hashes))
    assert [item.hex() for item in path] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.integers(0, 300))
def test_root_equals_the_naive_recursion(size: int) -> None:
    assert merkle.root(some(size)) == naive(some(size))


@given(st.integers(0, 200), st.integers(0, 200))
def test_frontier_continues_from_its_hashes(first: int, more: int) -> None:
    leaves = some(first + more)
    frontier = merkle.Frontier()
    for leaf in leaves[:first]:
        frontier.append(leaf)
    resumed = merkle.Frontier(frontier.size, frontier.hashes)
    for leaf in leaves[first:]:
        resumed.append(leaf)
    assert resumed.root() == naive(leaves)


def test_appending_tells_of_every_perfect_subtree() -> None:
    leaves = some(100)
    seen: dict[tuple[int, int], bytes] = {}
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf, lambda level, index, value: seen.setdefault((level, index), value) and None)
    assert seen == {
        (level, index): naive(leaves[index << level : (index + 1) << level])
        for level in range(7)
        for index in range(100 >> level)
    }


@pytest.mark.parametrize(("size", "hashes"), [(1, []), (3, [bytes(32)]), (2, [bytes(31)]), (-1, [])])
def test_frontier_of_wrong_shape_is_refused(size: int, hashes: list[bytes]) -> None:
    with pytest.raises(TreeMismatch):
        merkle.Frontier(size, hashes)


def test_every_inclusion_proof_of_small_trees_holds_for_its_leaf_alone() -> None:
    for size in range(1, 20):
        leaves = some(size)
        expected = naive(leaves)
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, merkle.node_reader(leaves))
            for claimed in range(size):
                if claimed == index:
                    merkle.verify_inclusion(leaves[index], index, size, proof, expected)
                else:
                    with pytest.raises(ProofInvalid):
                        merkle.verify_inclusion(leaves[index], claimed, size, proof, expected)


@given(st.integers(1, 300), st.data())
def test_a_damaged_inclusion_proof_fails(size: int, data: st.DataObject) -> None:
    leaves = some(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, merkle.node_reader(leaves))
    expected = naive(leaves)
    merkle.verify_inclusion(leaves[index], index, size, proof, expected)
    damaged = [[*proof, bytes(32)], [bytes(32), *proof]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        damaged += [proof[:-1], proof[1:], [*proof[:at], bytes(32), *proof[at + 1 :]]]
    for wrong in damaged:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(leaves[index], index, size, wrong, expected)


def test_every_consistency_proof_of_small_trees_holds() -> None:
    for new in range(20):
        leaves = some(new)
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, merkle.node_reader(leaves))
            merkle.verify_consistency(old, new, naive(leaves[:old]), naive(leaves), proof)


@given(st.integers(2, 300), st.data())
def test_a_damaged_consistency_proof_fails(new: int, data: st.DataObject) -> None:
    leaves = some(new)
    old = data.draw(st.integers(1, new - 1))
    proof = merkle.consistency_proof(old, new, merkle.node_reader(leaves))
    before, after = naive(leaves[:old]), naive(leaves)
    merkle.verify_consistency(old, new, before, after, proof)
    at = data.draw(st.integers(0, len(proof) - 1))
    wrong = [
        (old, new, bytes(32), after, proof),
        (old, new, before, bytes(32), proof),
        (old, new, before, after, proof[:-1]),
        (old, new, before, after, [*proof, bytes(32)]),
        (old, new, before, after, [*proof[:at], bytes(32), *proof[at + 1 :]]),
    ]
    for case in wrong:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(*case)


def test_proofs_for_what_does_not_exist_are_refused() -> None:
    read = merkle.node_reader(some(3))
    for refuse in (
        lambda: merkle.inclusion_proof(3, 3, read),
        lambda: merkle.inclusion_proof(-1, 3, read),
        lambda: merkle.consistency_proof(4, 3, read),
        lambda: merkle.verify_inclusion(bytes(32), 0, 0, [], bytes(32)),
        lambda: merkle.verify_consistency(0, 3, bytes(32), bytes(32), []),
        lambda: merkle.verify_consistency(2, 3, bytes(32), bytes(32), []),
    ):
        with pytest.raises(ProofInvalid):
            refuse()
