"""The trail in memory, which other tests stand on, keeps the contract itself."""

from tests.contract.audit_trail import AuditTrailContract, details_of, event_of
from tests.contract.memory_trail import MemoryTrail


class TestMemoryTrail(AuditTrailContract):
    def make(self, home):
        self.sealed = 0
        yield MemoryTrail()

    def seal(self, trail, facts):
        for fact in facts:
            trail.seal(event_of(fact, self.sealed), details_of(fact))
            self.sealed += 1
