import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.errors import ContentCorrupt
from bridge.model import StudyTree

tags = st.binary(min_size=16, max_size=16)
roots = st.builds(cids.make, st.sampled_from([cids.RAW, cids.DAG_PB, cids.DAG_CBOR]), st.binary(max_size=8))
instances = st.builds(manifest.InstanceBlock, tags, st.integers(0, 2**32 - 1), tags, roots, roots)
TAG = bytes(range(16))


@given(instances)
def test_an_instance_block_is_canonical_dag_cbor(instance):
    data = manifest.encode_instance(instance)
    study, generation, tag, sealed, metadata = instance
    links = {"d": CID.decode(sealed), "x": CID.decode(metadata)}
    assert data == dag_cbor.encode({"v": 1, "s": study, "g": generation, "i": tag, **links})
    assert manifest.decode_instance(data) == instance


@given(st.lists(roots, max_size=30))
def test_a_page_is_canonical_dag_cbor(links):
    data = manifest.encode_page(links)
    assert data == dag_cbor.encode({"v": 1, "i": [CID.decode(link) for link in links]})
    assert manifest.decode_page(data) == tuple(links)


@given(tags, st.lists(roots, max_size=30), st.none() | roots)
def test_a_study_root_is_canonical_dag_cbor_and_names_its_past_as_bytes(tag, pages, previous):
    data = manifest.encode_root(manifest.StudyRoot(tag, tuple(pages), previous))
    assert data == dag_cbor.encode({"v": 1, "s": tag, "p": [CID.decode(page) for page in pages], "prev": previous})
    assert manifest.decode_root(data) == manifest.StudyRoot(tag, tuple(pages), previous)


DECODERS = [manifest.decode_instance, manifest.decode_page, manifest.decode_root]
ENCODED = [
    manifest.encode_instance(manifest.InstanceBlock(TAG, 3, TAG, cids.make(cids.RAW, b"a"), cids.make(cids.RAW, b"b"))),
    manifest.encode_page([cids.make(cids.DAG_CBOR, b"a")]),
    manifest.encode_root(manifest.StudyRoot(TAG, (cids.make(cids.DAG_CBOR, b"a"),), cids.make(cids.DAG_CBOR, b"b"))),
]


@given(st.sampled_from(range(3)), st.data())
def test_a_flipped_bit_is_refused_or_is_another_value_canonically_written(which, data):
    raw = bytearray(ENCODED[which])
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        found = DECODERS[which](bytes(raw))
    except ContentCorrupt:
        return
    assert found != DECODERS[which](ENCODED[which])
    dag_cbor.decode(bytes(raw))


@given(st.sampled_from(DECODERS), st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(decode, data):
    with pytest.raises(ContentCorrupt):
        decode(data)


LINK = CID.decode(cids.make(cids.RAW, b"a"))


@pytest.mark.parametrize(
    ("decode", "value"),
    [
        (manifest.decode_page, {"v": 1, "i": [LINK] * 1001}),
        (manifest.decode_page, {"v": 1, "i": [b"\0" + bytes(LINK)]}),
        (manifest.decode_page, {"v": 2, "i": []}),
        (manifest.decode_page, {"v": True, "i": []}),
        (manifest.decode_page, {"v": 1, "i": {}}),
        (manifest.decode_page, {"v": 1, "i": [], "n": 0}),
        (manifest.decode_root, {"v": 1, "s": TAG, "p": [], "prev": LINK}),
        (manifest.decode_root, {"v": 1, "s": TAG[:15], "p": [], "prev": None}),
        (manifest.decode_instance, {"v": 1, "s": TAG, "g": 2**32, "i": TAG, "d": LINK, "x": LINK}),
        (manifest.decode_instance, {"v": 1, "s": TAG, "g": -1, "i": TAG, "d": LINK, "x": LINK}),
        (manifest.decode_instance, {"v": 1, "s": TAG, "g": 0, "i": TAG, "d": LINK}),
    ],
)
def test_values_of_another_shape_are_corrupt(decode, value):
    with pytest.raises(ContentCorrupt):
        decode(dag_cbor.encode(value))


@pytest.mark.parametrize("tail", [b"\0", b"\xf6"])
def test_bytes_behind_a_block_are_corrupt(tail):
    for decode, raw in zip(DECODERS, ENCODED, strict=True):
        with pytest.raises(ContentCorrupt):
            decode(raw + tail)


def test_a_page_beyond_1000_links_is_not_written():
    with pytest.raises(ValueError, match="1000"):
        manifest.encode_page([cids.make(cids.RAW, b"")] * 1001)


def links(count):
    return tuple(cids.make(cids.DAG_CBOR, b"%d" % number) for number in range(count))


@given(st.lists(st.integers(1, 1700), min_size=1, max_size=4))
def test_growing_in_steps_names_every_instance_in_order_and_touches_only_the_last_pages(steps):
    tree = StudyTree(TAG, None, (), 0, ())
    blocks = {}
    for step in steps:
        tree = tree._replace(instances=links(len(tree.instances) + step))
        grown = manifest.grow(tree)
        assert grown.pages[: tree.covered // 1000] == tree.pages[: tree.covered // 1000]
        assert len(grown.blocks) == 1 + len(grown.pages) - tree.covered // 1000
        blocks.update(grown.blocks)
        root = manifest.decode_root(blocks[grown.root])
        assert root == manifest.StudyRoot(TAG, grown.pages, tree.root)
        pages = [manifest.decode_page(blocks[page]) for page in root.pages]
        assert all(len(page) == 1000 for page in pages[:-1])
        assert tuple(link for page in pages for link in page) == tree.instances
        tree = StudyTree(TAG, grown.root, grown.pages, grown.covered, tree.instances)
    assert all(cids.verify(cid, data) for cid, data in blocks.items())
    assert manifest.grow(tree) == manifest.StudyGrowth((), tree.root, tree.pages, tree.covered)


@pytest.mark.parametrize(("covered", "pages"), [(1, 0), (0, 1), (3, 1), (-1, 0)])
def test_a_tree_whose_numbers_contradict_each_other_is_not_grown(covered, pages):
    with pytest.raises(ValueError, match="contradict"):
        manifest.grow(StudyTree(TAG, None, links(pages), covered, links(2)))
