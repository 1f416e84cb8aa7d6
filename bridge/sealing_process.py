"""The ledger's process: closed batches of the index become signed entries, until told to stop.

It never writes the index. Records stay sealed to it: it needs their leaf hashes alone, so it is given no study keys.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Settings
from bridge.crypto.keystore import Keystore
from bridge.index.record_source import SqlRecordSource
from bridge.ledger_reading import actor_tags, index_path, ledger_home, origin_of
from ledger.engine.solo import SoloEngine
from ledger.sealer import Sealer

log = logging.getLogger(__name__)
BEAT_S = 1.0


def run(settings: Settings, keystore: Keystore, ended: threading.Event, beat: Callable[[], None]) -> None:
    """Seal until `ended` is set, then what the doors closed last. Raises what the ledger's database raises."""
    signer = Ed25519PrivateKey.from_private_bytes(keystore.signing_seed)
    engine = SoloEngine(ledger_home(settings), signer, origin_of(settings, keystore))
    source = SqlRecordSource(index_path(settings), actor_tags(keystore))
    stopped = threading.Event()
    pulse = threading.Thread(target=_beat, args=(stopped, beat), name="pulse", daemon=True)
    pulse.start()
    try:
        sealer = Sealer(source, engine, signer)
        sealer.run(ended)
        while sealer.step():
            pass
    finally:
        stopped.set()
        pulse.join()
        engine.close()
        source.close()


def _beat(stopped: threading.Event, beat: Callable[[], None]) -> None:
    beat()
    while not stopped.wait(BEAT_S):
        beat()
