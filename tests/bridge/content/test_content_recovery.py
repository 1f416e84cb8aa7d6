"""Recovery never destroys: what may be cut, and everything that may not."""

import fcntl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.content import packs, recovery
from bridge.content.pack_format import HEADER, MAX_SECTION, pack_path
from bridge.model import Block
from tests.contract.content_store import blocks


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a pack of five blocks, and their positions."""
    home = tmp_path_factory.mktemp("home")
    store = packs.PackStore(home, "test", {}.get)
    positions = list(store.put(blocks(5, 700)))
    store.close()
    return pack_path(home / "packs", 0).read_bytes(), positions


def end(position):
    return position.offset + position.length


def recover(directory, raw, committed):
    path = directory / "00000000.car"
    path.write_bytes(raw)
    (found,) = recovery.recover(directory, lambda _: committed)
    assert found.size == path.stat().st_size
    return found, path.read_bytes()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_only_an_incomplete_section_beyond_the_committed_end_is_cut(written, tmp_path, data):
    raw, positions = written
    committed = data.draw(st.sampled_from([0, *map(end, positions)]))
    length = data.draw(st.integers(max(committed, len(HEADER)), len(raw)))
    found, left = recover(tmp_path, raw[:length], committed)
    whole = (
        max(len(HEADER), *(end(p) for p in positions if end(p) <= length), 0)
        if length >= end(positions[0])
        else len(HEADER)
    )
    assert left == raw[:whole]
    assert found.cut == length - whole
    assert found.garbage == sum(committed < end(p) <= length for p in positions)
    assert found.garbage_bytes == whole - max(committed, len(HEADER))
    assert found.clean


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_below_the_committed_end_is_never_cut(written, tmp_path, data):
    raw, positions = written
    position = data.draw(st.integers(0, end(positions[3]) - 1))
    changed = bytearray(raw)
    changed[position] ^= data.draw(st.integers(1, 255))
    _, left = recover(tmp_path, bytes(changed), end(positions[3]))
    assert left == changed


def test_a_file_shorter_than_its_committed_end_is_left_and_not_written_again(written, tmp_path):
    raw, positions = written
    for length in (5, len(HEADER), end(positions[3]) - 1):
        found, left = recover(tmp_path, raw[:length], end(positions[3]))
        assert left == raw[:length]
        assert not found.clean


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_section_before_a_whole_one_is_kept_even_beyond_the_committed_end(written, tmp_path, data):
    raw, positions = written
    position = data.draw(st.integers(end(positions[0]), end(positions[3]) - 1))
    changed = bytearray(raw)
    changed[position] ^= data.draw(st.integers(1, 255))
    found, left = recover(tmp_path, bytes(changed), end(positions[0]))
    assert left == changed
    assert not found.clean


def test_a_last_section_that_is_complete_but_damaged_is_kept(written, tmp_path):
    raw, positions = written
    changed = raw[:-1] + bytes([raw[-1] ^ 1])
    found, left = recover(tmp_path, changed, end(positions[2]))
    assert left == changed
    assert (found.garbage, found.clean) == (1, False)


def test_more_than_a_section_of_rubbish_is_kept(written, tmp_path):
    raw, positions = written
    rubbish = raw + bytes(MAX_SECTION + 1)
    found, left = recover(tmp_path, rubbish, end(positions[4]))
    assert left == rubbish
    assert not found.clean


@pytest.mark.parametrize("length", range(len(HEADER)))
def test_a_pack_that_ends_in_its_header_is_begun_again(tmp_path, length):
    found, left = recover(tmp_path, HEADER[:length], 0)
    assert left == HEADER
    assert found.clean


def test_a_short_file_that_is_no_pack_is_left(tmp_path):
    found, left = recover(tmp_path, b"other", 0)
    assert left == b"other"
    assert not found.clean


def test_a_pack_that_a_process_writes_is_not_touched(written, tmp_path):
    raw, _ = written
    path = tmp_path / "00000000.car"
    path.write_bytes(raw + b"\x80")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert recovery.recover(tmp_path, lambda _: 0) == []
    assert path.read_bytes() == raw + b"\x80"


def test_a_store_never_appends_to_a_pack_that_is_not_clean(written, tmp_path):
    raw, positions = written
    directory = tmp_path / "packs"
    directory.mkdir()
    (directory / "00000000.car").write_bytes(raw[: end(positions[2]) - 5])
    store = packs.PackStore(tmp_path, "test", {}.get, committed_end=lambda _: end(positions[2]))
    assert store.put(blocks(1))[0].pack == 1
    store.close()


def test_a_pack_that_cannot_be_read_does_not_stop_the_store(tmp_path):
    (tmp_path / "packs" / "00000000.car").mkdir(parents=True)
    store = packs.PackStore(tmp_path, "test", {}.get, committed_end=lambda _: 0)
    (position,) = store.put([Block(*blocks(1)[0])])
    assert position.pack == 1
    store.close()


def test_nothing_to_recover_where_there_is_no_directory(tmp_path):
    assert recovery.recover(tmp_path / "packs", lambda _: 0) == []
    assert list(tmp_path.iterdir()) == []
