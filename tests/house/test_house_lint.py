"""The checks of `make lint` are alive: a violation planted in a copy of the tree is reported by each of them."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRACTS = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]


class Plant(NamedTuple):
    """A line put into a file, and the import contract that it breaks."""

    file: str
    line: str
    contract: str


PLANTS = (
    Plant("ledger/merkle.py", "import bridge.errors", "imports run one way: dicomweb, bridge, ledger"),
    Plant(
        "bridge/model.py",
        "import bridge.dicom.matching",
        "inside bridge imports run one way, from the command to the values",
    ),
    Plant("bridge/dicom/matching.py", "import socket", "the pure core touches no world"),
    Plant("dicomweb/qido.py", "import bridge.services.store", "the doors know the recipes only by what they are given"),
    Plant(
        "bridge/services/store.py", "import bridge.index.index", "the recipes know the index and access only as ports"
    ),
    Plant(
        "bridge/services/store.py",
        "import pynetdicom",
        "only the DICOM door and the sample know pynetdicom and pydicom",
    ),
    Plant("dicomweb/wado.py", "import sqlalchemy", "only the index knows SQLAlchemy and PostgreSQL"),
    Plant("bridge/services/store.py", "import starlette", "only dicomweb knows Starlette"),
    Plant("ledger/errors.py", "import sqlalchemy", "the ledger stands alone"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("bridge", "ledger", "dicomweb"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / command[0], *command[1:]], cwd=tree, capture_output=True, text=True, check=False, timeout=200
    )


def plant(file: Path, line: str) -> None:
    """Append, so that the module docstring and `from __future__` stay first."""
    assert file.exists(), f"{file} has moved: plant the violation elsewhere"
    file.write_text(f"{file.read_text('utf-8')}\n\n{line}\n", "utf-8")


def test_every_import_contract_has_a_planted_violation() -> None:
    assert sorted(CONTRACTS) == sorted({item.contract for item in PLANTS})


def test_import_linter_reports_every_planted_import(tree: Path) -> None:
    before = run(tree, "lint-imports", "--no-cache")
    assert before.returncode == 0, before.stdout
    for item in PLANTS:
        plant(tree / item.file, item.line)
    after = run(tree, "lint-imports", "--no-cache")
    assert after.returncode == 1, after.stdout
    verdicts = dict(re.findall(r"^(.*) (KEPT|BROKEN)\b", after.stdout, re.MULTILINE))
    assert {name: verdicts.get(name) for name in CONTRACTS} == dict.fromkeys(CONTRACTS, "BROKEN"), after.stdout


def test_mypy_reports_a_planted_untyped_function(tree: Path) -> None:
    plant(tree / "ledger/merkle.py", "def planted(value):\n    return value")
    result = run(tree, "mypy", "-p", "ledger")
    assert result.returncode == 1, result.stdout
    assert "[no-untyped-def]" in result.stdout
    assert "merkle.py" in result.stdout


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("import socket", "F401"),
        ("planted = datetime.datetime.now()", "DTZ005"),
        ("def planted(rows=[]): return rows", "B006"),
        ("print('patient')", "T201"),
    ],
)
def test_ruff_reports_a_planted_violation(tree: Path, line: str, rule: str) -> None:
    plant(tree / "ledger/merkle.py", f"import datetime\n\n{line}")
    result = run(tree, "ruff", "check", ".")
    assert result.returncode == 1, result.stdout
    assert rule in result.stdout


def test_ruff_reports_a_file_out_of_form(tree: Path) -> None:
    plant(tree / "ledger/merkle.py", "planted = {  'a':1 }")
    result = run(tree, "ruff", "format", "--check", ".")
    assert result.returncode == 1, result.stdout
    assert "merkle.py" in result.stdout
