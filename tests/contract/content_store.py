"""What every ContentStore must do: subclass `ContentStoreContract` in a test file and say which engine it is.

`BlocksContract` is the part that is about blocks alone, which the packs by themselves pass too. The whole contract is
about a store as a node opens it: `open_content` over packs, with a real index.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cbor2
import pytest

from bridge import config
from bridge.content import cid as cids
from bridge.content import dag, manifest, unixfs
from bridge.content.car_transfer import export_car, import_car
from bridge.content.engine import open_content
from bridge.content.packs import PackStore
from bridge.errors import CarInvalid, ContentMissing
from bridge.index.index import SqlIndex
from bridge.model import Block, StudyTree

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/data/ipfs"


def block(data, codec=cids.RAW, hash="blake3"):
    return Block(cids.make(codec, data, hash), data)


def blocks(count, size=1000):
    return [block(os.urandom(size)) for _ in range(count)]


def node_of(*links, mark=0):
    """A dag-cbor block that links to others."""
    value = {"l": [cbor2.CBORTag(42, b"\0" + link) for link in links], "m": mark}
    return block(cbor2.dumps(value, canonical=True), cids.DAG_CBOR)


def file_of(leaves):
    """A UnixFS file of so many full leaves: all its blocks, the root last."""
    builder = unixfs.TreeBuilder()
    found = [one for _ in range(leaves) for one in builder.leaf(os.urandom(64) + bytes(unixfs.LEAF_SIZE - 64))]
    root, rest = builder.finish()
    assert (found + rest)[-1].cid == root
    return found + rest


class Study:
    """A study that grows: `add` gives the blocks of so many more instances and of the manifest, its root last."""

    def __init__(self):
        self.tag = os.urandom(16)
        self.tree = StudyTree(self.tag, None, (), 0, ())

    @property
    def root(self):
        return self.tree.root

    def add(self, count, size=500):
        found, links = [], list(self.tree.instances)
        for _ in range(count):
            sealed, extra = block(os.urandom(size)), block(os.urandom(40))
            instance = manifest.InstanceBlock(self.tag, 1, os.urandom(16), sealed.cid, extra.cid)
            link = block(manifest.encode_instance(instance), cids.DAG_CBOR)
            found += [sealed, extra, link]
            links.append(link.cid)
        growth = manifest.grow(self.tree._replace(instances=tuple(links)))
        self.tree = StudyTree(self.tag, growth.root, growth.pages, growth.covered, tuple(links))
        return found + list(growth.blocks)


class Archive:
    """A content store as a node opens it, on `home`, with its packs and index; `environment` names the engine."""

    def __init__(self, home, environment):
        self.settings, _ = config.load(None, {"CAIRN_HOME": str(home), **environment})
        self.index = SqlIndex(home / "index.db", "test", lambda: self.packs.sync())
        self.packs = PackStore(
            home,
            "test",
            self.index.locate_block,
            committed_end=self.index.committed_end,
            last_pack=self.index.last_pack,
        )
        self.pins = self.index.pins
        self.store = open_content(self.settings, self.packs, self.pins)

    def take(self, given):
        """Put blocks durably, and let the index know them."""
        positions = self.store.put(given)
        self.store.sync()
        self.index.add_blocks(positions)

    def car(self, root):
        return b"".join(export_car(self.store, root))

    def close(self):
        self.store.close()
        self.index.close()


class BlocksContract:
    """Blocks alone; `make` and `after_commit` belong to the implementation.

    A store is made by `make(home)`; `after_commit(positions)` is told what the index would commit, so that a store
    reopened on the same home finds it.
    """

    def make(self, home):
        raise NotImplementedError

    def after_commit(self, positions):
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path):
        store = self.make(tmp_path)
        yield store
        store.close()

    def test_what_was_put_is_read_back(self, store):
        given = [
            block(b""),
            block(os.urandom(2 << 20)),
            block(b"node", cids.DAG_PB),
            block(b"\xa0", cids.DAG_CBOR, "sha2-256"),
        ]
        positions = store.put(given)
        store.sync()
        assert [position.cid for position in positions] == [cid for cid, _ in given]
        assert [position.length for position in positions] == [len(data) for _, data in given]
        for cid, data in given:
            assert store.has(cid)
            assert store.get(cid) == data

    def test_a_block_is_found_before_it_is_durable(self, store):
        (one,) = blocks(1)
        store.put([one])
        assert store.has(one.cid)
        assert store.get(one.cid) == one.data

    def test_a_block_that_was_never_put_is_missing(self, store):
        cid = block(b"never").cid
        assert not store.has(cid)
        with pytest.raises(ContentMissing):
            store.get(cid)

    def test_putting_again_is_allowed(self, store):
        (one,) = blocks(1)
        store.put([one])
        store.put([one, one])
        store.sync()
        assert store.get(one.cid) == one.data

    def test_putting_nothing_is_allowed(self, store):
        assert list(store.put([])) == []
        store.sync()

    def test_thousands_of_blocks_in_one_put(self, store):
        given = blocks(3000, 10)
        store.put(given)
        store.sync()
        assert all(store.get(cid) == data for cid, data in given)

    def test_a_block_beyond_2_mib_or_without_hash_is_refused(self, store):
        with pytest.raises(ValueError, match="2 MiB"):
            store.put([block(bytes((2 << 20) + 1))])
        with pytest.raises(ValueError, match="2 MiB"):
            store.put([Block(cids.from_text("bafkqaaa"), b"")])

    def test_what_was_committed_is_there_after_closing_and_opening(self, tmp_path):
        store = self.make(tmp_path)
        given = blocks(20)
        positions = store.put(given)
        store.sync()
        self.after_commit(positions)
        store.close()
        again = self.make(tmp_path)
        assert all(again.get(cid) == data for cid, data in given)
        more = blocks(3)
        again.put(more)
        again.sync()
        assert all(again.get(cid) == data for cid, data in [*given, *more])
        again.close()

    def test_many_threads_put_sync_and_get_at_once(self, store):
        everything = []
        start = threading.Barrier(8)

        def work(number):
            start.wait()
            for size in (1, 500, 70_000):
                given = blocks(15, size + number)
                store.put(given)
                store.sync()
                assert all(store.get(cid) == data for cid, data in given)
                everything.extend(given)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert len(everything) == 8 * 3 * 15
        assert all(store.get(cid) == data for cid, data in everything)


class ContentStoreContract(BlocksContract):
    """The whole suite; `environment` belongs to the engine, as do `replicas` and `takes_empty_blocks`."""

    replicas = 1
    takes_empty_blocks = True

    @pytest.fixture
    def environment(self):
        """The settings of the engine, as environment variables."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _archives(self, environment):
        self._environment = environment
        self._open = []
        yield
        for archive in self._open:
            archive.close()

    def archive_on(self, home):
        home.mkdir(exist_ok=True)
        archive = Archive(home, self._environment)
        self._open.append(archive)
        return archive

    def make(self, home):
        self._committing = self.archive_on(home)
        return self._committing.store

    def after_commit(self, positions):
        self._committing.index.add_blocks(positions)

    @pytest.fixture
    def archive(self, tmp_path):
        return self.archive_on(tmp_path)

    def kept(self, archive, *roots):
        """Whether exactly these roots are pinned, by the table and by the engine."""
        assert {pin.root for pin in archive.pins.all()} == set(roots)
        for root in roots:
            held = archive.pins.of(root)
            assert (held.replicas, held.wanted) == (self.replicas, self.replicas)
            assert archive.store.status(root).replicas == self.replicas

    # pins

    def test_a_pinned_tree_is_kept_and_its_receipt_says_so(self, archive):
        study = Study()
        archive.take(study.add(3))
        receipt = archive.store.pin(study.root)
        assert (receipt.root, receipt.replicas) == (study.root, self.replicas)
        assert archive.pins.of(study.root).pinned == receipt.at
        self.kept(archive, study.root)

    def test_a_tree_of_every_kind_of_block_is_pinned(self, archive):
        file, other = file_of(3), block(os.urandom(9), hash="sha2-256")
        empty = block(b"")
        odd = [other, empty] if self.takes_empty_blocks else [other]
        root = node_of(file[-1].cid, *(one.cid for one in odd), cids.from_text("bafkqaaa"), file[0].cid)
        archive.take([*file, *odd, root])
        archive.store.pin(root.cid)
        self.kept(archive, root.cid)

    def test_a_single_leaf_can_be_pinned(self, archive):
        (one,) = blocks(1)
        archive.take([one])
        archive.store.pin(one.cid)
        self.kept(archive, one.cid)

    def test_blocks_are_pinned_that_the_index_does_not_know_yet(self, archive):
        study = Study()
        archive.store.put(study.add(2))
        archive.store.pin(study.root)
        self.kept(archive, study.root)

    def test_pinning_again_changes_nothing(self, archive):
        study = Study()
        archive.take(study.add(1))
        archive.store.pin(study.root)
        archive.store.pin(study.root)
        archive.store.pin(study.root, replaces=study.root)
        self.kept(archive, study.root)

    @pytest.mark.parametrize("deep", [False, True])
    def test_a_tree_with_a_block_missing_is_not_pinned_and_the_block_is_named(self, archive, deep):
        leaf, lost = blocks(2)
        inner = node_of(leaf.cid, lost.cid)
        lost = inner if deep else lost
        root = node_of(inner.cid)
        archive.take([one for one in (leaf, inner, root) if one is not lost])
        with pytest.raises(ContentMissing, match=cids.to_text(lost.cid)):
            archive.store.pin(root.cid)
        self.kept(archive)
        assert archive.store.status(root.cid).replicas is None

    def test_a_new_state_replaces_the_old_one(self, archive):
        study = Study()
        archive.take(study.add(5))
        archive.store.pin(study.root)
        for count in (1, 7):
            former = study.root
            archive.take(study.add(count))
            archive.store.pin(study.root, replaces=former)
            self.kept(archive, study.root)
            assert archive.store.status(former).replicas is None
        assert archive.store.get(former)

    def test_what_it_replaces_may_be_unknown(self, archive):
        study = Study()
        archive.take(study.add(1))
        former = study.root
        archive.take(study.add(1))
        archive.store.pin(study.root, replaces=former)
        self.kept(archive, study.root)

    def test_a_failed_pin_keeps_what_it_was_to_replace(self, archive):
        study = Study()
        archive.take(study.add(2))
        archive.store.pin(study.root)
        former = study.root
        new = study.add(2)
        archive.take([new[0], *new[2:]])
        with pytest.raises(ContentMissing, match=cids.to_text(new[1].cid)):
            archive.store.pin(study.root, replaces=former)
        self.kept(archive, former)

    def test_unpinned_blocks_stay_readable(self, archive):
        study = Study()
        given = study.add(2)
        archive.take(given)
        archive.store.pin(study.root)
        archive.store.unpin(study.root)
        self.kept(archive)
        assert all(archive.store.get(cid) == data for cid, data in given)

    def test_unpinning_what_is_not_pinned_is_allowed(self, archive):
        archive.store.unpin(block(b"nothing").cid)
        self.kept(archive)

    def test_blocks_that_two_trees_share_stay_when_one_is_let_go(self, archive):
        shared = file_of(2)
        one, two = node_of(shared[-1].cid, mark=1), node_of(shared[-1].cid, mark=2)
        archive.take([*shared, one, two])
        archive.store.pin(one.cid)
        archive.store.pin(two.cid)
        archive.store.unpin(one.cid)
        self.kept(archive, two.cid)

    def test_pins_are_there_after_closing_and_opening(self, tmp_path):
        study = Study()
        first = self.archive_on(tmp_path)
        first.take(study.add(2))
        first.store.pin(study.root)
        first.close()
        self._open.remove(first)
        self.kept(self.archive_on(tmp_path), study.root)

    def test_the_status_names_the_engine_and_finds_nothing_wrong(self, archive):
        status = archive.store.status()
        assert (status.engine, status.reasons, status.replicas) == (archive.settings.content.engine, (), None)

    # CAR files

    def test_a_car_comes_out_as_it_went_in(self, archive):
        golden = (GOLDEN / "study.car").read_bytes()
        receipt = import_car(archive.store, io.BytesIO(golden), archive.index.add_blocks)
        assert cids.to_text(receipt.root) == json.loads((GOLDEN / "car.json").read_text())["root"]
        assert archive.car(receipt.root) == golden
        self.kept(archive, receipt.root)

    def test_a_study_goes_from_one_archive_to_another_by_car(self, archive, tmp_path):
        file = file_of(3)
        root = node_of(file[-1].cid)
        archive.take([*file, root])
        archive.store.pin(root.cid)
        car = archive.car(root.cid)
        other = self.archive_on(tmp_path / "other")
        import_car(other.store, io.BytesIO(car), other.index.add_blocks, root.cid)
        assert other.car(root.cid) == car
        self.kept(other, root.cid)

    @pytest.mark.parametrize("name", ["truncated", "flipped", "missing-leaf", "null-padded", "no-roots-block", "empty"])
    def test_a_car_that_is_not_whole_is_refused_and_leaves_nothing(self, archive, name):
        with (GOLDEN / f"{name}.car").open("rb") as file, pytest.raises(CarInvalid):
            import_car(archive.store, file, archive.index.add_blocks)
        self.kept(archive)
        assert not archive.index.packs()

    # at once, and killed

    def test_trees_are_pinned_replaced_and_read_at_once(self, archive):
        start = threading.Barrier(4)
        studies = [Study() for _ in range(4)]

        def work(study):
            start.wait()
            former, given = None, []
            for count in (3, 1, 2):
                new = study.add(count)
                given += new
                archive.take(new)
                archive.store.pin(study.root, replaces=former)
                former = study.root
                assert all(archive.store.get(cid) == data for cid, data in given)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, studies))
        self.kept(archive, *(study.root for study in studies))
        for study in studies:
            assert archive.car(study.root)

    def test_one_tree_is_pinned_by_two_at_once(self, tmp_path):
        study = Study()
        one, two = self.archive_on(tmp_path), self.archive_on(tmp_path)
        one.take(study.add(10))
        with ThreadPoolExecutor(2) as pool:
            receipts = list(pool.map(lambda archive: archive.store.pin(study.root), (one, two)))
        assert {receipt.root for receipt in receipts} == {study.root}
        self.kept(two, study.root)

    @pytest.mark.parametrize("step", [1, 2, 3, 4])
    def test_killed_at_any_step_of_a_pin_no_study_is_without_one(self, tmp_path, step):
        study = Study()
        first = self.archive_on(tmp_path)
        first.take(study.add(4))
        first.store.pin(study.root)
        former = study.root
        first.take(study.add(2))
        first.close()
        self._open.remove(first)
        assert self.killed_pinning(tmp_path, step, study.root, former) == -signal.SIGKILL

        again = self.archive_on(tmp_path)
        roots = [root for root in (former, study.root) if again.pins.of(root) is not None]
        assert roots == {1: [former], 2: [former], 3: [former, study.root], 4: [former, study.root]}[step]
        whole = roots if step < 4 else [study.root]
        for root in whole:
            assert again.store.status(root).replicas == self.replicas
        again.store.pin(study.root, replaces=former)
        self.kept(again, study.root)
        assert list(dag.walk(study.root, again.store.get))

    def killed_pinning(self, home, step, root, former):
        """Pin in a process of its own that is killed at a step; its exit code."""
        command = [sys.executable, "-m", "tests.contract.pinning", home, root.hex(), former.hex()]
        environment = {**os.environ, **self._environment, "CAIRN_CRASH_AT": f"pin.{step}"}
        return subprocess.run(command, cwd=ROOT, env=environment, check=False, timeout=120).returncode
