"""A tree on its way here: fetched once, taken up where it broke off, within its room, and nothing that is held."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.content import car, dag, manifest
from bridge.content import cid as cids
from bridge.content.at_hand import asks_nobody
from bridge.content.car_transfer import Car, export_car, is_held
from bridge.content.incoming import Delivered, Incoming
from bridge.content.manifest import InstanceBlock, StudyRoot
from bridge.errors import CarInvalid, ContentMissing, EngineFault, StorageFull

TAG = bytes(16)


class Blocks:
    """A store of blocks in memory."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def add(self, codec: int, data: bytes) -> bytes:
        cid = cids.make(codec, data)
        self.held[cid] = data
        return cid

    def has(self, cid: bytes) -> bool:
        return cid in self.held

    def get(self, cid: bytes) -> bytes:
        if cid not in self.held:
            raise ContentMissing("not held")
        return self.held[cid]


class Member(Blocks):
    """A member's gateway; `breaks` after so many bytes of a CAR, once."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks: int | None = None
        self.asked: list[str] = []

    def study(self, count: int) -> bytes:
        links = []
        for number in range(count):
            leaf, metadata = self.add(cids.RAW, bytes([number]) * 3000), self.add(cids.RAW, bytes([number]) * 90)
            block = InstanceBlock(TAG, 0, bytes([number]) * 16, leaf, metadata)
            links.append(self.add(cids.DAG_CBOR, manifest.encode_instance(block)))
        page = self.add(cids.DAG_CBOR, manifest.encode_page(links))
        return self.add(cids.DAG_CBOR, manifest.encode_root(StudyRoot(TAG, (page,), None)))

    def __call__(self, cid: bytes) -> bytes:
        self.asked.append("block")
        return self.get(cid)

    def tree(self, root: bytes, file: io.BytesIO, most: int) -> int:
        self.asked.append("tree")
        size = 0
        for piece in export_car(self, root):  # type: ignore[arg-type]
            if self.breaks is not None and size + len(piece) > self.breaks:
                file.write(piece[: self.breaks - size])
                self.breaks = None
                raise EngineFault("the member stopped")
            size += file.write(piece)
        return size


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def here() -> Blocks:
    return Blocks()


def opened(tmp_path: Path, root: bytes, here: Blocks, most: int = 1 << 20) -> Incoming:
    return Incoming(tmp_path / "incoming", root, here, most, lambda size: None)  # type: ignore[arg-type]


def whole(incoming: Incoming, root: bytes, here: Blocks) -> Iterator[bytes]:
    return Delivered(incoming.file, root, here).order()  # type: ignore[arg-type]


def test_a_study_of_which_nothing_is_here_comes_in_one_piece(tmp_path: Path, member: Member, here: Blocks) -> None:
    root = member.study(3)
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member)
        assert member.asked == ["tree"]
        incoming.file.seek(0)
        assert incoming.file.read() == b"".join(export_car(member, root))  # type: ignore[arg-type]
        assert list(whole(incoming, root, here)) == [cid for cid, _ in dag.order(root, member.get)]
        incoming.discard()
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("broken", [0, 10, 200, 3_400, 9_000])
def test_what_broke_off_goes_on(tmp_path: Path, member: Member, here: Blocks, broken: int) -> None:
    root = member.study(3)
    member.breaks = broken
    with opened(tmp_path, root, here) as incoming, pytest.raises(EngineFault):
        incoming.fetch(member)
    with opened(tmp_path, root, here) as incoming:
        before = incoming.size
        incoming.fetch(member)
        assert len(list(whole(incoming, root, here))) == 11
        assert before <= broken
        Car(incoming.file, root)


def test_only_what_is_missing_is_fetched(tmp_path: Path, member: Member, here: Blocks) -> None:
    former = member.study(2)
    here.held = {cid: member.get(cid) for cid, _ in dag.order(former, member.get)}
    root = member.study(3)
    here.held[root] = member.get(root)  # so that it is not fetched as one
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member)
        assert member.asked == ["block"] * 4  # page, instance, object, metadata
        assert len(list(whole(incoming, root, here))) == 11
        with pytest.raises(CarInvalid):
            Car(incoming.file, root)


def test_what_is_held_whole_needs_nobody(tmp_path: Path, member: Member, here: Blocks) -> None:
    root = member.study(1)
    here.held = dict(member.held)
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member)
        assert member.asked == []
        assert len(list(whole(incoming, root, here))) == 5


def test_beyond_its_room_it_stops_and_keeps_what_came(tmp_path: Path, member: Member, here: Blocks) -> None:
    root = member.study(3)
    with opened(tmp_path, root, here, most=7_000) as incoming, pytest.raises(StorageFull):
        incoming.fetch(member)
    assert 0 < sum(file.stat().st_size for file in (tmp_path / "incoming").iterdir()) <= 7_000
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member)
        assert len(list(whole(incoming, root, here))) == 11


def test_all_that_is_on_its_way_shares_the_room(tmp_path: Path, member: Member, here: Blocks) -> None:
    first, second = member.study(1), member.study(2)
    with opened(tmp_path, first, here) as incoming:
        incoming.fetch(member)
    with opened(tmp_path, second, here, most=4_000) as incoming, pytest.raises(StorageFull):
        incoming.fetch(member)


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path: Path, member: Member, here: Blocks) -> None:
    def refuse(size: int) -> None:
        raise StorageFull("the disk is full")

    with Incoming(tmp_path, member.study(1), here, 1 << 20, refuse) as incoming, pytest.raises(StorageFull):  # type: ignore[arg-type]
        incoming.fetch(member)


def test_a_file_that_is_not_the_trees_is_begun_anew(tmp_path: Path, member: Member, here: Blocks) -> None:
    root = member.study(1)
    file = tmp_path / "incoming" / f"{cids.to_text(root)}.car"
    file.parent.mkdir()
    for former in (b"not a CAR", car.encode_header([cids.make(cids.RAW, b"other")]), b""):
        file.write_bytes(former)
        with opened(tmp_path, root, here) as incoming:
            incoming.fetch(member)
            assert len(list(whole(incoming, root, here))) == 5


@pytest.mark.parametrize("what", ["leaf", "root"])
def test_of_a_tree_that_was_lost_nothing_counts_as_held_that_cannot_be_read(
    what: str, tmp_path: Path, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = Blocks(), member.study(2)
    here.held |= member.held
    lost = root if what == "root" else next(cid for cid in member.held if cids.parse(cid).codec == cids.RAW)
    readable = Blocks()
    readable.held = {cid: data for cid, data in member.held.items() if cid != lost}
    monkeypatch.setattr(here, "get", readable.get)  # the index knows all of them
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member, partly_held=True, doubted=True)
        assert member.asked == (["tree"] if what == "root" else ["block"])
        assert list(whole(incoming, root, here)) == [cid for cid, _ in dag.order(root, member.get)]


def test_what_another_member_has_is_not_held_here(member: Member) -> None:
    cid = member.add(cids.RAW, b"elsewhere")

    class Beside(Blocks):
        """The index names the block, its pack is gone, and another member gives it."""

        def has(self, cid: bytes) -> bool:
            return True

        def get(self, cid: bytes) -> bytes:
            return super().get(cid) if asks_nobody() else member.get(cid)

    here = Beside()
    assert here.get(cid) == b"elsewhere"
    assert not is_held(here, cid)  # type: ignore[arg-type]
    here.held[cid] = b"elsewhere"
    assert is_held(here, cid)  # type: ignore[arg-type]


def test_a_block_that_is_lost_here_after_the_rest_was_fetched_is_fetched_the_next_time(
    tmp_path: Path, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, root = Blocks(), member.study(2)
    here.held |= member.held
    with opened(tmp_path, root, here) as incoming:
        incoming.fetch(member, partly_held=True)
        assert member.asked == []
        lost = Blocks()
        monkeypatch.setattr(here, "get", lost.get)  # the index knows the blocks; their pack is gone
        with pytest.raises(ContentMissing):
            list(whole(incoming, root, here))
        incoming.fetch(member, partly_held=True)
        assert member.asked == ["block"] * 4  # root, page, instances
        assert list(whole(incoming, root, here)) == [cid for cid, _ in dag.order(root, member.get)]
        with pytest.raises(CarInvalid):  # what is neither there nor known here
            Delivered(incoming.file, root, here).get(cids.make(cids.RAW, b"unknown"))  # type: ignore[arg-type]
