"""Reading a tree back: every copy of every block, mended from each other; what is lost is told, the rest goes on."""

from __future__ import annotations

import os

import pytest

from bridge.content import cid as cids
from bridge.content import manifest, unixfs
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault, StorageFault
from bridge.model import Block, StudyTree
from bridge.services.check_content import Checked, ContentFinding, check_tree

TAG = bytes(16)


class MemoryCopy:
    """Blocks in a dictionary; a damaged one is read as such."""

    def __init__(self, name: str, blocks: dict[bytes, bytes]) -> None:
        self.name = name
        self.blocks = dict(blocks)
        self.read_only = self.down = False
        self.reads: list[bytes] = []

    def holds(self, cid: bytes) -> bool:
        return True

    def where(self, cid: bytes) -> str:
        return self.name

    def read(self, cid: bytes) -> bytes:
        self.reads.append(cid)
        if self.down:
            raise EngineFault("down")
        if cid not in self.blocks:
            raise ContentMissing("not held")
        if not cids.verify(cid, self.blocks[cid]):
            raise ContentCorrupt("damaged")
        return self.blocks[cid]

    def mend(self, block: Block) -> None:
        if self.read_only:
            raise StorageFault("read-only")
        self.blocks[block.cid] = bytes(block.data)


class Study:
    """Three instances: two of one leaf, one of three leaves below a node."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.instances, self.leaves = [], []
        for number, size in enumerate((100, 200, (2 << 20) + 5)):
            builder = unixfs.TreeBuilder()
            data = os.urandom(size)
            made = [block for at in range(0, size, 1 << 20) for block in builder.leaf(data[at : at + (1 << 20)])]
            self.leaves += [block.cid for block in made]
            root, rest = builder.finish()
            metadata = cids.make(cids.RAW, bytes([number]))
            self.blocks |= {block.cid: bytes(block.data) for block in (*made, *rest)} | {metadata: bytes([number])}
            link = manifest.encode_instance(manifest.InstanceBlock(TAG, 1, bytes([number]) * 16, root, metadata))
            self.instances.append(cids.make(cids.DAG_CBOR, link))
            self.blocks[self.instances[-1]] = link
        grown = manifest.grow(StudyTree(TAG, None, (), 0, tuple(self.instances)))
        self.blocks |= {block.cid: bytes(block.data) for block in grown.blocks}
        self.root, self.page = grown.root, grown.pages[0]


@pytest.fixture
def study() -> Study:
    return Study()


def nowhere(cid: bytes) -> bytes:
    raise ContentMissing("nowhere")


def findings(checked: list[Checked]) -> list[ContentFinding]:
    return [finding for one in checked for finding in one.findings]


def test_every_block_is_read_once_from_every_copy(study: Study) -> None:
    packs, kubo = MemoryCopy("packs", study.blocks), MemoryCopy("kubo", study.blocks)
    checked = list(check_tree(study.root, [packs, kubo], nowhere))
    assert sorted(packs.reads) == sorted(kubo.reads) == sorted(study.blocks)
    assert findings(checked) == [] and sum(one.octets for one in checked) == 2 * sum(map(len, study.blocks.values()))


def test_each_block_may_be_damaged_in_one_copy_and_missing_in_the_other_but_not_both(study: Study) -> None:
    for place, cid in enumerate(study.blocks):
        packs, kubo = MemoryCopy("packs", study.blocks), MemoryCopy("kubo", study.blocks)
        bad, good = (packs, kubo) if place % 2 else (kubo, packs)
        bad.blocks[cid] = study.blocks[cid][:-1] + bytes([study.blocks[cid][-1] ^ 1])
        assert findings(list(check_tree(study.root, [packs, kubo], nowhere))) == [(cid, bad.name, "damaged", good.name)]
        del bad.blocks[cid]
        assert findings(list(check_tree(study.root, [packs, kubo], nowhere))) == [(cid, bad.name, "missing", good.name)]
        assert bad.blocks == study.blocks
        assert findings(list(check_tree(study.root, [packs, kubo], nowhere))) == []


def test_what_no_copy_has_comes_from_elsewhere(study: Study) -> None:
    packs = MemoryCopy("packs", {})
    checked = list(check_tree(study.root, [packs], study.blocks.__getitem__))
    assert packs.blocks == study.blocks and not any(one.lost for one in checked)
    assert {finding[2:] for finding in findings(checked)} == {("missing", "another source")}


def test_a_lost_leaf_is_told_and_the_rest_goes_on(study: Study) -> None:
    lost = study.leaves[2]
    packs = MemoryCopy("packs", {cid: data for cid, data in study.blocks.items() if cid != lost})
    checked = list(check_tree(study.root, [packs], nowhere))
    assert [one.cid for one in checked if one.lost] == [lost] and len(checked) == len(study.blocks)


def test_below_a_lost_page_nothing_is_claimed(study: Study) -> None:
    packs = MemoryCopy("packs", {cid: data for cid, data in study.blocks.items() if cid != study.page})
    checked = list(check_tree(study.root, [packs], nowhere))
    assert [(one.cid, one.lost) for one in checked] == [(study.root, False), (study.page, True)]


def test_what_cannot_be_mended_is_told_with_the_reason(study: Study) -> None:
    packs, kubo = MemoryCopy("packs", study.blocks), MemoryCopy("kubo", study.blocks)
    del packs.blocks[study.page]
    packs.read_only = True
    checked = list(check_tree(study.root, [packs, kubo], nowhere))
    assert findings(checked) == [(study.page, "packs", "missing, and could not be mended: read-only", "")]
    assert not any(one.lost for one in checked)


def test_an_engine_that_is_down_is_no_finding(study: Study) -> None:
    packs, kubo = MemoryCopy("packs", study.blocks), MemoryCopy("kubo", study.blocks)
    kubo.down = True
    with pytest.raises(EngineFault):
        list(check_tree(study.root, [packs, kubo], nowhere))
    assert packs.blocks == study.blocks


def test_what_is_not_wanted_is_left_out_with_all_below_it(study: Study) -> None:
    packs = MemoryCopy("packs", study.blocks)
    kept = study.instances[0]
    list(check_tree(study.root, [packs], nowhere, lambda cid, depth: depth != 2 or cid == kept))
    assert len(packs.reads) == 5 and kept in packs.reads and study.instances[1] not in packs.reads


def test_a_node_that_is_none_of_our_layout_is_a_finding(study: Study) -> None:
    odd = b"\x12\x00"
    cid = cids.make(cids.DAG_PB, odd)
    (checked,) = check_tree(cid, [MemoryCopy("packs", {cid: odd})], nowhere)
    assert "no links" in checked.findings[0].what and not checked.lost
