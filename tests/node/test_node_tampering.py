"""Whoever changes a byte of what is kept is found out: by what is served, `cairn fsck` and `cairn ledger verify`."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.node.instances import DICOM_ANY, HIGHDICOM, PYDICOM, all_there, sendable, stow
from tests.node.running_node import RunningNode

INSTANCE = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")


@pytest.fixture
def archive(fresh_node: RunningNode) -> RunningNode:
    """A node that has stored some studies and made their entries, now stopped."""
    fresh_node.start()
    fresh_node.answer("import", str(HIGHDICOM))
    assert fresh_node.stop() == 0
    assert fresh_node.answer("fsck")["findings"] == []
    assert fresh_node.answer("ledger", "verify")["findings"] == []
    return fresh_node


def flip(file: Path, at: int) -> None:
    """Change one byte of a file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)


def packs(node: RunningNode) -> list[Path]:
    return sorted((node.home / "packs").glob("*.car"))


def flip_largest_blocks(node: RunningNode, every: int) -> None:
    """Damage each pack at regular places, away from its header."""
    for pack in packs(node):
        content = bytearray(pack.read_bytes())
        for at in range(2000, len(content), every):
            content[at] ^= 0x01
        pack.write_bytes(content)


def test_a_damaged_object_is_never_served_and_fsck_names_the_pack(archive: RunningNode) -> None:
    flip_largest_blocks(archive, 1000)
    archive.start()
    with archive.http("viewer") as viewer:
        response = viewer.get(f"/dicom-web{INSTANCE.path}", headers={"accept": DICOM_ANY})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"].rsplit(":", 1)[-1] in ("integrity", "content-corrupt", "content-missing")
        assert INSTANCE.data_set[5000:5100] not in response.content
    findings = archive.answer("fsck", code=3)["findings"]
    assert any(packs(archive)[0].name in finding["place"] for finding in findings), findings


def test_what_was_damaged_is_healed_by_sending_it_again(archive: RunningNode) -> None:
    flip_largest_blocks(archive, 1000)
    archive.start()
    archive.answer("fsck", "--repair", code=3)
    with archive.http("admin") as client:
        assert stow(client, [INSTANCE.file.read_bytes()]).status_code == 200
        all_there(client, [INSTANCE])


@pytest.mark.parametrize("name", ["index.db", "keys/keys.db"])
def test_a_database_that_is_damaged_violates_integrity(archive: RunningNode, name: str) -> None:
    database = archive.home / name
    database.write_bytes(bytes(database.stat().st_size - 1) + b"x")
    for command in ("fsck", "serve"):
        refused = archive.cairn(command, code=3)
        assert "damaged" in refused.stderr and "Restore a backup" in refused.stderr


def test_a_node_whose_keys_are_gone_does_not_begin_with_new_ones(archive: RunningNode, tmp_path: Path) -> None:
    archive.token("admin")
    archive.cairn("backup", str(tmp_path / "backup"))
    archive.start()
    for file in (archive.home / "keys").glob("keys.db*"):
        file.unlink()
    with archive.http("admin") as client:
        new_study = next(sent for sent in sendable([PYDICOM]) if sent.study != INSTANCE.study)
        assert stow(client, [new_study.file.read_bytes()]).status_code == 503
    archive.kill()
    for command in ("serve", "fsck", "rebuild-index"):
        refused = archive.cairn(command, code=3)
        assert "keys.db is gone or empty" in refused.stderr and "`cairn restore`" in refused.stderr
    (archive.home / "keys" / "keys.db").touch()
    archive.cairn("serve", code=3)
    archive.home.rename(tmp_path / "aside")
    archive.cairn("restore", str(tmp_path / "backup"))
    archive.start()
    with archive.http("admin") as client:
        all_there(client, [INSTANCE])


def test_a_ledger_that_is_gone_is_told_when_a_new_one_is_begun(archive: RunningNode) -> None:
    shutil.rmtree(archive.home / "ledger")
    assert archive.answer("ledger", "verify", code=3)["findings"]
    archive.start()
    assert "there is no ledger, though this node has run before" in archive.printed()


def test_a_lost_pack_is_named(archive: RunningNode) -> None:
    lost = packs(archive)[0]
    lost.unlink()
    findings = archive.answer("fsck", code=3)["findings"]
    assert any(lost.name in finding["place"] for finding in findings), findings


PLACES = (0.0, 0.1, 0.35, 0.6, 0.85, 1.0)


@pytest.mark.parametrize("share", PLACES)
def test_a_flipped_byte_anywhere_in_a_pack_is_found(archive: RunningNode, share: float) -> None:
    pack = packs(archive)[0]
    flip(pack, round(share * (pack.stat().st_size - 1)))
    findings = archive.answer("fsck", code=3)["findings"]
    assert any(pack.name in finding["place"] for finding in findings), findings


def ledger_files(node: RunningNode) -> list[Path]:
    """The tiles, the checkpoint, the database and its digests; not what only running processes share (-shm, .lock)."""
    found = (path for path in (node.home / "ledger").rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path for path in found if not path.name.endswith(("-shm", ".lock")))


def changes_are_found(node: RunningNode, file: Path, places: Iterable[float]) -> None:
    """A byte flipped at each share of the file's length is a finding, which goes away with the flip."""
    kept = file.read_bytes()
    for share in places:
        flip(file, round(share * (len(kept) - 1)))
        assert node.answer("ledger", "verify", code=3)["findings"], (file.name, share)
        file.write_bytes(kept)
    assert node.answer("ledger", "verify")["findings"] == []


def test_a_flipped_byte_in_any_file_of_the_ledger_is_found(archive: RunningNode) -> None:
    names = {file.name for file in ledger_files(archive)}
    assert {"ledger.db", "checkpoint"} < names
    for file in ledger_files(archive):
        changes_are_found(archive, file, PLACES if file.name == "ledger.db" else (0.5,))


def test_a_changed_entry_in_the_ledger_database_is_found(archive: RunningNode) -> None:
    database = archive.home / "ledger" / "ledger.db"
    flip(database, database.read_bytes().index(b"study.import") + 3)
    assert archive.answer("ledger", "verify", code=3)["findings"]
