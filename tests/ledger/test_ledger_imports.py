"""What the ledger loads, and what its pure modules do not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ledger

PURE = (
    "block",
    "checkpoint",
    "codec",
    "cosignature",
    "entry",
    "errors",
    "finding",
    "genesis",
    "governance",
    "keys",
    "members",
    "merkle",
    "policy",
    "proof",
    "record",
    "replay",
    "run_shared",
    "run",
    "shared_policy",
    "source",
    "state",
    "terms",
    "tiles",
    "transaction",
    "types",
    "verify",
    "verify_shared",
    "wal",
)
WORLD = {"socket", "os", "time", "random", "sqlite3", "threading", "pathlib", "datetime", "asyncio", "subprocess"}
FOLDER = Path(ledger.__file__).parent


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_touch_no_world_and_only_pure_modules(module: str) -> None:
    names = imported(FOLDER / f"{module}.py")
    assert not {name.split(".")[0] for name in names} & (WORLD | {"bridge", "dicomweb"})
    own = {name.split(".")[1] for name in names if name.startswith("ledger.")}
    assert own <= set(PURE)


def test_the_offline_verifier_loads_no_database_server_or_dicom() -> None:
    unwanted = {"sqlite3", "sqlalchemy", "starlette", "pydicom", "pynetdicom", "asyncio", "bridge", "dicomweb"}
    program = f"import sys, ledger.verify, ledger.proof; sys.exit(bool({unwanted!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=FOLDER.parent, timeout=60).returncode == 0


def test_the_whole_package_imports_nothing_of_the_bridge() -> None:
    for path in FOLDER.rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"bridge", "dicomweb"}, path
