"""Checking a block where it lies, and writing it again: the pack is byte for byte what it was, or the block moves."""

import os

import pytest

from bridge.content import cid as cids
from bridge.content import recovery
from bridge.content.copies import PackCopy, write_again
from bridge.content.pack_format import pack_path
from bridge.content.packs import PackStore
from bridge.content.scan import scan
from bridge.errors import ContentCorrupt, ContentMissing, StorageFault
from bridge.model import Block
from tests.contract.content_store import blocks


class Archive:
    """Packs of five blocks, committed, with the copy that checks them."""

    def __init__(self, home):
        self.directory = home / "packs"
        self.index = {}
        self.trimmed = set()
        self.packs = PackStore(home, "test", self.index.get)
        self.blocks = blocks(5, 3000)
        self.moved(*self.packs.put(self.blocks))
        self.packs.sync()
        self.copy = PackCopy(self.packs, self.directory, lambda: self.trimmed, self.moved)

    def moved(self, *positions):
        self.index.update({position.cid: position for position in positions})

    def file(self, number):
        return pack_path(self.directory, self.index[self.blocks[number].cid].pack)

    def damage(self, number, at=0):
        """Flip the byte at `at` of a block."""
        path, position = self.file(number), self.index[self.blocks[number].cid]
        with path.open("r+b") as file:
            file.seek(position.offset + at)
            byte = file.read(1)
            file.seek(position.offset + at)
            file.write(bytes([byte[0] ^ 1]))


@pytest.fixture
def archive(tmp_path):
    archive = Archive(tmp_path)
    yield archive
    archive.packs.close()


@pytest.mark.parametrize("at", [0, 1500, 2999, -1, -36])
def test_a_block_written_again_leaves_the_pack_as_it_was(archive, at):
    before = archive.file(2).read_bytes()
    archive.damage(2, at)  # of the block, or of the section's head before it
    assert archive.file(2).read_bytes() != before
    with pytest.raises(ContentCorrupt):
        archive.copy.read(archive.blocks[2].cid)
    archive.copy.mend(archive.blocks[2])
    assert archive.file(2).read_bytes() == before
    assert all(whole for _, whole in scan(archive.file(2), archive.index.values()))


def test_damage_is_read_as_damage_and_what_is_mended_as_whole(archive):
    one = archive.blocks[1]
    archive.damage(1)
    assert archive.copy.holds(one.cid) and "at byte" in archive.copy.where(one.cid)
    with pytest.raises(ContentCorrupt):
        archive.copy.read(one.cid)
    archive.copy.mend(one)
    assert archive.copy.read(one.cid) == one.data


def test_a_pack_that_is_appended_to_goes_on_undisturbed(archive):
    archive.damage(4)
    archive.copy.mend(archive.blocks[4])
    more = blocks(3)
    archive.moved(*archive.packs.put(more))
    archive.packs.sync()
    assert all(archive.packs.get(cid) == data for cid, data in (*archive.blocks, *more))
    archive.packs.close()
    assert [found.clean for found in recovery.recover(archive.directory, lambda pack: 0)] == [True]


def test_a_block_whose_pack_is_lost_is_put_at_the_end_of_the_packs(archive):
    one = archive.blocks[0]
    lost = archive.file(0)
    archive.packs.close()
    lost.unlink()
    with pytest.raises(ContentMissing):
        archive.copy.read(one.cid)
    archive.copy.mend(one)
    assert archive.copy.read(one.cid) == one.data
    assert archive.file(0).exists()


def test_a_block_whose_pack_was_cut_off_before_it_is_put_at_the_end_of_the_packs(archive):
    one, position = archive.blocks[4], archive.index[archive.blocks[4].cid]
    archive.packs.close()
    os.truncate(archive.file(4), position.offset - 500)
    archive.copy.mend(one)
    assert archive.index[one.cid] != position
    assert archive.copy.read(one.cid) == one.data


def test_nothing_is_missed_in_a_pack_that_was_trimmed(archive):
    position = archive.index[archive.blocks[0].cid]
    archive.trimmed.add(position.pack)
    assert not archive.copy.holds(archive.blocks[0].cid)


def test_nothing_but_the_block_itself_is_written(archive):
    position = archive.index[archive.blocks[0].cid]
    wrong = Block(position.cid, bytes(position.length))
    with pytest.raises(ValueError, match="not the block"):
        write_again(archive.directory, position, wrong)
    with pytest.raises(ValueError, match="not the block"):
        write_again(archive.directory, position, Block(cids.make(cids.RAW, b"x"), b"x"))
    assert archive.packs.get(position.cid) == archive.blocks[0].data


def test_a_pack_that_cannot_be_written_is_a_fault(archive):
    path = archive.file(0)
    path.rename(path.with_suffix(".bak"))
    path.mkdir()
    with pytest.raises(StorageFault, match="cannot be written"):
        archive.copy.mend(archive.blocks[0])
    path.rmdir()
    path.with_suffix(".bak").rename(path)


def test_what_was_never_put_and_what_cannot_be_read_are_told_apart(archive):
    unknown = cids.make(cids.RAW, b"unknown")
    assert not archive.copy.holds(unknown) and archive.copy.where(unknown) == "packs"
    with pytest.raises(ContentMissing):
        archive.copy.read(unknown)
    path = archive.file(0)
    path.rename(path.with_suffix(".bak"))
    path.mkdir()
    with pytest.raises(ContentCorrupt, match="directory"):
        archive.copy.read(archive.blocks[0].cid)
    path.rmdir()
    path.with_suffix(".bak").rename(path)
