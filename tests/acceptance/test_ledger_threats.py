"""The threat table of the ledger, row by row: who does what, and what finds it.

Each test is named after its row. Rows that need a consortium (proposers, validators), what no log can prevent (a
recipient keeps what it read), and what later signature types are for (harvest now, decrypt later) are not here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Settings
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore, open_keystore
from bridge.ledger_reading import index_place, ledger_home, origin_of, record_source
from ledger import checkpoint, codec, cosignature, entry, keys, merkle, proof
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.page_digests import PageDigests
from ledger.sealer import Sealer
from ledger.store import LedgerStore, digests_path
from ledger.verify import Trust, verify_log
from tests.node.instances import DICOM_ANY, HIGHDICOM, Sent, sendable, stow
from tests.node.running_node import CAIRN, RunningNode

HOUR_US = 3_600_000_000
SENT = sendable([HIGHDICOM])
REQUESTS = 12


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningNode, Path]]:
    """A node that stopped after storing and serving studies, and a copy of its home from when it had only stored."""
    node = RunningNode(tmp_path_factory.mktemp("threats") / "home")
    early = node.home.with_name("early")
    try:
        node.start()
        with node.http("clinician") as client:
            assert stow(client, [sent.file.read_bytes() for sent in SENT]).status_code == 200
        assert node.stop() == 0
        shutil.copytree(node.home, early)
        node.start()
        with node.http("viewer") as viewer:
            for _ in range(REQUESTS):
                assert viewer.get(f"/dicom-web{viewed().path}", headers={"accept": DICOM_ANY}).status_code == 200
        assert node.stop() == 0
        assert node.answer("ledger", "verify")["findings"] == []
        yield node, early
    finally:
        node.kill()


def viewed() -> Sent:
    return next(sent for sent in SENT if sent.file.name == "ct_image.dcm")


@pytest.fixture
def node(history: tuple[RunningNode, Path], tmp_path: Path) -> RunningNode:
    """The node with a copy of its home, to be damaged."""
    return RunningNode(shutil.copytree(history[0].home, tmp_path / "home"))


@pytest.fixture
def early(history: tuple[RunningNode, Path], tmp_path: Path) -> RunningNode:
    return RunningNode(shutil.copytree(history[1], tmp_path / "early"))


@pytest.fixture
def kept(history: tuple[RunningNode, Path], tmp_path: Path) -> Path:
    """The newest checkpoint of the untouched node, as somebody else keeps it."""
    return shutil.copy(history[0].home / "ledger/checkpoint", tmp_path / "kept")


def keystore(node: RunningNode) -> Keystore:
    return open_keystore(node.home, None)


def findings(node: RunningNode, *options: str | Path, code: int = 3) -> list[str]:
    found = node.answer("ledger", "verify", *map(str, options), code=code)["findings"]
    return [f"{finding['place']}: {finding['what']}" for finding in found]


def verify_file(node: RunningNode, path: Path, *options: str | Path, code: int) -> dict[str, Any]:
    """`cairn ledger verify FILE` by somebody who has the node's key and nothing else of it."""
    done = subprocess.run(
        [CAIRN, *map(str, ("ledger", "verify", path, "--key", key(node), "--json", *options))],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def key(node: RunningNode) -> str:
    return checkpoint.vkey(origin_of(Settings(home=node.home), keystore(node)), signer(node).public_key())


def signer(node: RunningNode) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(keystore(node).signing_seed)


def alter_ledger(node: RunningNode, *statements: str) -> None:
    """Change the ledger's database as an administrator can, page digests and all."""
    database = node.home / "ledger" / DATABASE
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(LedgerStore(database, readonly=True)) as store:
        PageDigests(digests_path(database)).rebuild(database, store.state_digest())


def alter_index(node: RunningNode, *statements: str) -> int:
    """Change the index's database; how many rows the last statement changed."""
    with closing(sqlite3.connect(index_place(Settings(home=node.home)), isolation_level=None)) as connection:
        changed = [connection.execute(statement).rowcount for statement in statements]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return changed[-1]


def sign_anew(node: RunningNode) -> None:
    """Make the whole log again from what the index says now, with the node's own key."""
    shutil.rmtree(node.home / "ledger")
    settings, held = Settings(home=node.home), keystore(node)
    keyring = Keyring(node.home / "keys" / "keys.db", held)
    with (
        closing(keyring),
        closing(record_source(settings, keyring, held)) as source,
        closing(SoloEngine(ledger_home(settings), signer(node), origin_of(settings, held))) as engine,
    ):
        while Sealer(source, engine, signer(node)).step():
            pass


def envelopes(node: RunningNode) -> list[bytes]:
    with closing(LedgerStore(node.home / "ledger" / DATABASE, readonly=True)) as store:
        return [row.envelope for row in store.all_entries()]


@pytest.mark.parametrize(
    "change",
    ["time = time + 1", "actor = zeroblob(16)", "envelope = (SELECT envelope FROM entries WHERE idx = 2)"],
)
def test_admin_edits_a_past_entry_in_own_database(node: RunningNode, change: str) -> None:
    alter_ledger(node, f"UPDATE entries SET {change} WHERE idx = 1")
    assert any(line.startswith("entry 1: ") for line in findings(node))


def test_admin_deletes_a_past_entry_in_own_database(node: RunningNode) -> None:
    alter_ledger(node, "DELETE FROM entries WHERE idx = 1")
    assert any(line.startswith("entry 1: ") for line in findings(node))


def test_admin_with_the_log_key_signs_the_whole_history_again(node: RunningNode, kept: Path) -> None:
    assert alter_index(node, "UPDATE batch SET outcome = 12 WHERE closed_seq = 2") == 1
    sign_anew(node)
    assert findings(node, code=0) == []  # nothing in the node itself tells
    [found] = findings(node, "--since", kept)
    assert "a second history was signed with the same key" in found


def test_admin_truncates_the_tail(node: RunningNode) -> None:
    last = len(envelopes(node)) - 1
    alter_ledger(node, f"DELETE FROM entries WHERE idx = {last}")
    assert any("the log holds only" in line for line in findings(node))


def test_admin_truncates_the_tail_with_the_log_key(node: RunningNode, kept: Path) -> None:
    last = "(SELECT max(closed_seq) FROM batch)"
    assert alter_index(node, f"UPDATE batch SET closed_seq = NULL, closed = NULL, opened = 0 WHERE closed_seq = {last}")
    sign_anew(node)
    assert any(
        "the log was truncated or an older copy of it restored" in line for line in findings(node, "--since", kept)
    )


def test_admin_restores_an_old_backup(early: RunningNode, kept: Path) -> None:
    assert findings(early, code=0) == []
    [found] = findings(early, "--since", kept)
    assert "the log was truncated or an older copy of it restored" in found


def test_log_owner_shows_different_logs_to_different_hospitals(node: RunningNode, kept: Path, tmp_path: Path) -> None:
    shown = shutil.copy(node.home / "ledger/checkpoint", tmp_path / "shown to one")
    alter_index(node, "UPDATE batch SET purpose = 'HRESCH' WHERE closed_seq = 2")
    sign_anew(node)
    other = node.home / "ledger/checkpoint"
    for path in (shown, other):  # each is signed, and holds for who sees it alone
        assert verify_file(node, path, code=0)["valid"]
    told = verify_file(node, other, "--since", shown, code=3)
    assert "a second history was signed with the same key" in told["findings"][0]["what"]
    # A witness signs one of them; who asks for it is shown that one or none.
    witness = Ed25519PrivateKey.generate()
    named = cosignature.cosigner("witness.example", witness.public_key()).vkey()
    policy = tmp_path / "policy"
    policy.write_text(f"log {key(node)}\nwitness w {named}\nquorum w\n")
    shown.write_text(cosignature.sign(shown.read_text("utf-8"), "witness.example", witness, int(time.time())), "utf-8")
    for path, code in ((shown, 0), (other, 3)):
        command = [CAIRN, "ledger", "verify", str(path), "--policy", str(policy)]
        assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == code


def test_hospital_omits_an_access_from_the_log(node: RunningNode, early: RunningNode) -> None:
    """Records are made before bytes are served: without an entry after a minute they are found."""
    shutil.rmtree(node.home / "ledger")
    shutil.copytree(early.home / "ledger", node.home / "ledger")
    assert alter_index(node, f"UPDATE batch SET closed = closed - {HOUR_US}") > 2
    assert any("has been waiting for its entry" in line for line in findings(node))


def test_hospital_removes_the_record_of_an_access(node: RunningNode) -> None:
    accessed = "(SELECT id FROM batch WHERE type = 'study.access')"
    assert alter_index(node, f"DELETE FROM record WHERE batch IN {accessed} AND position = 0") >= 1
    assert any("records are held of" in line for line in findings(node))


def test_hospital_back_dates_an_entry(node: RunningNode) -> None:
    assert alter_index(node, f"UPDATE batch SET closed = closed - {HOUR_US} WHERE closed_seq = 2") == 1
    assert any("its time is not that of batch 2" in line for line in findings(node))


def test_hospital_inserts_an_entry_dated_back(node: RunningNode) -> None:
    """It can only be put at the end, or the chain breaks where it is put."""
    held = envelopes(node)
    trust = Trust.solo(signer(node).public_key(), origin_of(Settings(home=node.home), keystore(node)))
    second = entry.read(held[1])
    late = replace(second, records_root=bytes(32), time_us=second.time_us + 1)
    forged = entry.sign(entry.encode(late), signer(node))
    report = verify_log([held[0], forged, *held[1:]], [], trust)
    assert any(finding.place == "entry 2" and "sequence" in finding.what for finding in report.findings)


def test_node_replays_an_entry(node: RunningNode) -> None:
    held = envelopes(node)
    origin = origin_of(Settings(home=node.home), keystore(node))
    trust = Trust.solo(signer(node).public_key(), origin)
    report = verify_log([*held, held[1]], [], trust)
    assert any("the same records as entry 1" in finding.what for finding in report.findings)
    # The same node's entry of another ledger: its signature is good, the ledger it names is not this one.
    elsewhere = Trust.solo(signer(node).public_key(), "another/ledger")
    foreign = verify_log([held[0]], [], elsewhere)
    assert any("another ledger" in finding.what for finding in foreign.findings)


def test_stolen_node_key_rewrites_what_others_have_seen(node: RunningNode, kept: Path, tmp_path: Path) -> None:
    """The thief's log is signed properly; any checkpoint or proof that was given out before contradicts it."""
    thief = tmp_path / "thief"
    with closing(SoloEngine(thief, signer(node), origin_of(Settings(home=node.home), keystore(node)))):
        pass
    (thief / DATABASE).unlink()
    assert verify_file(node, thief, code=0)["valid"]
    told = verify_file(node, thief, "--since", kept, code=3)
    assert "the log was truncated or an older copy of it restored" in told["findings"][0]["what"]


def test_outsider_forges_a_checkpoint_or_an_entry(node: RunningNode, tmp_path: Path) -> None:
    outsider = Ed25519PrivateKey.generate()
    origin = origin_of(Settings(home=node.home), keystore(node))
    held = envelopes(node)
    forged = tmp_path / "forged"
    forged.write_text(checkpoint.make(origin, 1, merkle.leaf_hash(held[0]), outsider), "utf-8")
    assert verify_file(node, forged, code=3)["step"] == "checkpoint"
    said = replace(entry.read(held[0]), outcome=8)
    envelope = entry.sign(entry.encode(said), outsider)
    note = checkpoint.make(origin, 1, entry.leaf_hash(envelope), outsider)
    forged.write_text(proof.encode(envelope, 0, [], note), "utf-8")
    assert verify_file(node, forged, code=3)["step"] == "checkpoint"
    # Even under a checkpoint of the log, the entry is not the node's.
    note = checkpoint.make(origin, 1, entry.leaf_hash(envelope), signer(node))
    forged.write_text(proof.encode(envelope, 0, [], note), "utf-8")
    assert verify_file(node, forged, code=3)["step"] == "entry"


def test_dictionary_attack_on_tags_by_members(node: RunningNode, tmp_path: Path) -> None:
    """The log's files hold no name or UID, and no plain hash of one; another node's tags of the same study differ."""
    words = {"viewer", "clinician", "127.0.0.1"}
    for sent in SENT:
        read = pydicom.dcmread(sent.file, stop_before_pixels=True)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "PatientName"):
            words.add(str(read.get(keyword, "")))
    published = b"".join(envelopes(node))
    assert len(words) > 20
    for word in words - {"", "viewer", "clinician"}:
        for form in (
            word.encode(),
            *(hashlib.new(name, word.encode()).digest()[:8] for name in ("sha256", "sha1", "md5")),
        ):
            assert len(form) < 4 or form not in published, word
    second = RunningNode(tmp_path / "second")
    second.cairn("import", str(viewed().file))
    tags = [study_tags(each) for each in (node, second)]
    assert all(tags) and not tags[0] & tags[1]


def study_tags(node: RunningNode) -> set[bytes]:
    """The tags of the one study that both nodes hold."""
    with closing(sqlite3.connect(index_place(Settings(home=node.home)))) as connection:
        uid = str(pydicom.dcmread(viewed().file, stop_before_pixels=True).StudyInstanceUID)
        return {tag for (tag,) in connection.execute("SELECT DISTINCT study_tag FROM batch WHERE study = ?", (uid,))}


def test_traffic_analysis_by_members(node: RunningNode) -> None:
    """A dozen requests of one viewing are one entry, which holds no count, modality or description."""
    said = [entry.read(envelope) for envelope in envelopes(node)]
    assert len([each for each in said if each.type == "study.access"]) == 1
    for envelope in envelopes(node):
        payload = codec.decode(entry.unwrap(envelope)[1])
        assert isinstance(payload, dict)
        assert set(payload) <= {"n", "p", "q", "t", "v", "ac", "lg", "oc", "pu", "rr", "ts", "who", "sub", "obj"}


def test_malformed_huge_or_ambiguous_cbor(node: RunningNode, tmp_path: Path) -> None:
    origin = origin_of(Settings(home=node.home), keystore(node))
    envelope = envelopes(node)[0]
    payload = entry.unwrap(envelope)[1]
    nested = b"\x81" * 5000 + b"\x00"
    for wrong in (
        payload[:1] + payload[1:].replace(b"\x61\x76\x01", b"\x61\x76\x18\x01", 1),  # 1 in two bytes
        b"\xbf" + payload[1:] + b"\xff",  # an indefinite map
        bytes([payload[0] + 1]) + payload[1:] + b"\x61n\x40",  # a key again
        nested,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"",
    ):
        protected = bytes.fromhex("a201270448") + keys.key_id(signer(node).public_key())
        to_sign = bytes.fromhex("846a5369676e617475726531") + b"".join(
            [codec.encode(protected), b"\x40", codec.encode(wrong)]
        )
        forged = codec.encode([protected, {}, wrong, signer(node).sign(to_sign)])
        note = checkpoint.make(origin, 1, entry.leaf_hash(forged), signer(node))
        path = tmp_path / "wrong"
        path.write_text(proof.encode(forged, 0, [], note), "utf-8")
        assert verify_file(node, path, code=3)["step"] == "entry"
    path.write_bytes(b"c2sp.org/tlog-proof@v1\n" + b"A" * 3_000_000)
    assert verify_file(node, path, code=3)["step"] == "format"


def test_non_determinism_across_python_versions(node: RunningNode) -> None:
    """What is signed follows from the batches alone: made again, every envelope is the same, byte for byte."""
    before = envelopes(node)
    sign_anew(node)
    assert envelopes(node) == before


def test_light_client_is_fed_stale_state(early: RunningNode, kept: Path) -> None:
    stale = early.home / "ledger/checkpoint"
    assert verify_file(early, stale, code=0)["valid"]
    told = verify_file(early, stale, "--since", kept, code=3)
    assert "older copy" in told["findings"][0]["what"]


def test_erasure_request_against_immutability(node: RunningNode, tmp_path: Path) -> None:
    """The key gone without a word, a proof withholds the detail and holds; that no erase entry says so is a finding."""
    leaf, study = a_record_about_a_study(node)
    with closing(Keyring(node.home / "keys" / "keys.db", keystore(node))) as keyring:
        assert keyring.delete(study)
    withheld(node, leaf, tmp_path / "withheld")
    assert any("there is no erase entry for its study" in line for line in findings(node))


def test_erasure_request_carried_out_leaves_the_tree_as_it_was(node: RunningNode, kept: Path, tmp_path: Path) -> None:
    """`cairn study erase`: nothing is a finding, the older checkpoint holds, and the detail is withheld for good."""
    leaf, study = a_record_about_a_study(node)
    before = envelopes(node)
    node.cairn("study", "erase", study, "--yes")
    assert findings(node, "--since", kept, code=0) == []
    assert envelopes(node)[: len(before)] == before
    withheld(node, leaf, tmp_path / "withheld")


def a_record_about_a_study(node: RunningNode) -> tuple[bytes, str]:
    """A record's leaf, and the Study Instance UID that it is about."""
    with closing(sqlite3.connect(index_place(Settings(home=node.home)))) as connection:
        query = "SELECT leaf, study FROM record JOIN batch ON batch.id = record.batch WHERE study IS NOT NULL LIMIT 1"
        leaf, study = connection.execute(query).fetchone()
    return leaf, study


def withheld(node: RunningNode, leaf: bytes, out: Path) -> None:
    node.cairn("ledger", "prove", leaf.hex(), "--out", str(out))
    told = verify_file(node, out, code=0)
    assert told["record"] == {"id": leaf.hex(), "withheld": True}
