"""Every byte of an entry, bundle, tile, checkpoint and proof counts: flipped, the step that failed is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from ledger_source import KEY, ORIGIN, Source, octets

from ledger import checkpoint, cosignature, proof, published, tiles
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import LedgerError
from ledger.policy import Policy
from ledger.sealer import Sealer
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

PUBLIC = KEY.public_key()
TRUST = Policy.of_log(ORIGIN, PUBLIC)
SIZE = 12
WITNESS = Ed25519PrivateKey.from_private_bytes(octets("witness", 32))
COSIGNED = Policy(TRUST.logs, {b"w": cosignature.cosigner("witness.example", WITNESS.public_key())}, {}, b"w")


@pytest.fixture(scope="module")
def source() -> Source:
    source = Source()
    for number in range(SIZE):
        source.close(type="study.access" if number % 3 else "study.store", records=5)
    return source


@pytest.fixture(scope="module")
def sealed(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sealed")
    engine = SoloEngine(home, KEY, ORIGIN)
    while Sealer(source, engine, KEY, 5).step():
        engine.publish()  # so that each step is a transaction
    engine.close()
    return home


@pytest.fixture(scope="module")
def text(source: Source, sealed: Path) -> str:
    """The proof of a record, under a checkpoint that a witness has cosigned."""
    store = LedgerStore(sealed / DATABASE, readonly=True)
    row, note = store.entry(7), store.checkpoint()
    store.close()
    assert row is not None and note is not None
    held = source.leaves[8]
    of = proof.record_path([item.leaf for item in held], 3, held[3].record)
    note = cosignature.sign(note, "witness.example", WITNESS, 1_700_000_000)
    return proof.make(7, row.envelope, note, tiles.node_reader(SIZE, TileFiles(sealed).read), of)


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    """The published files alone, to be damaged."""
    return shutil.copytree(sealed, tmp_path / "copy", ignore=shutil.ignore_patterns("ledger.db*"))


def flipped(content: bytes, at: int, mask: int) -> bytes:
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def refused_at(content: bytes, trust: Policy) -> str:
    """The step that refuses a proof file; fails when none does."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "format"
    with pytest.raises(LedgerError) as refused:
        proof.verify_under(text, trust)
    return refused.value.place


def test_every_byte_of_a_proof_is_refused_at_the_step_that_reads_it(text: str) -> None:
    content = text.encode()
    assert proof.verify_under(text, COSIGNED).cosigned[0].witness == "witness.example"
    head, _, note = content.partition(b"\n\n")
    lines = head.split(b"\n")
    extra_end = len(lines[0]) + 1 + len(lines[1])
    index_end = extra_end + 1 + len(lines[2])
    witness_line = content.index("— witness".encode())
    steps = {
        range(len(lines[0]) + 1): {"format"},
        # A flip in the envelope is another leaf; one in the record's path or bytes is found behind it.
        range(len(lines[0]) + 1, extra_end): {"format", "inclusion", "batch", "record"},
        range(extra_end, index_end): {"format", "inclusion"},
        range(index_end, len(head)): {"format", "inclusion"},
        range(len(head), len(head) + 2): {"format", "checkpoint"},
        range(len(head) + 2, witness_line): {"checkpoint", "format"},
        range(witness_line, len(content)): {"checkpoint", "witnesses", "format"},
    }
    seen: set[str] = set()
    for part, allowed in steps.items():
        for at in part:
            step = refused_at(flipped(content, at, 1 << at % 7), COSIGNED)
            assert step in allowed, (at, step)
            seen.add(step)
    assert seen == {"format", "checkpoint", "witnesses", "inclusion", "batch", "record"}
    assert note


def test_every_bit_of_the_signed_parts_of_a_proof_counts(text: str) -> None:
    """Base64 has bits to spare at its end: every bit of what the extra line encodes, re-encoded properly."""
    extra, index, path, note = proof._split(text)
    envelope = extra["e"]
    of = proof._record_path(extra["r"])
    for at in range(0, 8 * len(envelope), 5):
        damaged = flipped(envelope, at // 8, 1 << at % 8)
        with pytest.raises(LedgerError) as refused:
            proof.verify_under(proof.encode(damaged, index, path, note, of), TRUST)
        assert refused.value.place == "inclusion"
    assert of.record is not None
    for at in range(8 * len(of.record)):
        damaged = flipped(of.record, at // 8, 1 << at % 8)
        changed = proof.RecordPath(of.position, of.count, of.leaf, of.path, damaged)
        with pytest.raises(LedgerError) as refused:
            proof.verify_under(proof.encode(envelope, index, path, note, changed), TRUST)
        assert refused.value.place == "record"


def test_an_entry_that_the_node_did_not_sign_is_refused_though_the_log_holds_it(tmp_path: Path) -> None:
    """Who has the log's key alone cannot make a node's entries: the step after the inclusion finds it."""
    foreign = Ed25519PrivateKey.from_private_bytes(octets("foreign", 32))
    source = Source()
    source.close()
    engine = SoloEngine(tmp_path, foreign, ORIGIN)
    Sealer(source, engine, foreign).step()
    engine.close()
    store = LedgerStore(tmp_path / DATABASE, readonly=True)
    row = store.entry(0)
    store.close()
    assert row is not None
    note = checkpoint.make(ORIGIN, 1, row.leaf, KEY)
    with pytest.raises(LedgerError) as refused:
        proof.verify(proof.make(0, row.envelope, note, lambda level, index: row.leaf), ORIGIN, PUBLIC)
    assert refused.value.place == "entry"


@given(st.data())
def test_a_proof_with_anything_put_in_or_left_out_is_refused(text: str, data: st.DataObject) -> None:
    content = text.encode()
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    changed = content[:start] + data.draw(st.binary(max_size=40)) + content[end:]
    if changed != content:
        assert refused_at(changed, COSIGNED) in {
            *("format", "checkpoint", "witnesses", "inclusion", "entry", "batch", "record"),
        }


def find(copy: Path) -> set[str]:
    return {finding.place for finding in published.verify(copy, TRUST).findings}


def flip_each(copy: Path, path: str, check: Callable[[int], None]) -> None:
    file = copy / path
    content = file.read_bytes()
    for at in range(len(content)):
        file.write_bytes(flipped(content, at, 1 << at % 8))
        check(at)
    file.write_bytes(content)


def test_an_untouched_copy_has_no_findings(copy: Path) -> None:
    found = published.verify(copy, TRUST)
    assert found.findings == [] and found.accepted is not None
    assert found.accepted.head.size == SIZE


def test_every_byte_of_the_published_checkpoint_is_refused(copy: Path) -> None:
    flip_each(copy, "checkpoint", lambda at: _only(find(copy), {"checkpoint"}, at))


def test_every_byte_of_a_tile_is_refused_by_its_name(copy: Path) -> None:
    path = f"tile/0/000.p/{SIZE}"
    flip_each(copy, path, lambda at: _only(find(copy), {path}, at))


def test_every_byte_of_the_entries_is_refused_by_entry_or_bundle(copy: Path) -> None:
    path = f"tile/entries/000.p/{SIZE}"
    named = {path, *(f"entry {number}" for number in range(SIZE)), f"checkpoint {SIZE}"}

    def check(at: int) -> None:
        places = find(copy)
        assert places and places <= named | {f"tile/0/000.p/{SIZE}"}, (at, places)
        assert places & named, at

    flip_each(copy, path, check)


def _only(places: set[str], allowed: set[str], at: int) -> None:
    assert places and places <= allowed, (at, places)
