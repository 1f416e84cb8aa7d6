"""The log in memory keeps the contract of LedgerLog, so that what is tested with it holds of the real one."""

import pytest
from ledger_in_memory import MemoryLog, some

from tests.contract.ledger_log import LedgerLogContract


class TestMemoryLog(LedgerLogContract):
    @pytest.fixture
    def empty(self) -> MemoryLog:
        return MemoryLog()

    @pytest.fixture
    def sealed(self) -> tuple[MemoryLog, list[list[bytes]]]:
        log = some().log
        records: list[list[bytes]] = [[] for _ in log.envelopes]
        for leaf, (index, _) in log.records.items():
            records[index].append(leaf)
        return log, records
