"""Blocks read where the index says they lie: asked for many at once, and got by their CID when that is not so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bridge.content import car
from bridge.content import cid as cids
from bridge.content.located import MANY, Located
from bridge.content.packs import PackStore
from bridge.errors import ContentCorrupt, ContentMissing
from bridge.model import Block, BlockPosition


class Index:
    """What an index would say, counting how often it was asked."""

    def __init__(self) -> None:
        self.places: dict[bytes, BlockPosition] = {}
        self.asked = 0

    def positions(self, blocks: Iterable[bytes]) -> dict[bytes, BlockPosition]:
        self.asked += 1
        return {cid: self.places[cid] for cid in blocks if cid in self.places}


@pytest.fixture
def packs(tmp_path: Path) -> Iterator[PackStore]:
    store = PackStore(tmp_path, "owner", lambda cid: None)
    yield store
    store.close()


@pytest.fixture
def index() -> Index:
    return Index()


def put(packs: PackStore, index: Index, count: int) -> list[Block]:
    blocks = [Block(cids.make(cids.RAW, data), data) for data in (bytes([at]) * 3000 for at in range(count))]
    index.places = {position.cid: position for position in packs.put(blocks)}
    return blocks


def nothing(cid: bytes) -> bytes:
    raise ContentMissing("not held")


def test_many_blocks_are_asked_for_once_and_each_is_read_where_it_lies(packs: PackStore, index: Index) -> None:
    blocks = put(packs, index, MANY)
    located = Located(packs, index.positions, nothing)
    located.told([block.cid for block in blocks])
    assert index.asked == 1 and located.size(blocks[0].cid) == 3000
    assert [located.get(block.cid) for block in blocks] == [block.data for block in blocks]
    assert located.size(blocks[0].cid) is None
    located.told([block.cid for block in blocks[1:]])
    assert index.asked == 1


def test_a_section_is_the_one_that_a_car_holds(packs: PackStore, index: Index) -> None:
    (block,) = put(packs, index, 1)
    whole = car.section_head(block.cid, 3000) + block.data
    located = Located(packs, index.positions, nothing)
    located.learn([block.cid])
    assert located.section(block.cid) == located.section(block.cid, bytes(block.data)) == whole
    assert Located(packs, index.positions, packs.get).section(block.cid) == whole


def test_what_does_not_lie_where_it_is_said_to_is_got_by_its_cid(packs: PackStore, index: Index) -> None:
    one, other = put(packs, index, 2)
    wrong = index.places[other.cid]._replace(cid=one.cid)
    gone = index.places[one.cid]._replace(pack=7)
    beyond = index.places[one.cid]._replace(offset=1 << 20)
    for position in (wrong, gone, beyond):
        index.places[one.cid] = position
        for read in (Located.get, Located.section):
            located = Located(packs, index.positions, packs.get)
            located.learn([one.cid])
            assert bytes(read(located, one.cid)).endswith(one.data)


def test_a_damaged_block_is_never_given(packs: PackStore, index: Index, tmp_path: Path) -> None:
    (block,) = put(packs, index, 1)
    (path,) = (tmp_path / "packs").glob("*.car")
    place = index.places[block.cid]
    for at in (place.offset - 1, place.offset, place.offset + place.length - 1):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        for read in (Located.get, Located.section):
            if read is Located.get and at < place.offset:
                continue  # the head is read for a section alone
            located = Located(packs, index.positions, nothing)
            located.learn([block.cid])
            with pytest.raises((ContentMissing, ContentCorrupt)):
                read(located, block.cid)
        data[at] ^= 1
        path.write_bytes(data)
