"""The sealer: closed batches become signed entries, in order, each exactly once.

1. where the node's chain and the cursor stand            engine.position
2. closed batches behind the cursor, at most 1,024        source.closed_batches
3. leave out what was sealed under a former epoch         engine.held
4. make an entry for each, chained to the last: all but the last one are signed for that
5. append them and move the cursor, in one transaction    engine.append
6. when there are none: entries whose batch the engine does not know, for it was restored from others, are linked to it
   again, by the root over its records                    engine.link
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ledger import entry, keys
from ledger.engine import Engine, Position, Sealed
from ledger.entry import Entry, Who
from ledger.errors import ChainBroken
from ledger.source import ClosedBatch, Cursor, RecordSource

BATCHES = 1024  # entries in one transaction
POLL = 0.2  # seconds between looks at the source
REST = 2.0  # seconds without a batch after which the engine settles


class Sealer:
    """Seals what `source` has closed, through `engine`, with the node's key.

    What source or engine raise goes through, and the next step starts again from what is durable; so a step may be
    repeated after any fault or kill -9 and never seals a batch twice.
    """

    def __init__(self, source: RecordSource, engine: Engine, signer: keys.Signer, limit: int = BATCHES) -> None:
        self._source, self._engine, self._signer, self._limit = source, engine, signer, limit
        self._kid = keys.key_id(signer.public_key())
        self._looked = 0  # (6) up to which batch was looked
        self._unknown = 0  # of how many entries no batch was found in all of them

    def step(self) -> int:
        """Seal the next closed batches; how many entries were made, or linked to their batches again."""
        position = self._engine.position()  # (1)
        epoch = self._source.epoch()
        after = position.cursor.id if position.cursor.epoch == epoch else 0
        batches = self._source.closed_batches(after, self._limit)  # (2)
        if not batches:
            return self._link(epoch)  # (6)
        if [batch.id for batch in batches] != sorted({batch.id for batch in batches}) or batches[0].id <= after:
            raise ChainBroken("the source's batches are not in ascending order behind the cursor", f"batch {after}")
        # (3) A batch without records has nothing to prove and gets no entry.
        held = self._engine.held([batch.records_root for batch in batches], epoch)
        fresh = [batch for batch in batches if batch.records and batch.records_root not in held]
        sealed = self._seal(fresh, position, epoch)  # (4)
        self._engine.append(sealed, Cursor(epoch, batches[-1].id))  # (5)
        return len(sealed)

    def run(self, stop: threading.Event, wake: threading.Event | None = None) -> None:
        """Step until `stop` is set, looking every 0.2 s or when `wake` is set.

        What was sealed is published as soon as there is nothing more to seal, and settled when that lasts for 2 s: to
        settle after each batch would cost a lone one more than its own commit. Returns after the step under way; the
        engine stays open.
        """
        idle = wake if wake is not None else stop
        unsettled, since = True, time.monotonic() - REST
        while not stop.is_set():
            if self.step():
                unsettled, since = True, time.monotonic()
                continue
            self._engine.publish()
            if unsettled and time.monotonic() - since >= REST:
                unsettled = not self._engine.settle()
            if idle.wait(POLL) and wake is not None:
                wake.clear()

    def _link(self, epoch: bytes) -> int:
        """Some of the source's batches, from the first on, until nothing is left to be linked; how many were."""
        unknown = self._engine.unlinked()
        if unknown == self._unknown:
            self._looked = 0
            return 0
        batches = self._source.closed_batches(self._looked, self._limit)
        if not batches:
            self._looked, self._unknown = 0, unknown  # those are of batches that the source does not hold either
            return 0
        self._looked = batches[-1].id
        return self._engine.link(batches, epoch)

    def _seal(self, batches: Sequence[ClosedBatch], position: Position, epoch: bytes) -> list[Sealed]:
        sealed: list[Sealed] = []
        for sequence, batch in enumerate(batches, position.sequence):
            previous = entry.envelope_hash(sealed[-1].envelope) if sealed else position.previous
            stated = entry_of(batch, position, sequence, previous)
            payload = entry.encode(stated)
            sealed.append(Sealed(stated, payload, Cursor(epoch, batch.id), batch.records, self._sign))
        return sealed

    def _sign(self, payload: bytes) -> bytes:
        return entry.sign(payload, self._signer, self._kid)


def entry_of(batch: ClosedBatch, position: Position, sequence: int, previous: bytes) -> Entry:
    """The entry that states a closed batch at this place of the node's chain."""
    return Entry(
        node=position.node,
        sequence=sequence,
        previous=previous,
        type=batch.type,
        ledger=position.ledger,
        time_us=batch.time_us,
        purpose=batch.purpose,
        outcome=batch.outcome,
        who=Who(batch.actor_kind, batch.actor_tag, batch.role, batch.address_tag),
        study=batch.study_tag,
        commitment=batch.commitment,
        records_root=batch.records_root,
        body=batch.body,
        refs=batch.refs,
    )
