"""The solo engine keeps the contract of engines."""

from __future__ import annotations

from pathlib import Path

from ledger.engine.solo import SoloEngine
from tests.contract.engine import EngineContract
from tests.ledger.ledger_source import KEY, ORIGIN


class TestSoloEngine(EngineContract):
    def make(self, home: Path) -> SoloEngine:
        return SoloEngine(home, KEY, ORIGIN)

    def log(self, home: Path) -> Path:
        return home
