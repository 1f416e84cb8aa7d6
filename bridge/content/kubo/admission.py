"""Whether a Kubo may be used: its configuration and version are judged before anything is brought to it.

What endangers the archive is refused until it is mended; what is unwise is told once in the log, and to whoever asks.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bridge.content.kubo.configuration import Finding, judge
from bridge.errors import EngineFault

__all__ = ["IDENTITY", "Admission", "peer_of"]

log = logging.getLogger(__name__)
IDENTITY: Final = "Identity.PeerID"
"""The key of the finding that another Kubo answers than this node's own."""
AGAIN_S: Final = {True: 300.0, False: 5.0}  # when it is judged anew: after it was admitted, after it was refused


class Admission:
    """The judgement of one Kubo, made anew from time to time, for it may be restarted otherwise. Thread-safe.

    Parameters
    ----------
    configuration, version
        Ask the Kubo; both raise EngineFault.
    own
        The peer ID of the Kubo that this node runs itself, and no other is used then; None: any that may be.
    now
        Monotonic seconds.
    """

    def __init__(
        self,
        configuration: Callable[[], dict[str, Any]],
        version: Callable[[], str],
        own: Callable[[], str | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration, self._version, self._own, self._now = configuration, version, own, now
        self._lock = threading.Lock()
        self._findings: list[Finding] = []
        self._until: float | None = None

    def findings(self) -> list[Finding]:
        """What is dangerous, refusals first. Raises EngineFault when Kubo does not answer, or not this question."""
        with self._lock:
            now = self._now()
            if self._until is None or now >= self._until:
                config = self._configuration()
                found = [*self._foreign(config), *judge(config, self._version())]
                for finding in found:
                    if finding not in self._findings:
                        log.warning("Kubo: %s; to mend it: %s", finding.danger, finding.command)
                self._findings = found
                self._until = now + AGAIN_S[not any(finding.severity == "refuse" for finding in found)]
            return list(self._findings)

    def check(self, key: str | None = None) -> None:
        """Return when Kubo may be used. Raises EngineFault, with the command that mends it, when it is refused.

        With a `key` (as IDENTITY), when it is refused for that.
        """
        for finding in self.findings():
            if finding.severity == "refuse" and key in (None, finding.key):
                raise EngineFault(
                    f"Kubo is not used, for {finding.danger}; to mend it: {finding.command} (then restart Kubo)"
                )

    def _foreign(self, config: dict[str, Any]) -> list[Finding]:
        """Another hospital's Kubo may listen where this node's own ought to."""
        own, identity = self._own(), config.get("Identity")
        if own is None or (isinstance(identity, dict) and identity.get("PeerID") == own):
            return []
        danger = "another one than this node's own answers at content.kubo.api"
        return [
            Finding("refuse", "Identity.PeerID", danger, "give content.kubo.api a port of its own, or end the other")
        ]


def peer_of(repository: Path) -> str:
    """The peer ID of the Kubo whose repository this is; "" while there is none."""
    try:
        return str(json.loads((repository / "config").read_text("utf-8"))["Identity"]["PeerID"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
