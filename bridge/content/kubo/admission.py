"""Whether a Kubo may be used: its configuration and version are judged before anything is brought to it.

What endangers the archive is refused until it is mended; what is unwise is told once in the log, and to whoever asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from bridge.content.kubo.configuration import Finding, judge
from bridge.errors import EngineFault

__all__ = ["Admission"]

log = logging.getLogger(__name__)
AGAIN_S: Final = {True: 300.0, False: 5.0}  # when it is judged anew: after it was admitted, after it was refused


class Admission:
    """The judgement of one Kubo, made anew from time to time, for it may be restarted otherwise. Thread-safe.

    Parameters
    ----------
    configuration, version
        Ask the Kubo; both raise EngineFault.
    now
        Monotonic seconds.
    """

    def __init__(
        self,
        configuration: Callable[[], dict[str, Any]],
        version: Callable[[], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration, self._version, self._now = configuration, version, now
        self._lock = threading.Lock()
        self._findings: list[Finding] = []
        self._until: float | None = None

    def findings(self) -> list[Finding]:
        """What is dangerous, refusals first. Raises EngineFault when Kubo does not answer, or not this question."""
        with self._lock:
            now = self._now()
            if self._until is None or now >= self._until:
                found = judge(self._configuration(), self._version())
                for finding in found:
                    if finding not in self._findings:
                        log.warning("Kubo: %s; to mend it: %s", finding.danger, finding.command)
                self._findings = found
                self._until = now + AGAIN_S[not any(finding.severity == "refuse" for finding in found)]
            return list(self._findings)

    def check(self) -> None:
        """Return when Kubo may be used. Raises EngineFault, with the command that mends it, when it is refused."""
        for finding in self.findings():
            if finding.severity == "refuse":
                raise EngineFault(
                    f"Kubo is not used, for {finding.danger}; to mend it: {finding.command} (then restart Kubo)"
                )
