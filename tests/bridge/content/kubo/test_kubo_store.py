"""The Kubo engine: the contract of content stores against a real Kubo, and what it alone does."""

import io
import threading

import pytest

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content import dag, unixfs
from bridge.content.cache import DiskCache
from bridge.content.car import CarReader
from bridge.content.kubo import rpc as kubo_rpc
from bridge.content.kubo import store as kubo_store
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import Rpc
from bridge.content.kubo.store import KuboStore
from bridge.content.packs import PackStore
from bridge.content.pins import MemoryPins
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.model import Block
from tests.contract.content_store import ContentStoreContract, Study, block, blocks, file_of, node_of
from tests.node.running_node import free_ports


class TestKuboStore(ContentStoreContract):
    @pytest.fixture
    def environment(self, kubo):
        return {
            "CAIRN_CONTENT__ENGINE": "kubo",
            "CAIRN_CONTENT__KUBO__API": kubo.api,
            "CAIRN_CONTENT__KUBO__TIMEOUT_S": "30",
        }


class RecordingRpc(Rpc):
    """An Rpc that keeps what was sent in imports, and counts the blocks that were read."""

    def __init__(self, kubo):
        super().__init__(kubo)
        self.cars = []
        self.read = []

    def import_car(self, root, pieces, timeout_s):
        self.cars.append(b"")

        def kept():
            for piece in pieces:
                self.cars[-1] += piece
                yield piece

        super().import_car(root, kept(), timeout_s)

    def block(self, cid, network_s=None):
        self.read.append(cid)
        return super().block(cid, network_s)

    def sent(self):
        """The blocks of each import, as sets of CIDs."""
        return [{one.cid for one in CarReader(io.BytesIO(data).read)} for data in self.cars]


class Archive:
    """A Kubo engine whose index is a dictionary that outlives packs."""

    def __init__(self, home, api, timeout_s=10, sources=()):
        kubo = Kubo(api=api)
        self.home = home
        self.rows = {}
        self.pins = MemoryPins()
        self.rpc = RecordingRpc(kubo)
        self.control = Control(kubo)
        self.cache = DiskCache(home / "cache", 1 << 30)
        self.packs = PackStore(home, "test", self.rows.get)
        self.store = KuboStore(
            self.packs, self.pins, self.cache, self.rpc, self.control, timeout_s, sources, clock=lambda: 7
        )

    def take(self, given):
        positions = self.store.put(given)
        self.store.sync()
        self.rows.update({position.cid: position for position in positions})
        return given

    def lose_packs(self):
        """What trimming does to all packs: the files go, the positions stay."""
        for path in (self.home / "packs").iterdir():
            path.unlink()
        self.packs.release_removed()

    def damage(self, cid):
        """Flip a byte of a block where it lies in its pack."""
        position = self.packs.position(cid)
        with (self.home / f"packs/{position.pack:08d}.car").open("r+b") as file:
            file.seek(position.offset)
            byte = file.read(1)[0]
            file.seek(position.offset)
            file.write(bytes([byte ^ 1]))

    def close(self):
        self.store.close()


@pytest.fixture
def archive(tmp_path, kubo):
    archive = Archive(tmp_path / "home", kubo.api)
    yield archive
    archive.close()


@pytest.fixture
def cut_off(tmp_path):
    """An archive whose Kubo is not there."""
    archive = Archive(tmp_path / "home", f"http://127.0.0.1:{free_ports(1)[0]}")
    yield archive
    archive.close()


def grown(archive, count=4):
    """A study that was pinned and has grown since: the study, its former root, the blocks that are new."""
    study = Study()
    archive.take(study.add(count))
    archive.store.pin(study.root)
    former = study.root
    return study, former, archive.take(study.add(2))


# what is sent


def test_of_a_study_that_grew_only_what_is_new_is_sent(archive):
    study, former, new = grown(archive)
    archive.store.pin(study.root, replaces=former)
    assert archive.rpc.sent()[1:] == [{one.cid for one in new}]
    assert archive.rpc.lacks_nothing(study.root, 10)


def test_everything_is_sent_when_kubo_has_lost_a_block_of_what_it_pins(archive, kubo):
    study, former, _ = grown(archive)
    lost = next(one.cid for one in dag.walk(former, archive.store.get) if cids.parse(one.cid).codec == cids.RAW)
    kubo.block_file(lost).unlink()
    archive.store.pin(study.root, replaces=former)
    assert archive.rpc.sent()[1:] == [{one.cid for one in dag.walk(study.root, archive.store.get)}]
    assert archive.rpc.lacks_nothing(study.root, 10)
    assert archive.control.pinned(study.root)


def test_nothing_is_sent_of_a_tree_that_kubo_holds(archive):
    study = Study()
    archive.take(study.add(2))
    archive.store.pin(study.root)
    archive.store.pin(study.root)
    archive.control.unpin(study.root)
    archive.store.pin(study.root)
    assert archive.control.pinned(study.root)
    assert len(archive.rpc.sent()) == 1


@pytest.mark.parametrize("root_too", [True, False])
def test_files_that_somebody_removed_below_a_lost_pin_are_brought_again_at_once(archive, kubo, monkeypatch, root_too):
    monkeypatch.setattr(archive.store, "_timeout_s", 2)
    study = Study()
    given = archive.take(study.add(4))
    archive.store.pin(study.root)
    for one in given:
        if root_too or one.cid != study.root:
            kubo.block_file(one.cid).unlink()  # which Kubo, remembering that it has them, does not see
    kubo.call("pin/rm", cids.to_text(study.root))
    archive.store.pin(study.root)
    assert cids.to_text(study.root) in kubo.pins()
    assert all(kubo.holds(cids.to_text(one.cid)) for one in given)


def test_everything_is_sent_when_kubo_has_lost_the_pin(archive):
    study, former, _ = grown(archive)
    archive.control.unpin(former)
    archive.store.pin(study.root, replaces=former)
    assert archive.rpc.sent()[1:] == [{one.cid for one in dag.walk(study.root, archive.store.get)}]


def test_everything_is_sent_when_a_block_is_lost_between_the_look_and_the_pin(archive, kubo, monkeypatch):
    study, former, new = grown(archive)
    lost = next(one.cid for one in dag.walk(former, archive.store.get) if cids.parse(one.cid).codec == cids.RAW)
    kubo.block_file(lost).unlink()
    monkeypatch.setattr(archive.rpc, "lacks_nothing", lambda root, timeout_s: root == former)
    monkeypatch.setattr(archive.store, "_timeout_s", 1)
    archive.store.pin(study.root, replaces=former)
    everything = {one.cid for one in dag.walk(study.root, archive.store.get)}
    assert archive.rpc.sent()[1:] == [{one.cid for one in new}, everything]
    monkeypatch.undo()
    assert archive.rpc.lacks_nothing(study.root, 10)


def test_pages_and_roots_that_only_the_former_root_named_are_not_kept(archive):
    study, former, _ = grown(archive)
    archive.store.pin(study.root, replaces=former)
    assert archive.rpc.remove(former, 10) is None
    assert archive.control.pinned(study.root)


def test_a_damaged_block_of_the_packs_is_not_pinned_and_named(archive):
    leaf, other = blocks(2)
    root = node_of(leaf.cid, other.cid, mark=20)
    archive.take([leaf, other, root])
    archive.damage(leaf.cid)
    with pytest.raises(ContentCorrupt, match=cids.to_text(leaf.cid)):
        archive.store.pin(root.cid)
    assert archive.pins.all() == []
    assert not archive.control.pinned(root.cid)


def test_a_damaged_block_of_the_packs_is_had_from_elsewhere_to_be_pinned(tmp_path, kubo):
    leaf, other = blocks(2)
    archive = Archive(tmp_path / "home", kubo.api, sources=[{leaf.cid: leaf.data}.__getitem__])
    root = node_of(leaf.cid, other.cid, mark=21)
    archive.take([leaf, other, root])
    archive.damage(leaf.cid)
    archive.store.pin(root.cid)
    assert archive.rpc.block(leaf.cid) == leaf.data
    archive.close()


# where blocks are read


def test_what_was_trimmed_is_read_from_kubo_and_then_from_the_cache(archive):
    leaf, other = blocks(2)
    root = node_of(leaf.cid, other.cid, mark=22)
    archive.take([leaf, other, root])
    archive.store.pin(root.cid)
    archive.rpc.read.clear()
    assert archive.store.get(leaf.cid) == leaf.data
    assert archive.rpc.read == []
    archive.lose_packs()
    assert archive.store.has(leaf.cid)
    assert archive.store.get(leaf.cid) == archive.store.get(leaf.cid) == leaf.data
    assert archive.rpc.read == [leaf.cid]
    archive.cache.drop(leaf.cid)
    assert archive.store.get(leaf.cid) == leaf.data
    assert archive.rpc.read == [leaf.cid] * 2


def test_a_small_range_of_a_large_file_in_kubo_alone_costs_three_blocks(archive):
    file = archive.take(file_of(12))
    root, size = file[-1].cid, 12 << 20
    archive.store.pin(root)
    archive.lose_packs()
    archive.rpc.read.clear()
    start = (7 << 20) - 1000
    found = b"".join(
        archive.store.get(leaf.cid) for leaf in unixfs.leaves(root, archive.store.get, size, start, start + 500_000)
    )
    assert found == file[6].data + file[7].data
    assert len(archive.rpc.read) == 3


def test_blocks_in_kubo_alone_are_read_ahead_in_order(archive, monkeypatch):
    held = archive.take(blocks(6))
    root = archive.take([node_of(*(one.cid for one in held), mark=31)])[0]
    archive.store.pin(root.cid)
    archive.lose_packs()
    both, read = threading.Barrier(2, timeout=30), archive.rpc.block

    def met(cid, network_s=None):
        if cid in (held[0].cid, held[1].cid):
            both.wait()  # neither is answered before both are asked for
        return read(cid, network_s)

    monkeypatch.setattr(archive.rpc, "block", met)
    assert list(archive.store.each(one.cid for one in held)) == [one.data for one in held]
    assert list(archive.store.each([])) == []


def test_a_block_that_cannot_be_had_is_told_where_its_turn_comes(archive):
    (held,) = archive.take(blocks(1))
    found = archive.store.each([held.cid, block(b"nobody has this").cid])
    assert next(found) == held.data
    with pytest.raises(ContentMissing):
        next(found)


def test_a_damaged_block_of_the_packs_is_read_from_kubo(archive):
    (leaf,) = archive.take(blocks(1))
    archive.store.pin(leaf.cid)
    archive.damage(leaf.cid)
    assert archive.store.get(leaf.cid) == leaf.data


def test_a_block_damaged_in_packs_and_kubo_is_read_from_another_source(tmp_path, kubo):
    (leaf,) = blocks(1)
    archive = Archive(tmp_path / "home", kubo.api, sources=[{}.__getitem__, {leaf.cid: leaf.data}.__getitem__])
    archive.store._sources = [missing, {leaf.cid: b"wrong"}.__getitem__, {leaf.cid: leaf.data}.__getitem__]
    archive.take([leaf])
    archive.store.pin(leaf.cid)
    archive.damage(leaf.cid)
    kubo.block_file(leaf.cid).write_bytes(b"damaged")
    assert archive.store.get(leaf.cid) == leaf.data
    archive.cache.drop(leaf.cid)
    archive.store._sources = [missing, {leaf.cid: b"wrong"}.__getitem__]
    with pytest.raises(ContentCorrupt, match="in pack 0 at byte"):
        archive.store.get(leaf.cid)
    archive.close()


def missing(cid):
    raise ContentMissing("not here")


def test_a_block_of_a_peer_in_the_swarm_is_had_through_kubo(tmp_path, kubo_pair, monkeypatch):
    first, second = kubo_pair
    archive = Archive(tmp_path / "home", first.api)
    (leaf,) = blocks(1)
    second.post("block/put", files={"file": leaf.data}, cid_codec="raw", mhtype="blake3")
    assert archive.store.get(leaf.cid) == leaf.data
    (lost,) = blocks(1)
    monkeypatch.setattr(kubo_store, "NETWORK_S", 0.3)
    with pytest.raises(ContentMissing):
        archive.store.get(lost.cid)
    assert len(archive.control.peers()) == 1
    archive.close()


# a Kubo that is not there, or not quite


def test_without_kubo_the_spool_takes_and_gives(cut_off):
    study = Study()
    given = cut_off.take(study.add(3))
    assert all(cut_off.store.get(cid) == data for cid, data in given)
    assert all(cut_off.store.has(cid) for cid, _ in given)


def test_without_kubo_nothing_is_pinned_and_nothing_called_missing(cut_off):
    study = Study()
    cut_off.take(study.add(1))
    for ask in (
        lambda: cut_off.store.pin(study.root),
        lambda: cut_off.store.unpin(study.root),
        lambda: cut_off.store.get(block(b"elsewhere").cid),
        cut_off.store.pinned,
        cut_off.store.unsafe,
    ):
        with pytest.raises(EngineFault):
            ask()
    assert not cut_off.store.has(block(b"elsewhere").cid)
    assert cut_off.pins.all() == []
    status = cut_off.store.status(study.root)
    assert status.replicas is None
    assert len(status.reasons) == 1
    assert "cannot be reached" in status.reasons[0]


def test_without_kubo_the_status_of_a_root_is_what_was_last_known(archive, kubo, monkeypatch):
    (leaf,) = archive.take(blocks(1))
    archive.store.pin(leaf.cid)
    monkeypatch.setattr(archive.control, "version", raising(EngineFault("Kubo cannot be reached")))
    assert archive.store.status(leaf.cid)[1:3] == (("Kubo cannot be reached",), 1)


def raising(error):
    def fail(*arguments):
        raise error

    return fail


def test_a_kubo_that_answers_and_does_not_read_is_not_healthy(archive, kubo):
    (leaf,) = archive.take(blocks(1))
    archive.store.pin(leaf.cid)
    kubo.block_file(leaf.cid).write_bytes(b"")
    assert "damaged" in archive.store.status().reasons[0]
    archive.store.copy.mend(leaf)
    assert archive.store.status().reasons == ()


def test_a_paused_kubo_is_waited_for_once_and_then_left_alone_for_a_while(tmp_path, fresh_kubo, monkeypatch):
    monkeypatch.setattr(kubo_rpc, "BLOCK_S", 0.5)
    fresh_kubo.start()
    archive = Archive(tmp_path / "home", fresh_kubo.api)
    with fresh_kubo.paused():
        for _ in range(20):
            with pytest.raises(EngineFault, match="in time"):
                archive.store.get(block(b"elsewhere").cid)
        assert len(archive.rpc.read) == 1
        assert not archive.store.has(block(b"elsewhere").cid)
    archive.close()


# what Kubo holds by itself


@pytest.mark.parametrize("damage", [None, b"", b"other bytes"])
def test_a_block_that_kubo_lost_or_damaged_is_mended_and_every_pin_stays(archive, kubo, damage):
    leaf, other = blocks(2)
    inner = node_of(leaf.cid)
    roots = [node_of(inner.cid, other.cid, mark=mark) for mark in (30, 31)]
    archive.take([leaf, other, inner, *roots])
    for root in roots:
        archive.store.pin(root.cid)
    for broken in (leaf, inner, roots[0]):
        file = kubo.block_file(broken.cid)
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(ContentMissing if damage is None else ContentCorrupt):
            archive.store.copy.read(broken.cid)
        archive.store.copy.mend(broken)
        assert archive.store.copy.read(broken.cid) == broken.data
        assert {root.cid for root in roots} <= archive.store.pinned()
    archive.store.copy.mend(leaf)  # nothing to be done
    assert all(archive.rpc.lacks_nothing(root.cid, 10) for root in roots)


def test_kubo_writes_nothing_over_a_block_that_it_has(archive, kubo):
    """Why mending removes the block first: neither an import nor block/put would mend it."""
    (leaf,) = archive.take(blocks(1))
    archive.store.pin(leaf.cid)
    kubo.block_file(leaf.cid).write_bytes(b"")
    archive.store.pin(leaf.cid)
    archive.rpc.put(Block(leaf.cid, leaf.data))
    with pytest.raises(ContentCorrupt):
        archive.store.copy.read(leaf.cid)
    archive.store.copy.mend(leaf)


def test_a_kubo_that_does_not_fsync_is_not_safe(tmp_path, fresh_kubo):
    archive = Archive(tmp_path / "home", fresh_kubo.api)
    fresh_kubo.start()
    assert archive.store.unsafe() is None
    fresh_kubo.make_durable(sync=False)
    assert "fsync" in archive.store.unsafe()
    archive.close()


def test_several_damaged_blocks_are_mended_one_after_another_and_the_pins_come_back(archive, kubo):
    study, other = Study(), Study()
    given = archive.take(study.add(3) + other.add(1))
    archive.store.pin(study.root)
    archive.store.pin(other.root)
    with_links = [one for one in given if cids.parse(one.cid).codec == cids.DAG_CBOR]
    for one in with_links:
        kubo.block_file(one.cid).write_bytes(b"damaged")
    for one in with_links:
        archive.store.copy.mend(one)
    assert {study.root, other.root} <= archive.store.pinned()
    assert all(archive.store.copy.read(one.cid) == one.data for one in given)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_pin_goes_on_over_blocks_that_lie_damaged_in_kubo(archive, kubo, pinned):
    study, former, _ = grown(archive)
    others = [one for one in dag.walk(former, archive.store.get) if cids.parse(one.cid).codec == cids.DAG_CBOR]
    for one in others:
        kubo.block_file(one.cid).write_bytes(b"")
    if not pinned:
        archive.control.unpin(former)
    archive.store.pin(study.root, replaces=former)
    everything = list(dag.walk(study.root, archive.store.get))
    assert all(archive.store.copy.read(one.cid) == one.data for one in everything)
    assert archive.control.pinned(study.root)


def test_kubo_killed_in_the_middle_of_an_import_takes_the_tree_when_it_is_back(tmp_path, fresh_kubo, monkeypatch):
    fresh_kubo.start()
    archive = Archive(tmp_path / "home", fresh_kubo.api)
    file = archive.take(file_of(8))
    root = file[-1].cid
    read, reads = archive.packs.read, []

    def killing(pack, offset, length):
        reads.append(offset)
        if len(reads) == 12:
            fresh_kubo.kill()
        return read(pack, offset, length)

    monkeypatch.setattr(archive.packs, "read", killing)
    with pytest.raises(EngineFault):
        archive.store.pin(root)
    assert archive.pins.all() == []
    assert archive.store.get(root) == file[-1].data
    fresh_kubo.start()
    archive.store.pin(root)
    assert all(archive.store.copy.read(one.cid) == one.data for one in file)
    archive.close()
