"""The ledger verifies with no database, network, DICOM library or command line to import, and in any process alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ledger_source import KEY, ORIGIN, Source

import ledger
from ledger import checkpoint, proof, tiles
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.sealer import Sealer
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

ROOT = Path(ledger.__file__).parents[1]
BLOCKED = (
    *("_socket", "_sqlite3", "_ssl", "asyncio", "bridge", "click", "dicomweb", "http", "httptools", "pydicom"),
    *("pynetdicom", "requests", "socket", "sqlalchemy", "sqlite3", "ssl", "starlette", "urllib3", "uvicorn", "uvloop"),
)
ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse())
"""
VERIFY = """
from ledger import policy, proof, kept
vkey, text = sys.argv[1], open(sys.argv[2], encoding="utf-8").read()
trust = policy.parse(f"log {vkey}\\nquorum none\\n".encode())
proved = proof.verify_under(text, trust)
assert kept.read(text, trust).head == proved.head
print(proved.entry.type, proved.index, proved.record.body)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proof of a record, in a file."""
    home = tmp_path_factory.mktemp("made")
    source = Source()
    for _ in range(3):
        source.close()
    engine = SoloEngine(home, KEY, ORIGIN)
    Sealer(source, engine, KEY).step()
    engine.close()
    store = LedgerStore(home / DATABASE, readonly=True)
    row, note = store.entry(1), store.checkpoint()
    store.close()
    assert row is not None and note is not None
    of = proof.record_path([item.leaf for item in source.leaves[2]], 1, source.leaves[2][1].record)
    path = home / "one.tlog-proof"
    path.write_text(proof.make(1, row.envelope, note, tiles.node_reader(3, TileFiles(home).read), of), "utf-8")
    return path


def run(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {BLOCKED!r}\n{ALONE}{program}", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_proof_is_verified_where_no_database_network_or_dicom_can_be_imported(made: Path) -> None:
    done = run(VERIFY, checkpoint.vkey(ORIGIN, KEY.public_key()), made)
    assert (done.returncode, done.stdout) == (0, "study.store 1 {'n': 1}\n"), done.stderr


def test_the_blocking_is_real() -> None:
    for name in ("sqlite3", "socket", "sqlalchemy", "pynetdicom", "bridge"):
        assert f"{name} is blocked" in run(f"import {name}").stderr.replace("_sqlite3", "sqlite3")


def test_what_is_signed_is_the_same_in_every_process_whatever_the_order_of_its_sets() -> None:
    program = """
from test_ledger_entry import GOLDEN, KEY, ENVELOPE_HEX
from ledger import entry
print(entry.sign(entry.encode(GOLDEN), KEY).hex() == ENVELOPE_HEX)
"""
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout == "True\n", done.stderr
