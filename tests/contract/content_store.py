"""What every ContentStore must do: subclass `ContentStoreContract` in a test file and give it a store.

A store is made by `make(home)`; `after_commit(positions)` is told what the index would commit, so that a store reopened
on the same home finds it.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.content import cid as cids
from bridge.errors import ContentMissing
from bridge.model import Block


def block(data, codec=cids.RAW, hash="blake3"):
    return Block(cids.make(codec, data, hash), data)


def blocks(count, size=1000):
    return [block(os.urandom(size)) for _ in range(count)]


class ContentStoreContract:
    """The suite; `make` and `after_commit` belong to the implementation."""

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
