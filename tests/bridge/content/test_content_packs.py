"""The packs: their part of the contract, and what a full disk, a failing disk and kill -9 leave."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.content import car, packs, recovery, scan
from bridge.content import cid as cids
from bridge.content.pack_format import pack_path
from bridge.errors import ContentCorrupt, ContentMissing, StorageFault, StorageFull
from bridge.model import Block, BlockPosition
from tests.contract.content_store import BlocksContract, block, blocks

ROOT = Path(__file__).parents[3]


class Index(dict):
    """The part of an index that a store asks."""

    def commit(self, positions):
        self.update({position.cid: position for position in positions})

    def end(self, pack):
        return max((p.offset + p.length for p in self.values() if p.pack == pack), default=0)


def open_store(home, index, **options):
    return packs.PackStore(home, "test", index.get, committed_end=index.end, **options)


class TestPackStore(BlocksContract):
    @pytest.fixture(autouse=True)
    def _index(self):
        self.index = Index()

    def make(self, home):
        return open_store(home, self.index)

    def after_commit(self, positions):
        self.index.commit(positions)


class TestPackStoreOfSmallPacks(TestPackStore):
    """The same with a new pack every few blocks."""

    def make(self, home):
        return open_store(home, self.index, pack_bytes=5000)


@pytest.fixture
def index():
    return Index()


@pytest.fixture
def store(tmp_path, index):
    store = open_store(tmp_path, index)
    yield store
    store.close()


def names(home):
    return sorted(path.name for path in (home / "packs").iterdir())


def test_a_pack_is_a_car_that_reads_block_for_block(store, tmp_path):
    given = blocks(10)
    store.put(given)
    store.sync()
    with pack_path(tmp_path / "packs", 0).open("rb") as file:
        reader = car.CarReader(file.read)
        assert list(reader) == given
    assert [cids.to_text(root) for root in reader.roots] == ["bafkqaaa"]


def test_positions_are_where_the_bytes_lie(store, tmp_path):
    given = blocks(10)
    raw = pack_path(tmp_path / "packs", 0)
    for position, (cid, data) in zip(store.put(given), given, strict=True):
        assert position.cid == cid
        assert raw.read_bytes()[position.offset : position.offset + position.length] == data


def test_packs_rotate_and_all_of_them_are_synced(tmp_path, index, monkeypatch):
    store = open_store(tmp_path, index, pack_bytes=3000)
    synced = []
    real = os.fdatasync

    def fdatasync(fd):
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    given = blocks(9)
    for one in given:
        store.put([one])
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    store.sync()
    assert synced == names(tmp_path) == ["00000000.car", "00000001.car", "00000002.car"]
    assert all(store.get(cid) == data for cid, data in given)
    store.close()


def test_an_unfinished_pack_is_continued_after_a_restart(tmp_path, index):
    for _ in range(3):
        store = open_store(tmp_path, index)
        index.commit(store.put(blocks(2)))
        store.close()
    assert names(tmp_path) == ["00000000.car"]
    assert [whole for _, whole in scan.scan(pack_path(tmp_path / "packs", 0))] == [True] * 6


def test_two_writers_never_share_a_pack(tmp_path, index):
    one, two = open_store(tmp_path, index), open_store(tmp_path, index)
    one.put(blocks(1))
    two.put(blocks(1))
    assert names(tmp_path) == ["00000000.car", "00000001.car"]
    with pack_path(tmp_path / "packs", 0).open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    one.close()
    two.close()


def test_packs_are_for_their_owner_alone(store, tmp_path):
    store.put(blocks(1))
    assert (tmp_path / "packs").stat().st_mode & 0o777 == 0o700
    assert pack_path(tmp_path / "packs", 0).stat().st_mode & 0o777 == 0o600


def test_callers_that_wait_together_share_one_fdatasync(store, monkeypatch):
    """While the first fdatasync is held up, eleven more callers arrive: one more serves them all."""
    real, calls = os.fdatasync, []
    entered, go = threading.Event(), threading.Event()
    store.put(blocks(1))

    def fdatasync(fd):
        calls.append(fd)
        entered.set()
        go.wait()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    waiting = threading.Semaphore(0)
    real_wait = store._state.wait
    monkeypatch.setattr(store._state, "wait", lambda *args: (waiting.release(), real_wait(*args)))

    def put_and_sync():
        store.put(blocks(1))
        store.sync()

    threads = [threading.Thread(target=store.sync)]
    threads[0].start()
    entered.wait()
    threads += [threading.Thread(target=put_and_sync) for _ in range(11)]
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        waiting.acquire()
    go.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 2


def failing(error, calls=None):
    def call(*_):
        if calls is not None:
            calls.append(1)
        raise OSError(error, os.strerror(error))

    return call


def test_a_failed_fdatasync_is_never_retried_as_success(store, index, tmp_path, monkeypatch):
    kept = blocks(2)
    index.commit(store.put(kept))
    store.sync()
    size = pack_path(tmp_path / "packs", 0).stat().st_size
    lost = blocks(2)
    store.put(lost)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(StorageFault):
            store.sync()
    for attempt in (store.sync, lambda: store.put(blocks(1)), store.sync):
        with pytest.raises(StorageFault):
            attempt()
    assert not any(store.has(cid) for cid, _ in lost)
    assert all(store.get(cid) == data for cid, data in kept)
    assert pack_path(tmp_path / "packs", 0).stat().st_size == size
    store.renew()
    fresh = blocks(2)
    assert store.put(fresh)[0].pack == 1
    store.sync()
    assert all(store.get(cid) == data for cid, data in fresh)


@pytest.mark.parametrize("lost", [Path.unlink, lambda pack: os.truncate(pack, 20)], ids=["removed", "cut"])
def test_what_was_written_to_a_pack_that_somebody_removed_or_cut_is_never_called_durable(store, index, tmp_path, lost):
    index.commit(store.put([block(b"one")]))
    store.sync()
    store.put([block(b"two")])
    lost(pack_path(tmp_path / "packs", 0))
    with pytest.raises(StorageFault):
        store.sync()
    store.renew()
    index.commit(store.put([block(b"three")]))
    store.sync()
    assert store.get(block(b"three").cid) == b"three"


@pytest.mark.parametrize("lost", [Path.unlink, lambda pack: os.truncate(pack, 20)], ids=["removed", "cut"])
def test_a_pack_that_somebody_removed_or_cut_is_given_up_when_nothing_in_it_waits(store, index, tmp_path, lost):
    index.commit(store.put([block(b"one")]))
    store.sync()
    lost(pack_path(tmp_path / "packs", 0))
    index.commit(store.put([block(b"two")]))
    store.sync()
    assert open_store(tmp_path, index).get(block(b"two").cid) == b"two"


def test_who_put_before_a_failure_is_told_even_after_the_store_was_renewed(store, monkeypatch):
    store.put(blocks(1))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing(errno.EIO))
        other = []

        def put_and_sync():
            store.put(blocks(1))
            try:
                store.sync()
            except StorageFault as error:
                other.append(error)

        thread = threading.Thread(target=put_and_sync)
        thread.start()
        thread.join()
    assert len(other) == 1
    store.renew()
    with pytest.raises(StorageFault):
        store.sync()
    store.put(blocks(1))
    store.sync()


def test_a_write_that_fails_while_another_caller_syncs_fails_that_caller_too(store, monkeypatch):
    store.put(blocks(1))
    entered, go = threading.Event(), threading.Event()
    real = os.fdatasync

    def fdatasync(fd):
        entered.set()
        go.wait()
        real(fd)

    told = []

    def sync():
        try:
            store.sync()
        except StorageFault as error:
            told.append(error)

    def put():
        with pytest.raises(StorageFault):
            store.put(blocks(1))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fdatasync)
        broken.setattr(os, "pwritev", failing(errno.EIO))
        syncing = threading.Thread(target=sync)
        syncing.start()
        entered.wait()
        putting = threading.Thread(target=put)
        putting.start()
        while store._failure is None:
            threading.Event().wait(0.001)
        go.set()
        syncing.join()
        putting.join()
    assert len(told) == 1
    later = threading.Thread(target=sync)  # what fdatasync said meanwhile counts for nobody
    later.start()
    later.join()
    assert len(told) == 2
    store.renew()
    with pytest.raises(StorageFault):  # this thread put before the failure
        store.sync()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_no_trace_of_the_put_and_the_next_may_succeed(store, tmp_path, monkeypatch, error):
    before = blocks(2)
    store.put(before)
    size = pack_path(tmp_path / "packs", 0).stat().st_size
    refused = blocks(3)
    real = os.pwritev
    with monkeypatch.context() as full:
        full.setattr(os, "pwritev", _full_after(real, 100, error))
        with pytest.raises(StorageFull):
            store.put(refused)
    assert pack_path(tmp_path / "packs", 0).stat().st_size == size
    assert not any(store.has(cid) for cid, _ in refused)
    after = blocks(2)
    store.put(after)
    store.sync()
    assert all(store.get(cid) == data for cid, data in [*before, *after])


def _full_after(real, room, error):
    """A pwritev that writes `room` bytes in all, then fails."""
    left = [room]

    def pwritev(fd, buffers, offset):
        if not left[0]:
            raise OSError(error, os.strerror(error))
        data = b"".join(buffers)[: left[0]]
        left[0] -= len(data)
        return real(fd, [data], offset)

    return pwritev


def test_short_writes_are_completed(store, monkeypatch):
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: real(fd, [b"".join(buffers)[:37]], offset))
    given = blocks(20, 50)
    store.put(given)
    store.sync()
    assert all(store.get(cid) == data for cid, data in given)


LIMITED = """
import os, resource, sys
from pathlib import Path
from bridge.content import cid, packs
from bridge.errors import StorageFull
from bridge.model import Block
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
store = packs.PackStore(Path(sys.argv[1]), "test", {}.get)
data = os.urandom(500_000)
held = 0
try:
    while True:
        store.put([Block(cid.make(cid.RAW, data), data)])
        held += 1
except StorageFull:
    print(held)
store.put([Block(cid.make(cid.RAW, b"small"), b"small")])
store.close()
"""


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"
    assert [whole for _, whole in scan.scan(pack_path(tmp_path / "packs", 0))] == [True] * 5


@pytest.mark.parametrize(("free", "full"), [(99, True), (101, False)])
def test_the_reserve_is_left_free_up_to_a_twentieth_of_the_disk(tmp_path, index, monkeypatch, free, full):
    class Disk:
        f_frsize, f_blocks, f_bavail = 1 << 20, 2000, free  # 2000 MiB, of which a twentieth is 100 MiB

    store = open_store(tmp_path, index, reserve_bytes=1 << 40)
    with monkeypatch.context() as nearly_full:
        nearly_full.setattr(os, "statvfs", lambda path: Disk)
        with pytest.raises(StorageFull) if full else contextlib.nullcontext():
            store.put(blocks(1))
    store.close()


@pytest.mark.parametrize(("free", "full"), [(49, True), (51, False)])
def test_pages_and_roots_may_take_half_of_the_reserve(tmp_path, index, monkeypatch, free, full):
    class Disk:
        f_frsize, f_blocks, f_bavail = 1 << 20, 2000, free

    store = open_store(tmp_path, index, reserve_bytes=1 << 40)
    page = Block(cids.make(cids.DAG_CBOR, b"\x80"), b"\x80")
    with monkeypatch.context() as nearly_full:
        nearly_full.setattr(os, "statvfs", lambda path: Disk)
        with pytest.raises(StorageFull):
            store.put([page, *blocks(1)])
        with pytest.raises(StorageFull) if full else contextlib.nullcontext():
            store.put([page])
    store.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSPC])
def test_a_pack_that_cannot_be_begun_fails_only_that_put(store, tmp_path, monkeypatch, error):
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing(error))
        with pytest.raises(StorageFull if error == errno.ENOSPC else StorageFault):
            store.put(blocks(1))
    assert names(tmp_path) == []
    store.put(blocks(1))
    store.sync()


def test_a_flipped_byte_is_corrupt_and_says_where(store, index, tmp_path):
    (one,) = blocks(1)
    (position,) = store.put([one])
    with pack_path(tmp_path / "packs", 0).open("r+b") as file:
        file.seek(position.offset + 5)
        file.write(bytes([one.data[5] ^ 1]))
    with pytest.raises(ContentCorrupt, match=f"pack 0 at byte {position.offset}"):
        store.get(one.cid)


def test_a_block_beyond_the_end_of_its_pack_is_corrupt_and_one_in_no_pack_is_missing(store, index):
    store.put(blocks(1))
    cid = block(b"x").cid
    index[cid] = BlockPosition(cid, 0, 1 << 20, 1)
    with pytest.raises(ContentCorrupt):
        store.get(cid)
    index[cid] = BlockPosition(cid, 7, 100, 1)
    with pytest.raises(ContentMissing, match="pack 7"):
        store.get(cid)


def test_a_copy_put_again_heals_a_damaged_one(store, index, tmp_path):
    (one,) = blocks(1)
    index.commit(store.put([one]))
    with pack_path(tmp_path / "packs", 0).open("r+b") as file:
        file.seek(index[one.cid].offset)
        file.write(b"damaged")
    index.commit(store.put([one]))
    assert store.get(one.cid) == one.data


def test_more_packs_than_descriptors_are_kept_open_are_read(tmp_path, index):
    store = open_store(tmp_path, index, pack_bytes=500)
    given = blocks(150, 500)
    for one in given:
        store.put([one])
    store.sync()
    before = len(list(Path("/proc/self/fd").iterdir()))

    def read_all(_):
        return all(store.get(cid) == data for _ in range(3) for cid, data in given)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read_all, range(4)))
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 64
    store.close()


CHILD = """
import os, signal, sys
from pathlib import Path
from bridge.content import cid, packs
from bridge.model import Block
ends = {}
store = packs.PackStore(Path(sys.argv[1]), "test", {}.get, pack_bytes=1 << 20, committed_end=lambda pack: 0)
tear_at = int(sys.argv[2])
real = os.pwritev
def torn(fd, buffers, offset):
    data = b"".join(buffers)
    real(fd, [data[: len(data) * 2 // 3]], offset)
    os.kill(os.getpid(), signal.SIGKILL)
for number in range(10**9):
    if number == tear_at:
        os.pwritev = torn
    data = os.urandom(20_000 + number)
    positions = store.put([Block(cid.make(cid.RAW, data), data), Block(cid.make(cid.RAW, data[:99]), data[:99])])
    store.sync()
    for position in positions:
        print(position.cid.hex(), *position[1:], flush=True)
"""


def acknowledged(lines):
    found = []
    for line in lines:
        if line.endswith("\n"):
            name, *numbers = line.split()
            found.append(BlockPosition(bytes.fromhex(name), *map(int, numbers)))
    return found


@pytest.mark.parametrize("tear_at", [0, 1, 30, 70])
def test_a_put_torn_by_kill_9_is_cut_and_what_was_synced_is_all_there(tmp_path, tear_at, index):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path, str(tear_at)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    index.commit(acknowledged(done.stdout.splitlines(keepends=True)))
    assert len(index) == 2 * tear_at
    found = recovery.recover(tmp_path / "packs", index.end)
    assert [pack.cut > 0 for pack in found] == [False] * (len(found) - 1) + [True]
    assert all(pack.clean for pack in found)
    _all_there(tmp_path, index)


def test_kill_9_at_any_moment_loses_nothing_that_was_synced(tmp_path, index):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path, "-1"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        lines = [child.stdout.readline() for _ in range(101)]
        child.kill()
        lines += child.stdout.readlines()
    index.commit(acknowledged(lines))
    assert len(index) >= 100
    assert all(pack.clean for pack in recovery.recover(tmp_path / "packs", index.end))
    _all_there(tmp_path, index)


def _all_there(home, index):
    for number in range(len(names(home))):
        known = sorted((p for p in index.values() if p.pack == number), key=lambda p: p.offset)
        assert all(whole for _, whole in scan.scan(pack_path(home / "packs", number), known))
    store = open_store(home, index)
    for cid in index:
        assert cids.verify(cid, store.get(cid))
    store.put(blocks(1))
    store.close()
