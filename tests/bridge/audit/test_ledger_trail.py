"""The trail over audit.db keeps the contract."""

from contextlib import closing

from tests.bridge.audit.sealed_facts import Archive
from tests.contract.audit_trail import AuditTrailContract


class TestLedgerTrail(AuditTrailContract):
    def make(self, home):
        with closing(Archive(home / "home")) as self.archive, closing(self.archive.trail()) as trail:
            yield trail

    def seal(self, trail, facts):
        self.archive.seal(facts)
