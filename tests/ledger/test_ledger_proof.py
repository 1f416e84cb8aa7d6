"""Proofs in a file: they hold offline for what they say and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_source import KEY, ORIGIN, Source

from ledger import proof, tiles
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import LedgerError, ProofInvalid, SignatureInvalid
from ledger.sealer import Sealer
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

PUBLIC = KEY.public_key()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Source, Path]:
    source = Source()
    for number in range(9):
        source.close(records=number + 1)
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    while Sealer(source, engine, KEY).step():
        pass
    engine.close()
    return source, tmp_path


def prove(home: Path, index: int, of: proof.RecordPath | None = None) -> str:
    store = LedgerStore(home / DATABASE, readonly=True)
    row, note = store.entry(index), store.checkpoint()
    store.close()
    assert row is not None and note is not None
    return proof.make(index, row.envelope, note, tiles.node_reader(9, TileFiles(home).read), of)


def test_every_entry_is_proved_from_the_tiles(made: tuple[Source, Path]) -> None:
    source, home = made
    for index in range(9):
        proved = proof.verify(prove(home, index), ORIGIN, PUBLIC)
        assert (proved.index, proved.head.size, proved.record) == (index, 9, None)
        assert proved.entry.records_root == source.batches[index].records_root


def test_a_record_is_proved_with_and_without_its_bytes(made: tuple[Source, Path]) -> None:
    source, home = made
    leaves = [item.leaf for item in source.leaves[8]]
    for position, item in enumerate(source.leaves[8]):
        opened = proof.verify(prove(home, 7, proof.record_path(leaves, position, item.record)), ORIGIN, PUBLIC)
        assert opened.record is not None and opened.record.body == {"n": position}
        withheld = proof.verify(prove(home, 7, proof.record_path(leaves, position)), ORIGIN, PUBLIC)
        assert (withheld.record_leaf, withheld.record) == (item.leaf, None)


def test_a_record_of_another_batch_or_other_bytes_are_refused(made: tuple[Source, Path]) -> None:
    source, home = made
    foreign = proof.record_path([item.leaf for item in source.leaves[8]], 0)
    with pytest.raises(ProofInvalid):
        proof.verify(prove(home, 6, foreign), ORIGIN, PUBLIC)
    swapped = proof.record_path([item.leaf for item in source.leaves[8]], 0, source.leaves[8][1].record)
    with pytest.raises(ProofInvalid):
        proof.verify(prove(home, 7, swapped), ORIGIN, PUBLIC)
    with pytest.raises(SignatureInvalid):
        proof.verify(prove(home, 7), "other.example", PUBLIC)


def test_every_changed_character_is_refused(made: tuple[Source, Path]) -> None:
    source, home = made
    leaves = [item.leaf for item in source.leaves[8]]
    text = prove(home, 7, proof.record_path(leaves, 2, source.leaves[8][2].record))
    for at in range(len(text)):
        damaged = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        with pytest.raises(LedgerError):
            proof.verify(damaged, ORIGIN, PUBLIC)


@pytest.mark.parametrize(
    "text", ["", "c2sp.org/tlog-proof@v1\n\n", "c2sp.org/tlog-proof@v1\nextra oA==\nindex 00\n\nx"]
)
def test_what_is_no_proof_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        proof.verify(text, ORIGIN, PUBLIC)


def test_no_proof_is_made_beyond_the_checkpoint(made: tuple[Source, Path]) -> None:
    _, home = made
    note = TileFiles(home).checkpoint()
    assert note is not None
    with pytest.raises(ProofInvalid):
        proof.make(9, b"", note, tiles.node_reader(9, TileFiles(home).read))
