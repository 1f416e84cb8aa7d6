"""A member of a consortium of one, in a process to be killed: seals batches until its log has so many entries.

`python -m tests.bridge.consensus.sealing_participant HOME ENTRIES`; prints height and app hash as JSON when it is done.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import load
from bridge.consensus.participant import Participant
from bridge.crypto.keystore import open_keystore
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from ledger.sealer import Sealer
from tests.ledger.ledger_source import Source

PATIENCE_S = 60.0


def main(home: Path, entries: int) -> None:
    settings, _ = load(None, {"CAIRN_HOME": str(home)})
    keystore = open_keystore(home, None)
    source = Source()
    part = Participant(settings, keystore)
    assert part.engine is not None
    ended, until = threading.Event(), time.monotonic() + PATIENCE_S
    sealer = Sealer(source, part.engine, Ed25519PrivateKey.from_private_bytes(keystore.signing_seed))
    sealing = threading.Thread(target=sealer.run, args=(ended,))
    store = BlockStore(home / "consortium" / "ledger" / DATABASE, readonly=True)
    for _ in range(store.size() + store.waiting() - 1):
        source.close()  # the same batches in every process; the first entry is of none
    sealing.start()
    try:
        while (size := store.size()) < entries and time.monotonic() < until:
            if size > len(source.batches):
                source.close()  # the next, when all before are in blocks
            part.step()
            time.sleep(0.02)
    finally:
        ended.set()
        sealing.join()
        info = part.application.info()
        part.close()
        store.close()
    print(json.dumps({"height": info.height, "app_hash": info.app_hash.hex(), "entries": size}))


if __name__ == "__main__":
    os.environ.setdefault("TZ", "UTC")
    main(Path(sys.argv[1]), int(sys.argv[2]))
