"""The ledger's process, "ledger-0": closed batches of the index become signed entries, until told to stop.

With the solo engine it seals, and nothing else. In a consortium a thread seals, and the main one looks after CometBFT,
which is its child (`bridge.consensus.participant`).

It never writes the index. Records stay sealed to it: it needs their leaf hashes alone, so it is given no study keys.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from bridge.config import Settings
from bridge.consortium_rotation import accepted
from bridge.crypto.keystore import Keystore
from bridge.errors import CapacityError, StorageFault
from bridge.index.record_source import SqlRecordSource
from bridge.ledger_reading import actor_tags, index_place, ledger_home, origin_of
from bridge.supervisor import RENEW
from ledger.engine import Engine
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import LedgerError
from ledger.keys import SigningKey
from ledger.sealer import Sealer
from ledger.store import LedgerStore

log = logging.getLogger(__name__)
BEAT_S: Final = 1.0
TICK_S: Final = 0.5
AGAIN_S: Final = 1.0
TOLD_AGAIN_S: Final = 60.0


def run(settings: Settings, keystore: Keystore, ended: threading.Event, beat: Callable[[bool], None]) -> None:
    """Seal until `ended` is set, then what the doors closed last. Raises what the ledger's database raises.

    `beat` is told once a second whether the ledger is open: before that nothing is sealed.
    """
    stopped, opened = threading.Event(), threading.Event()
    pulse = threading.Thread(target=_beat, args=(stopped, opened, beat), name="pulse", daemon=True)
    pulse.start()
    try:
        if settings.ledger.engine == "solo":
            _alone(settings, keystore, ended, opened)
        else:
            _in_consortium(settings, keystore, ended, opened)
    finally:
        stopped.set()
        pulse.join()


def seal_closed(settings: Settings, keystore: Keystore, *, begin: bool) -> None:
    """Seal, at once, what is closed and has no entry: for a command that records while no node runs.

    A ledger with nothing to seal is not opened, and one that is not there is begun with `begin` alone: it may have been
    lost. One that a consortium orders is left to the node's next start, as is one that does not take entries now: what
    is recorded is durable, and is sealed then. Raises StorageFault, Busy.
    """
    if settings.ledger.engine != "solo":
        return
    ended = threading.Event()
    ended.set()
    try:
        if _waits(settings, keystore, begin):
            _alone(settings, keystore, ended)
    except (LedgerError, OSError, TypeError, ValueError) as error:  # what reading a damaged one may raise
        log.error("the ledger takes no entry: run cairn ledger verify", extra={"reason": str(error)})


def _waits(settings: Settings, keystore: Keystore, begin: bool) -> bool:
    """Whether a closed batch may have no entry."""
    path = ledger_home(settings) / DATABASE
    if not path.exists():
        return begin
    with closing(LedgerStore(path, readonly=True)) as store:
        cursor = store.state().cursor
    with closing(SqlRecordSource(index_place(settings), actor_tags(keystore))) as source:
        return bool(source.closed_batches(cursor.id if cursor.epoch == source.epoch() else 0, 1))


def _alone(
    settings: Settings, keystore: Keystore, ended: threading.Event, opened: threading.Event | None = None
) -> None:
    signer = SigningKey(keystore.signing_seed)
    engine = SoloEngine(ledger_home(settings), signer, origin_of(settings, keystore))
    if opened is not None:
        opened.set()
    try:
        _seal(settings, keystore, engine, ended)
    finally:
        engine.close()


def _in_consortium(settings: Settings, keystore: Keystore, ended: threading.Event, opened: threading.Event) -> None:
    from bridge.consensus.participant import Participant

    part = Participant(settings, keystore)
    opened.set()
    assert part.engine is not None
    broken = part.broken
    stopping = threading.Event()

    def seal(engine: Engine) -> None:
        try:
            _seal(settings, keystore, engine, stopping)
        except Exception:
            log.exception("sealing failed")
            broken.set()

    sealing = threading.Thread(target=seal, args=(part.engine,), name="sealer", daemon=True)
    sealing.start()
    renewing = False
    try:
        while not ended.wait(TICK_S) and not broken.is_set():
            part.step()
            if not renewing and part.awaits_key(keystore) and accepted(settings, keystore):
                log.info("the members accepted this node's new ledger key: its processes are started afresh with it")
                os.kill(os.getppid(), RENEW)
                renewing = True
    finally:
        stopping.set()
        sealing.join()
        part.close()
    if broken.is_set():
        raise SystemExit(1)  # to be started afresh


def _seal(settings: Settings, keystore: Keystore, engine: Engine, ended: threading.Event) -> None:
    """Seal until `ended` is set, then what was closed last.

    While the index cannot be read, as when its PostgreSQL is gone, sealing waits and the engine goes on.
    """
    told = -TOLD_AGAIN_S
    while True:
        try:
            return _seal_while_readable(settings, keystore, engine, ended)
        except (StorageFault, CapacityError) as error:
            if time.monotonic() - told >= TOLD_AGAIN_S:
                told = time.monotonic()
                log.error("the index cannot be read: sealing waits", extra={"slug": error.slug, "reason": error.detail})
        if ended.wait(AGAIN_S):
            return  # what is left is sealed after the next start


def _seal_while_readable(settings: Settings, keystore: Keystore, engine: Engine, ended: threading.Event) -> None:
    signer = SigningKey(keystore.signing_seed)
    source = SqlRecordSource(index_place(settings), actor_tags(keystore))
    try:
        sealer = Sealer(source, engine, signer)
        sealer.run(ended)
        while sealer.step():
            pass
    finally:
        source.close()


def _beat(stopped: threading.Event, opened: threading.Event, beat: Callable[[bool], None]) -> None:
    """Once a second, and at once when the ledger is open."""
    beat(opened.is_set())
    while not stopped.is_set():
        (stopped if opened.is_set() else opened).wait(BEAT_S)
        beat(opened.is_set())
