"""Tiles: the paths and layout of C2SP tlog-tiles, and proofs from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import merkle, tiles
from ledger.errors import CodecError
from ledger.tile_files import TileFiles
from ledger.tiles import ENTRIES, WIDTH, Tile


def test_paths_are_those_of_the_specification() -> None:
    assert Tile(0, 1234067, WIDTH).path() == "tile/0/x001/x234/067"
    assert Tile(3, 5, 112).path() == "tile/3/005.p/112"
    assert Tile(ENTRIES, 1000, WIDTH).path() == "tile/entries/x001/000"


@given(st.integers(-1, 63), st.integers(0, 10**10), st.integers(1, WIDTH))
def test_paths_are_read_back(level: int, number: int, width: int) -> None:
    tile = Tile(level, number, width)
    assert tiles.parse_path(tile.path()) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/00/000",
        "tile/0/0",
        "tile/0/x000/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/007",
        "tile/0/000/",
        "tile/x/000",
        "tile/0/001/000",
        "../tile/0/000",
    ],
)
def test_other_paths_are_no_tiles(path: str) -> None:
    assert tiles.parse_path(path) is None


def test_a_tree_of_70000_has_the_tiles_of_the_specification() -> None:
    by_level = {level: [t for t in tiles.tiles(70_000) if t.level == level] for level in (ENTRIES, 0, 1, 2)}
    for level in (ENTRIES, 0):
        assert len(by_level[level]) == 274
        assert by_level[level][-1].path().endswith("273.p/112")
    assert [t.path() for t in by_level[1]] == ["tile/1/000", "tile/1/001.p/17"]
    assert [t.path() for t in by_level[2]] == ["tile/2/000.p/1"]
    assert len(list(tiles.tiles(70_000))) == 274 * 2 + 3
    assert [t.path() for t in tiles.tiles(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]


@given(st.integers(0, 70_000), st.integers(0, 700))
def test_growing_adds_exactly_the_tiles_that_are_new(since: int, more: int) -> None:
    assert set(tiles.tiles(since + more, since)) == set(tiles.tiles(since + more)) - set(tiles.tiles(since))


@given(st.lists(st.binary(max_size=70), max_size=6))
def test_bundles_are_read_back(entries: list[bytes]) -> None:
    assert tiles.split_bundle(tiles.bundle_bytes(entries)) == entries


def test_bundles_refuse_what_does_not_fit() -> None:
    with pytest.raises(CodecError):
        tiles.bundle_bytes([bytes(65_536)])
    for damaged in (b"\x00", b"\x00\x02a"):
        with pytest.raises(CodecError):
            tiles.split_bundle(damaged)


def test_files_grow_and_proofs_come_from_them(tmp_path: Path) -> None:
    envelopes = [b"entry %d" % number for number in range(800)]
    leaves = [merkle.leaf_hash(item) for item in envelopes]
    files = TileFiles(tmp_path)
    since = 0
    for size in (1, 2, 255, 256, 257, 511, 513, 800):
        files.publish(size, since, f"note of {size}", lambda a, b: leaves[a:b], lambda a, b: envelopes[a:b])
        since = size
        root = merkle.root(leaves[:size])
        read = tiles.node_reader(size, files.read)
        for index in {0, size // 2, size - 1}:
            merkle.verify_inclusion(leaves[index], index, size, merkle.inclusion_proof(index, size, read), root)
        for old in {1, size // 2, size}:
            proof = merkle.consistency_proof(old, size, read)
            merkle.verify_consistency(old, size, merkle.root(leaves[:old]), root, proof)
        bundle = Tile(ENTRIES, (size - 1) // WIDTH, (size - 1) % WIDTH + 1)
        assert tiles.split_bundle(files.read(bundle)) == envelopes[(size - 1) // WIDTH * WIDTH : size]
    assert files.checkpoint() == "note of 800"
    left = {path for path, _ in files.files()}
    assert not any(path.startswith(("tile/0/000.p", "tile/entries/000.p")) for path in left)


def test_a_full_tile_is_never_written_again(tmp_path: Path) -> None:
    envelopes = [b"entry %d" % number for number in range(300)]
    leaves = [merkle.leaf_hash(item) for item in envelopes]
    files = TileFiles(tmp_path)
    files.publish(256, 0, "note", lambda a, b: leaves[a:b], lambda a, b: envelopes[a:b])
    full = tmp_path / "tile/0/000"
    before = full.stat()
    files.repair(300, 300, lambda a, b: leaves[a:b], lambda a, b: envelopes[a:b])
    after = full.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
