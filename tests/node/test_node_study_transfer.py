"""A study leaves one node as a CAR with a key file and enters another: the same bytes and CIDs, or nothing at all.

Both nodes are real processes. What Kubo answered to the same hostile files is in tests/data/ipfs/car.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from bridge.content import car, manifest
from bridge.content import cid as cids
from bridge.model import Block
from tests.conftest import ended_well
from tests.kubo_daemon import KuboDaemon
from tests.node.instances import HIGHDICOM, PYDICOM, Sent, all_there, parts, sendable
from tests.node.running_node import RunningNode

DATA = Path(__file__).resolve().parents[1] / "data" / "ipfs"
ANSWERS = json.loads((DATA / "car.json").read_text())["answers"]
STUDIES = {sent.transfer_syntax: sent.study for sent in sendable([PYDICOM, HIGHDICOM])}
"""One study for each transfer syntax that the samples are in."""


class Pair:
    """The node that has the studies, the node that has none, and a folder for files."""

    def __init__(self, sender: RunningNode, receiver: RunningNode, folder: Path) -> None:
        self.sender, self.receiver, self.folder = sender, receiver, folder

    @cached_property
    def verifier(self) -> str:
        """What the sender signs with."""
        return str(self.sender.answer("key", "show")["verifier"])

    @cached_property
    def recipient(self) -> str:
        """What is sealed to the receiver."""
        return str(self.receiver.answer("key", "show")["recipient"])

    def export(self, study: str, name: str = "study") -> tuple[Path, Path, dict[str, Any]]:
        """CAR, key file for the receiver, and what the command said."""
        out, key = self.folder / f"{name}.car", self.folder / f"{name}.key"
        files = ("--out", str(out), "--to", self.recipient, "--key-out", str(key))
        said = self.sender.answer("study", "export", study, *files)
        return out, key, said


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    """What the sender holds."""
    return [each for each in sendable([PYDICOM, HIGHDICOM]) if each.study in STUDIES.values()]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, sent: list[Sent]) -> Iterator[Pair]:
    """Both running; the sender has one study for each transfer syntax."""
    folder = tmp_path_factory.mktemp("transfer")
    sender, receiver = RunningNode(folder / "sender"), RunningNode(folder / "receiver")
    try:
        sender.start(ready=False)
        receiver.start()
        sender.wait_ready()
        for each in sent:
            sender.answer("import", str(each.file))
        yield Pair(sender, receiver, folder)
        ended_well(sender)
        ended_well(receiver)
    finally:
        sender.kill()
        receiver.kill()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningNode]:
    """A node for one test alone, running."""
    own = RunningNode(tmp_path / "receiver")
    try:
        yield own.start()
        ended_well(own)
    finally:
        own.kill()


def state(node: RunningNode) -> dict[str, object]:
    """What an import may not touch when it is refused: packs byte for byte, index, pins, keys."""
    packs = sorted((node.home / "packs").glob("*.car"))
    found: dict[str, object] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packs}
    tables = ("patient", "study", "tree", "study_page", "series", "instance", "instance_data", "block")
    queries = [("index.db", f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    queries += [
        ("index.db", "SELECT root FROM pin ORDER BY 1"),
        ("keys/keys.db", "SELECT * FROM study_key ORDER BY 1, 2"),
    ]
    for database, query in queries:
        with closing(sqlite3.connect(f"file:{node.home / database}?mode=ro", uri=True)) as connection:
            found[query] = connection.execute(query).fetchall()
    return found


def studies(node: RunningNode) -> list[str]:
    with node.http() as client:
        answer = client.get("/dicom-web/studies")
        return [each["0020000D"]["Value"][0] for each in answer.json()] if answer.status_code == 200 else []


def files_of(node: RunningNode, study: str) -> list[bytes]:
    """The whole Part 10 files of a study as WADO-RS gives them."""
    accept = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    with node.http() as client:
        answer = client.get(f"/dicom-web/studies/{study}", headers=accept)
        assert answer.status_code == 200, answer.text[:300]
        return sorted(parts(answer))


def metadata_of(node: RunningNode, study: str) -> Any:
    with node.http() as client:
        return json.loads(client.get(f"/dicom-web/studies/{study}/metadata").text.replace(node.url, ""))


def entries(node: RunningNode, kind: str) -> list[str | None]:
    return [entry["study"] for entry in node.answer("ledger", "entries")["entries"] if entry["type"] == kind]


def blocks_in(path: Path) -> list[Block]:
    return list(car.CarReader(io.BytesIO(path.read_bytes()).read))


def write(path: Path, root: str, blocks: list[Block]) -> Path:
    sections = [car.section_head(block.cid, len(block.data)) + block.data for block in blocks]
    path.write_bytes(car.encode_header([cids.from_text(root)]) + b"".join(sections))
    return path


@pytest.mark.parametrize("syntax", sorted(STUDIES))
def test_a_study_of_every_transfer_syntax_is_the_same_in_both_nodes(pair: Pair, sent: list[Sent], syntax: str) -> None:
    study = STUDIES[syntax]
    out, key, exported = pair.export(study)
    imported = pair.receiver.answer("study", "import", str(out), "--key", str(key), "--from", pair.verifier)
    assert imported["study"] == study
    assert imported["root"] == exported["root"]
    assert imported["pinned"]
    assert sum(imported["outcomes"].values()) == imported["instances"] == exported["instances"]
    assert files_of(pair.receiver, study) == files_of(pair.sender, study)
    assert metadata_of(pair.receiver, study) == metadata_of(pair.sender, study)
    with pair.receiver.http() as client:
        all_there(client, [each for each in sent if each.study == study])


def test_the_receiver_exports_the_very_bytes_that_it_got(pair: Pair) -> None:
    study = next(iter(STUDIES.values()))
    out, key, exported = pair.export(study)
    pair.receiver.answer("study", "import", str(out), "--key", str(key))
    again = pair.folder / "again.car"
    assert pair.receiver.answer("study", "export", study, "--out", str(again))["root"] == exported["root"]
    assert again.read_bytes() == out.read_bytes()


def test_both_ledgers_tell_of_it_and_nothing_is_found_wrong(pair: Pair) -> None:
    study = next(iter(STUDIES.values()))
    out, key, _ = pair.export(study)
    pair.receiver.answer("study", "import", str(out), "--key", str(key))
    assert study in entries(pair.sender, "study.export")
    assert study in entries(pair.receiver, "study.import")
    for node in (pair.sender, pair.receiver):
        assert node.answer("fsck")["findings"] == []
        assert node.answer("ledger", "verify")["findings"] == []


def test_an_exported_car_is_what_kubo_exports(pair: Pair, kubo: KuboDaemon) -> None:
    out, _, exported = pair.export(next(iter(STUDIES.values())))
    kubo.ipfs("dag", "import", "--offline", str(out))
    theirs = pair.folder / "kubo.car"
    theirs.write_bytes(kubo.ipfs("dag", "export", "--offline", exported["root"]).stdout)
    assert theirs.read_bytes() == out.read_bytes()


def test_without_the_key_blocks_are_kept_and_nothing_is_found_until_the_key_comes(
    pair: Pair, receiver: RunningNode
) -> None:
    study = next(iter(STUDIES.values()))
    own = Pair(pair.sender, receiver, pair.folder)
    out, key, exported = own.export(study, "sealed")
    kept = receiver.answer("study", "import", str(out))
    assert (kept["study"], kept["root"], kept["pinned"]) == (None, exported["root"], True)
    assert kept["new_blocks"] == kept["blocks"] == len(blocks_in(out))
    assert studies(receiver) == []
    assert receiver.cairn("study", "export", study, "--out", str(out), code=None).returncode == 1
    opened = receiver.answer("study", "import", str(out), "--key", str(key))
    assert (opened["study"], opened["new_blocks"]) == (study, 0)
    assert studies(receiver) == [study]
    assert files_of(receiver, study) == files_of(pair.sender, study)
    assert entries(receiver, "study.import") == [None, study]
    assert receiver.answer("fsck")["findings"] == []
    assert receiver.answer("ledger", "verify")["findings"] == []


def test_a_study_that_comes_back_changes_nothing_at_its_own_node(pair: Pair) -> None:
    study = next(iter(STUDIES.values()))
    out, _, exported = pair.export(study)
    before = state(pair.sender)
    back = pair.sender.answer("study", "import", str(out))
    assert back["outcomes"] == {"again": exported["instances"]}
    assert back["new_blocks"] == 0
    pins = "SELECT root FROM pin ORDER BY 1"  # those of former states are let go meanwhile
    assert {**state(pair.sender), pins: None} == {**before, pins: None}


def test_a_car_that_is_not_whole_is_refused_by_name_and_leaves_nothing(pair: Pair, receiver: RunningNode) -> None:
    out, key, exported = Pair(pair.sender, receiver, pair.folder).export(next(iter(STUDIES.values())), "hostile")
    blocks, whole = blocks_in(out), out.read_bytes()
    hostile = pair.folder / "hostile-made.car"
    before = state(receiver)

    def refused(named: bytes | None, *arguments: str) -> None:
        done = receiver.cairn("study", "import", str(hostile), *arguments, code=3)
        assert named is None or cids.to_text(named) in done.stderr, done.stderr
        assert state(receiver) == before

    by_key = ("--key", str(key))
    raw = next(block for block in blocks if cids.parse(block.cid).codec == cids.RAW)
    page = blocks[1]
    instance = next(block for block in blocks[2:] if cids.parse(block.cid).codec == cids.DAG_CBOR)
    for missing in (blocks[0], page, instance, raw, blocks[-1]):
        write(hostile, exported["root"], [block for block in blocks if block is not missing])
        refused(missing.cid, *by_key)
    refused(blocks[-1].cid)
    for cut in (1, len(blocks[-1].data) // 2, len(blocks[-1].data)):
        hostile.write_bytes(whole[:-cut])
        refused(blocks[-1].cid, *by_key)
    for wrong in (blocks[0], page, instance, raw, blocks[-1]):
        at = whole.index(wrong.cid + bytes(wrong.data)) + len(wrong.cid) + len(wrong.data) // 2
        hostile.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(wrong.cid, *by_key)
    refused(blocks[-1].cid)
    hostile.write_bytes(whole + b"\0")
    refused(None, *by_key)
    for name, answer in ANSWERS.items():
        if '"PinErrorMsg":""' not in answer["body"]:
            hostile.write_bytes((DATA / name).read_bytes())
            refused(None)
    write(hostile, exported["root"], list(reversed(blocks)))
    assert receiver.answer("study", "import", str(hostile), *by_key)["root"] == exported["root"]
    assert receiver.answer("fsck")["findings"] == []


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if '"PinErrorMsg":""' in answer["body"]])
def test_what_kubo_pins_is_kept_and_pinned_sealed(pair: Pair, name: str) -> None:
    kept = pair.receiver.answer("study", "import", str(DATA / name))
    assert (kept["study"], kept["blocks"], kept["pinned"]) == (None, 5, True)
    assert pair.receiver.answer("fsck")["findings"] == []


def test_a_key_file_for_another_node_or_study_is_refused_and_leaves_nothing(pair: Pair, receiver: RunningNode) -> None:
    first, second, *_ = dict.fromkeys(STUDIES.values())
    own = Pair(pair.sender, receiver, pair.folder)
    out, key, _ = own.export(first, "first")
    _, other_key, _ = own.export(second, "second")
    _, foreign_key, _ = pair.export(first, "foreign")
    altered = pair.folder / "altered.key"
    before = state(receiver)
    for bad in (other_key, foreign_key):
        receiver.cairn("study", "import", str(out), "--key", str(bad), code=3)
    data = key.read_bytes()
    for at in range(0, len(data), 190):
        altered.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        receiver.cairn("study", "import", str(out), "--key", str(altered), code=3)
    verifier = receiver.answer("key", "show")["verifier"]
    said = receiver.cairn("study", "import", str(out), "--key", str(key), "--from", verifier, code=3)
    assert "another key" in said.stderr
    assert state(receiver) == before
    assert None in entries(receiver, "study.import")  # what was refused is told by the ledger, too


def test_a_sealed_tree_under_a_known_tag_does_not_take_the_place_of_the_one_held(
    pair: Pair, receiver: RunningNode
) -> None:
    study = max(STUDIES.values(), key=lambda uid: len(files_of(pair.sender, uid)))
    out, key, exported = Pair(pair.sender, receiver, pair.folder).export(study, "known")
    receiver.answer("study", "import", str(out), "--key", str(key))
    before = state(receiver)
    blocks = blocks_in(out)
    root = manifest.decode_root(bytes(blocks[0].data))
    links = manifest.decode_page(bytes(blocks[1].data))
    page = manifest.encode_page(links[::-1])
    forged_page = Block(cids.make(cids.DAG_CBOR, page), page)
    forged = manifest.encode_root(root._replace(pages=(forged_page.cid,)))
    forged_root = Block(cids.make(cids.DAG_CBOR, forged), forged)
    hostile = write(pair.folder / "forged.car", cids.to_text(forged_root.cid), [forged_root, forged_page, *blocks[2:]])
    assert "does not continue" in receiver.cairn("study", "import", str(hostile), code=3).stderr
    assert state(receiver) == before
    assert exported["root"] in receiver.cairn("study", "export", study, "--out", str(pair.folder / "x.car")).stdout


def test_an_older_state_of_a_study_that_grew_is_taken_and_the_newer_one_stays(
    pair: Pair, receiver: RunningNode, tmp_path: Path
) -> None:
    sender = RunningNode(tmp_path / "growing")
    files = [each for each in sendable([PYDICOM]) if each.study == STUDIES["1.2.840.10008.1.2.1"]]
    try:
        sender.start()
        growing = Pair(sender, receiver, tmp_path)
        sender.answer("import", str(files[0].file))
        older, older_key, _ = growing.export(files[0].study, "older")
        for each in files[1:3]:
            sender.answer("import", str(each.file))
        newer, newer_key, exported = growing.export(files[0].study, "newer")
        assert exported["instances"] == len(files[:3])
        receiver.answer("study", "import", str(newer), "--key", str(newer_key))
        receiver.answer("study", "import", str(older), "--key", str(older_key))
        again = receiver.answer("study", "export", files[0].study, "--out", str(tmp_path / "again.car"))
        assert again["root"] == exported["root"]
        assert files_of(receiver, files[0].study) == files_of(sender, files[0].study)
        assert receiver.answer("fsck")["findings"] == []
        ended_well(sender)
    finally:
        sender.kill()


@pytest.mark.parametrize(("step", "visible"), [("store.5", False), ("store.6", False), ("close_batch.8", True)])
def test_a_node_killed_within_an_import_has_all_of_the_study_or_nothing(
    pair: Pair, tmp_path: Path, step: str, visible: bool
) -> None:
    study = next(iter(STUDIES.values()))
    receiver = RunningNode(tmp_path / "receiver")
    try:
        receiver.start()
        out, key, exported = Pair(pair.sender, receiver, pair.folder).export(study, "crash")
        assert receiver.stop() == 0
        arguments = ("study", "import", str(out), "--key", str(key))
        receiver.settings["CAIRN_CRASH_AT"] = step
        assert receiver.cairn(*arguments, code=None).returncode == -9
        del receiver.settings["CAIRN_CRASH_AT"]
        receiver.start()
        assert studies(receiver) == ([study] if visible else [])
        assert receiver.answer("fsck")["findings"] == []
        assert receiver.answer(*arguments)["root"] == exported["root"]
        assert files_of(receiver, study) == files_of(pair.sender, study)
        assert receiver.answer("fsck")["findings"] == []
        assert receiver.answer("ledger", "verify")["findings"] == []
        ended_well(receiver)
    finally:
        receiver.kill()


def test_files_that_cannot_be_read_or_written_are_named(pair: Pair) -> None:
    study = next(iter(STUDIES.values()))
    nowhere = pair.folder / "nowhere" / "study.car"
    assert str(nowhere) in pair.sender.cairn("study", "export", study, "--out", str(nowhere), code=2).stderr
    pipe = pair.folder / "pipe"
    os.mkfifo(pipe)
    for arguments in (("export", study, "--out", str(pipe)), ("import", str(pipe))):
        assert "not a file" in pair.sender.cairn("study", *arguments, code=2).stderr
    assert pipe.is_fifo()
    refused = pair.sender.answer("import", str(pipe), code=1)["refused"]
    assert [one["detail"] for one in refused] == ["it is not a file"]
    out = str(pair.folder / "x.car")
    both = ("--out", out, "--to", pair.recipient, "--key-out", out)
    assert "two files" in pair.sender.cairn("study", "export", study, *both, code=2).stderr
    assert pair.sender.cairn("study", "export", "1.2.3", "--out", out, code=None).returncode == 1
    slip = pair.recipient[:40] + ("a" if pair.recipient[40] != "a" else "b") + pair.recipient[41:]
    key = str(pair.folder / "x.key")
    pair.sender.cairn("study", "export", study, "--out", out, "--to", slip, "--key-out", key, code=2)
    pair.sender.cairn("study", "export", study, "--out", out, "--key-out", key, code=2)
    assert not list(pair.folder.glob("*.part")) + list(pair.folder.glob(".*.part"))


def test_the_index_made_again_knows_the_study_and_its_root(pair: Pair, receiver: RunningNode) -> None:
    study = next(iter(STUDIES.values()))
    out, key, exported = Pair(pair.sender, receiver, pair.folder).export(study, "rebuilt")
    receiver.answer("study", "import", str(out), "--key", str(key))
    assert receiver.stop() == 0
    receiver.answer("rebuild-index")
    receiver.start()
    assert files_of(receiver, study) == files_of(pair.sender, study)
    again = receiver.answer("study", "export", study, "--out", str(pair.folder / "rebuilt-again.car"))
    assert again["root"] == exported["root"]
    assert receiver.answer("fsck")["findings"] == []


def test_a_node_over_kubo_pins_the_study_there_at_once_or_when_kubo_is_back(
    pair: Pair, fresh_kubo: KuboDaemon, tmp_path: Path
) -> None:
    first, second, *_ = dict.fromkeys(STUDIES.values())
    settings = {"CAIRN_CONTENT__ENGINE": "kubo", "CAIRN_CONTENT__KUBO__API": fresh_kubo.api}
    receiver = RunningNode(tmp_path / "receiver", **settings)
    own = Pair(pair.sender, receiver, tmp_path)
    try:
        fresh_kubo.start()
        receiver.start()
        out, key, exported = own.export(first, "first")
        assert receiver.answer("study", "import", str(out), "--key", str(key))["pinned"]
        assert exported["root"] in pinned(fresh_kubo)
        assert fresh_kubo.ipfs("dag", "export", "--offline", exported["root"]).stdout == out.read_bytes()
        fresh_kubo.kill()
        later, later_key, exported = own.export(second, "second")
        assert not receiver.answer("study", "import", str(later), "--key", str(later_key))["pinned"]
        assert files_of(receiver, second) == files_of(pair.sender, second)
        fresh_kubo.start()
        end = time.monotonic() + 120.0
        while exported["root"] not in pinned(fresh_kubo):
            assert time.monotonic() < end, receiver.printed()[-3000:]
            time.sleep(0.2)
        ended_well(receiver)
    finally:
        receiver.kill()


def pinned(kubo: KuboDaemon) -> str:
    return kubo.ipfs("pin", "ls", "--type=recursive", "--quiet").stdout.decode()
