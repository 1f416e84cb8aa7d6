"""The layout against Kubo's own CIDs (tests/data/ipfs) and the vectors of IPIP-499."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given
from hypothesis import strategies as st

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.errors import ContentCorrupt

VECTORS = json.loads((Path(__file__).parents[2] / "data/ipfs/unixfs.json").read_text())["vectors"]
SMALL = [vector for vector in VECTORS if vector["size"] < 1 << 30]
LARGE = [vector for vector in VECTORS if vector["size"] >= 1 << 30]
MIB = 1 << 20


def build(data, hash):
    builder = unixfs.TreeBuilder(hash)
    blocks = {}
    for at in range(0, len(data), MIB):
        blocks.update(builder.leaf(data[at : at + MIB]))
    root, rest = builder.finish()
    blocks.update(rest)
    return root, blocks


@pytest.mark.parametrize("hash", ["sha2-256", "blake3"])
@pytest.mark.parametrize("vector", SMALL, ids=lambda vector: str(vector["size"]))
def test_roots_are_those_of_kubo(vector, hash):
    data = hashlib.shake_128(b"cairn-golden-%d" % vector["size"]).digest(vector["size"])
    root, blocks = build(data, hash)
    assert cids.to_text(root) == vector[hash]
    assert all(cids.verify(cid, block) for cid, block in blocks.items())
    assert unixfs.size_of(root, blocks.__getitem__) == len(data)
    found = list(unixfs.leaves(root, blocks.__getitem__, len(data)))
    assert b"".join(blocks[leaf.cid] for leaf in found) == data


def keystream(seed, size):
    """IPIP-499: the ChaCha20 keystream under SHA-256(seed) and a zero nonce, 1 MiB at a time."""
    encryptor = Cipher(algorithms.ChaCha20(hashlib.sha256(seed).digest(), bytes(16)), mode=None).encryptor()
    zeros = bytes(MIB)
    for at in range(0, size, MIB):
        yield encryptor.update(zeros[: min(MIB, size - at)])


def root_of(pieces, hash="sha2-256"):
    builder = unixfs.TreeBuilder(hash)
    for piece in pieces:
        builder.link(cids.make(cids.RAW, piece, hash), len(piece))
    return builder.finish()[0]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"hello world"], "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
        (keystream(b"chunk-v1-seed", MIB), "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
        (keystream(b"chunk-v1-seed", MIB + 1), "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
    ],
)
def test_roots_are_those_of_ipip_499(pieces, expected):
    assert cids.to_text(root_of(pieces)) == expected


def test_one_and_two_levels_of_1_gib_are_those_of_ipip_499():
    """One pass over the keystream serves both vectors, as they share the first 1,024 leaves."""
    one, two = unixfs.TreeBuilder("sha2-256"), unixfs.TreeBuilder("sha2-256")
    for piece in keystream(b"v1-2025-seed", (1 << 30) + 1):
        cid = cids.make(cids.RAW, piece, "sha2-256")
        two.link(cid, len(piece))
        if len(piece) == MIB:
            one.link(cid, MIB)
    assert cids.to_text(one.finish()[0]) == "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm"
    assert cids.to_text(two.finish()[0]) == "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe"


@pytest.mark.parametrize("vector", LARGE, ids=lambda vector: str(vector["size"]))
def test_roots_of_1_gib_under_blake3_are_those_of_kubo(vector):
    """shake_128 gives its bytes only at once, so the leaves' digests were taken once and are kept as data."""
    digests = (Path(__file__).parents[2] / f"data/ipfs/leaves-{vector['size']}.blake3").read_bytes()
    builder = unixfs.TreeBuilder("blake3")
    for number in range(-(-vector["size"] // MIB)):
        cid = bytes((1, cids.RAW, cids.BLAKE3, 32)) + digests[number * 32 : number * 32 + 32]
        builder.link(cid, min(MIB, vector["size"] - number * MIB))
    assert cids.to_text(builder.finish()[0]) == vector["blake3"]


def hollow(size):
    """A tree of `size` bytes over made-up leaves: its root, its nodes, its leaves' CIDs."""
    builder = unixfs.TreeBuilder()
    nodes, names = {}, []
    for number in range(-(-size // MIB)):
        names.append(cids.make(cids.RAW, b"%d" % number))
        nodes.update(builder.link(names[-1], min(MIB, size - number * MIB)))
    root, rest = builder.finish()
    nodes.update(rest)
    return root, nodes, names


DEEP_SIZE = 2050 * MIB + 5
DEEP = hollow(DEEP_SIZE)


@given(st.integers(0, DEEP_SIZE), st.integers(0, 3 * MIB))
def test_a_range_names_exactly_its_leaves_and_reads_only_the_nodes_above_them(start, length):
    root, nodes, names = DEEP
    stop = min(start + length, DEEP_SIZE)
    read = []

    def get(cid):
        read.append(cid)
        return nodes[cid]

    found = list(unixfs.leaves(root, get, DEEP_SIZE, start, stop))
    expected = range(start // MIB, -(-stop // MIB)) if stop > start else range(0)
    assert [leaf.number for leaf in found] == list(expected)
    assert [leaf.cid for leaf in found] == [names[number] for number in expected]
    assert all(leaf.offset == leaf.number * MIB for leaf in found)
    assert len(read) <= 3


@given(st.integers(0, len(DEEP[1][DEEP[0]]) * 8 - 1))
def test_a_node_with_any_flipped_bit_is_refused_or_names_other_leaves(bit):
    root, nodes, _ = DEEP
    damaged = bytearray(nodes[root])
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        children = unixfs.decode_node(bytes(damaged))
    except ValueError:
        return
    assert unixfs.encode_node(children) == damaged
    assert children != unixfs.decode_node(nodes[root])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_break_the_node_parser(data):
    try:
        children = unixfs.decode_node(data)
    except ValueError:
        return
    assert unixfs.encode_node(children) == data


def test_a_tree_laid_out_for_another_size_is_corrupt():
    root, nodes, _ = DEEP
    for size in (DEEP_SIZE - 1, DEEP_SIZE + MIB, 5, 1 << 62):
        with pytest.raises(ContentCorrupt):
            list(unixfs.leaves(root, nodes.__getitem__, size))


def test_a_node_that_names_itself_is_corrupt_not_endless():
    child = unixfs.Child(DEEP[0], MIB, MIB)
    node = unixfs.encode_node([child, child])
    cid = cids.make(cids.DAG_PB, node)
    with pytest.raises(ContentCorrupt):
        list(unixfs.leaves(cid, {cid: node}.__getitem__, 2 * MIB))


@pytest.mark.parametrize("sizes", [(0,), (MIB + 1,), (5, 5)])
def test_leaves_of_another_size_are_not_taken(sizes):
    builder = unixfs.TreeBuilder()
    with pytest.raises(ValueError, match="leaves"):
        for size in sizes:
            builder.leaf(bytes(size))
