"""CAR reading against what a real Kubo answered to the same files (tests/data/ipfs/car.json): never laxer."""

import io
import json
from pathlib import Path

import dag_cbor
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multiformats import CID

from bridge.content import car
from bridge.content import cid as cids
from bridge.errors import ContentCorrupt

DATA = Path(__file__).parents[2] / "data/ipfs"
KUBO = json.loads((DATA / "car.json").read_text())
STUDY = (DATA / "study.car").read_bytes()


def read(data):
    reader = car.CarReader(io.BytesIO(data).read)
    return reader.roots, list(reader)


@given(st.binary(max_size=160), st.integers(0, 1 << 22))
@example(b"", 0)
@example(b"c" * 36, 91)
@example(b"c" * 36, 92)
def test_the_size_of_a_section_is_told_without_it(cid, length):
    assert car.section_size(cid, length) == len(car.section_head(cid, length)) + length


def test_the_blocks_of_a_car_written_by_kubo():
    roots, blocks = read(STUDY)
    assert [cids.to_text(root) for root in roots] == [KUBO["root"]]
    assert [cids.to_text(block.cid) for block in blocks] == KUBO["blocks"]


def test_writing_gives_the_bytes_that_kubo_writes():
    roots, blocks = read(STUDY)
    sections = [car.section_head(cid, len(data)) + data for cid, data in blocks]
    assert car.encode_header(roots) + b"".join(sections) == STUDY


@pytest.mark.parametrize("name", [n for n, answer in KUBO["answers"].items() if answer["status"] != 200])
def test_what_kubo_refuses_is_refused(name):
    with pytest.raises(ContentCorrupt):
        read((DATA / name).read_bytes())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("reordered.car", 5),
        ("duplicate.car", 6),
        ("foreign-block.car", 6),
        ("missing-leaf.car", 4),
        ("no-roots-block.car", 4),
    ],
)
def test_whole_blocks_are_read_in_any_order_and_number(name, count):
    assert len(read((DATA / name).read_bytes())[1]) == count


def test_an_empty_file_is_refused_though_kubo_takes_it():
    with pytest.raises(ContentCorrupt):
        read(b"")


@given(st.integers(0, len(STUDY) * 8 - 1))
@example(488)  # the codec of the first block's CID
def test_every_flipped_bit_is_found(bit):
    damaged = bytearray(STUDY)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        roots, blocks = read(bytes(damaged))
    except ContentCorrupt:
        return
    # No hash covers a root in the header, nor the codec in a block's CID: that names another block of the same bytes.
    known = read(STUDY)
    assert (roots, [block.cid for block in blocks]) != (known[0], [block.cid for block in known[1]])


@given(st.integers(1, len(STUDY) - 1))
def test_a_car_cut_anywhere_is_refused_or_ends_at_a_section(length):
    try:
        _, blocks = read(STUDY[:length])
    except ContentCorrupt:
        return
    assert blocks == read(STUDY)[1][: len(blocks)]
    assert len(blocks) < 5


@given(st.lists(st.binary(max_size=32), min_size=1, max_size=4))
def test_a_header_is_canonical_dag_cbor(names):
    roots = [cids.make(cids.DAG_CBOR, name) for name in names]
    body = dag_cbor.encode({"roots": [CID.decode(root) for root in roots], "version": 1})
    assert car.encode_header(roots) == cids.varint(len(body)) + body
    assert read(car.encode_header(roots)) == (tuple(roots), [])


def header(value):
    body = dag_cbor.encode(value)
    return cids.varint(len(body)) + body


ROOT = CID.decode(cids.make(cids.RAW, b""))


@pytest.mark.parametrize(
    "data",
    [
        header({"roots": [], "version": 1}),
        header({"roots": [ROOT], "version": 2}),
        header({"version": 2}),
        header({"roots": [ROOT], "version": 1, "more": 0}),
        header({"roots": [b"x"], "version": 1}),
        header({"roots": 5, "version": 1}),
        header([ROOT]),
        b"\x03\xff\xff\xff",
        cids.varint(car.MAX_HEADER + 1) + bytes(car.MAX_HEADER + 1),
        b"\xba\x00" + STUDY[1:],
        STUDY + cids.varint(car.MAX_BLOCK * 2),
        STUDY + b"\x80",
        STUDY + b"\x81\x00",
        STUDY + b"\x05\x01\x55\x12\x20\x00",
    ],
)
def test_headers_and_sections_of_another_form_are_refused(data):
    with pytest.raises(ContentCorrupt):
        read(data)


def test_a_stream_that_gives_a_byte_at_a_time_reads_the_same():
    stream = io.BytesIO(STUDY)
    reader = car.CarReader(lambda size: stream.read(min(size, 1)))
    assert list(reader) == read(STUDY)[1]


@pytest.mark.parametrize("length", [b"\xff", b"\x80\x00", b"\xff" * 10], ids=["cut", "not-minimal", "too-long"])
def test_a_section_whose_length_cannot_be_read_is_named_by_its_place(length):
    with pytest.raises(ContentCorrupt, match=f"section at byte {len(STUDY)}: "):
        read(STUDY + length)
