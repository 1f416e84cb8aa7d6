"""A copy of a log's files is enough to check it; an older checkpoint finds what the log's own key could hide."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ledger_source import KEY, ORIGIN, Source

from ledger import checkpoint, kept, proof, published, tiles
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import LedgerError, SignatureInvalid
from ledger.finding import Finding
from ledger.policy import Policy
from ledger.sealer import Sealer
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

TRUST = Policy.of_log(ORIGIN, KEY.public_key())


def seal(home: Path, source: Source, limit: int = 200) -> Path:
    engine = SoloEngine(home, KEY, ORIGIN)
    while Sealer(source, engine, KEY, limit).step():
        pass
    engine.close()
    return home


def filled(entries: int, changed: int | None = None) -> Source:
    source = Source()
    for _ in range(entries):
        source.close()
    if changed is not None:
        source.change(changed, outcome=8)
    return source


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 600 entries, grown in steps of 200: three bundles, two levels of tiles."""
    return seal(tmp_path_factory.mktemp("log"), filled(600))


@pytest.fixture
def copy(log: Path, tmp_path: Path) -> Path:
    return shutil.copytree(log, tmp_path / "copy", ignore=shutil.ignore_patterns("ledger.db*"))


def head(home: Path, size: int | None = None) -> checkpoint.Checkpoint:
    store = LedgerStore(home / DATABASE, readonly=True)
    note = store.checkpoint(size)
    store.close()
    assert note is not None
    return kept.read(note, TRUST).head


def find(directory: Path, since: checkpoint.Checkpoint | None = None) -> list[Finding]:
    return published.verify(directory, TRUST, since).findings


def test_a_copy_verifies_with_the_key_alone_and_continues_every_older_checkpoint(log: Path, copy: Path) -> None:
    seen: list[int] = []
    found = published.verify(copy, TRUST, visit=lambda index, envelope, said: seen.append(index))
    assert found.findings == [] and found.accepted is not None and found.accepted.head.size == 600
    assert seen == list(range(600))
    for size in (0, 200, 400, 600):
        assert find(copy, head(log, size)) == []


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    home = seal(tmp_path, Source(epoch=b""))
    assert find(home, head(home)) == []


def test_a_partial_bundle_that_gave_way_to_the_full_one_is_read_from_it(log: Path, copy: Path) -> None:
    store = LedgerStore(log / DATABASE, readonly=True)
    note = store.checkpoint(200)
    store.close()
    assert note is not None and not (copy / "tile/entries/000.p").exists()
    (copy / "checkpoint").write_text(note)
    found = published.verify(copy, TRUST)
    assert found.findings == [] and found.accepted is not None and found.accepted.head.size == 200


@pytest.mark.parametrize("path", ["tile/entries/001", "tile/0/001", "tile/1/000.p/2", "tile/entries/002.p/88"])
def test_a_file_that_is_missing_or_cut_is_named(copy: Path, path: str) -> None:
    content = (copy / path).read_bytes()
    (copy / path).write_bytes(content[:-1])
    assert path in {finding.place for finding in find(copy)}
    (copy / path).unlink()
    assert Finding(path, "it is missing") in find(copy)


def test_a_checkpoint_that_is_missing_or_not_the_logs_is_named(copy: Path) -> None:
    path = copy / "checkpoint"
    for content in (b"", b"\xff\xfe", path.read_bytes().replace(b"600", b"601"), None):
        path.unlink() if content is None else path.write_bytes(content)
        [finding] = find(copy)
        assert finding.place == "checkpoint"


def test_another_logs_key_is_refused(copy: Path) -> None:
    [finding] = published.verify(copy, Policy.of_log("other.example", KEY.public_key())).findings
    assert finding == Finding("checkpoint", "it is of a log that is not known here")


def test_a_truncated_log_is_named_against_an_older_checkpoint(log: Path, tmp_path: Path) -> None:
    short = seal(tmp_path, filled(200))
    assert find(short) == []
    assert find(short, head(log, 400)) == [
        Finding(
            "checkpoint 400",
            "the log was truncated or an older copy of it restored: it holds 200 entries of 400",
        )
    ]
    assert find(short, head(log, 200)) == []


def test_a_second_history_signed_with_the_same_key_is_named_against_an_older_checkpoint(
    log: Path, tmp_path: Path
) -> None:
    forged = seal(tmp_path, filled(600, changed=150))
    assert find(forged) == []
    for size in (200, 400, 600):
        [finding] = find(forged, head(log, size))
        assert finding == Finding(f"checkpoint {size}", kept.second_history(size))


def test_a_kept_proof_serves_as_its_checkpoint_and_must_hold(log: Path) -> None:
    store = LedgerStore(log / DATABASE, readonly=True)
    row, note = store.entry(3), store.checkpoint(400)
    assert row is not None and note is not None
    text = proof.make(3, row.envelope, note, tiles.node_reader(600, TileFiles(log).read))
    store.close()
    assert kept.read(text, TRUST).head == head(log, 400)
    with pytest.raises(LedgerError):
        kept.read(text.replace("index 3", "index 4"), TRUST)
    with pytest.raises(SignatureInvalid):
        kept.read(note, Policy.of_log(ORIGIN, bytes(31) + b"\1"))
