"""The cache on disk of blocks from elsewhere: what it keeps, what goes first, and that it never fails."""

import os
from types import SimpleNamespace

import pytest

from bridge.content.cache import DiskCache
from tests.contract.content_store import block, blocks


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 10_000)


def files(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_was_put_is_there_for_every_process(cache, tmp_path):
    (one,) = blocks(1)
    assert cache.get(one.cid) is None
    assert not cache.has(one.cid)
    cache.put(*one)
    for each in (cache, DiskCache(tmp_path / "cache", 10_000)):
        assert each.has(one.cid)
        assert each.get(one.cid) == one.data
    cache.drop(one.cid)
    cache.drop(one.cid)
    assert cache.get(one.cid) is None


def test_an_empty_block_is_kept(cache):
    one = block(b"")
    cache.put(*one)
    assert cache.get(one.cid) == b""


@pytest.mark.parametrize("damage", [b"", b"other bytes"])
def test_a_damaged_block_is_not_given_but_removed(cache, tmp_path, damage):
    (one,) = blocks(1)
    cache.put(*one)
    (path,) = files(tmp_path)
    path.write_bytes(damage)
    assert cache.get(one.cid) is None
    assert files(tmp_path) == []


def test_beyond_the_limit_those_used_longest_ago_go_first(cache, tmp_path):
    old, used, *rest = blocks(14)
    cache.put(*old)
    cache.put(*used)
    for number, path in enumerate(sorted(files(tmp_path), key=lambda path: path.read_bytes() == used.data)):
        os.utime(path, (number, number))
    assert cache.get(used.cid) == used.data  # and so used just now
    for one in rest:
        cache.put(*one)
    assert cache.get(old.cid) is None
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 10_000


def test_what_a_crash_left_unfinished_goes_too(cache, tmp_path):
    left = tmp_path / "cache/aa/unfinished.1.2"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(9_000))
    os.utime(left, (1, 1))
    for one in blocks(3):
        cache.put(*one)
    assert not left.exists()


def test_nothing_is_kept_that_is_larger_than_the_limit_or_would_take_the_reserve(tmp_path, monkeypatch):
    (one,) = blocks(1)
    disk = SimpleNamespace(f_frsize=4096, f_blocks=1 << 20, f_bavail=(1 << 20) // 20)  # a twentieth is free
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    for cache in (DiskCache(tmp_path / "cache", 0), DiskCache(tmp_path / "cache", 10_000, reserve=1 << 62)):
        cache.put(*one)
        assert cache.get(one.cid) is None
        assert not (tmp_path / "cache").exists() or files(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_no_fault(tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    cache = DiskCache(tmp_path / "cache", 10_000)
    (one,) = blocks(1)
    cache.put(*one)
    assert cache.get(one.cid) is None
    assert not cache.has(one.cid)
