"""Makes provenance records: one fact each, canonical, salted, sealed, with the leaf hash that the ledger will sign.

A record about a study is sealed under that study's key and is gone with it; one about no study is sealed under the
node's audit key. UIDs are in it, names of patients never are (DESIGN section 6).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from bridge.crypto import records
from bridge.model import Actor, SealedRecord
from ledger import record as ledger_record

Clock = Callable[[], int]
CborValue = object


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def iso(time_us: int) -> str:
    """A time in microseconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def by(actor: Actor) -> dict[str, CborValue]:
    """The actor as a record holds it."""
    return {
        "kind": actor.kind.value,
        "name": actor.name,
        "role": actor.role.value if actor.role else "",
        "address": actor.address,
        "how": actor.how,
    }


class Provenance:
    """Seals records under a given key; the clock and randomness are passed in so that tests repeat."""

    def __init__(self, clock: Clock = now_us, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy

    def seal(self, kind: str, body: Mapping[str, CborValue], key: bytes) -> SealedRecord:
        """The record of type `kind` with `body`, sealed under a record key of `bridge.crypto.derive`."""
        encoded = ledger_record.encode(
            ledger_record.Record(type=kind, time_us=self._clock(), salt=self._entropy(16), body=dict(body))
        )
        return records.seal_record(key, encoded)
