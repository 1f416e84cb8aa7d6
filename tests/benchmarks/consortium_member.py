"""A member of a consortium in a process of its own, without a hospital around it: seals what it is told to.

`python -m tests.benchmarks.consortium_member HOME`. Commands are JSON lines on standard input, each answered by one:
{"commits": n} makes n entries, one after another, each when the one before is final: {"ms": [...]}.
{"entries": n} makes n entries at once: {"began", "ended"} by the clock, when the first was sealed and the last final.
"""

import json
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

POLL_S = 0.001
SELDOM_S = 0.05
"""While many wait: counting them takes the processor from who is measured."""


class Member:
    """The engine, its CometBFT, and batches made in memory."""

    def __init__(self, home: Path) -> None:
        settings, _ = load(None, {"CAIRN_HOME": str(home)})
        keystore = open_keystore(home, None)
        self.source = Source(epoch=home.name.encode().ljust(16))
        self.part = Participant(settings, keystore)
        assert self.part.engine is not None
        self.sealer = Sealer(self.source, self.part.engine, Ed25519PrivateKey.from_private_bytes(keystore.signing_seed))
        self.store = BlockStore(home / "consortium" / "ledger" / DATABASE, readonly=True)
        self.ended = threading.Event()
        self.watch = threading.Thread(target=self._look_after)
        self.watch.start()

    def commits(self, count: int) -> dict[str, object]:
        """Milliseconds from sealing an entry until it is final here."""
        times = []
        for _ in range(count):
            self.source.close()
            began = time.perf_counter()
            self.sealer.step()
            self._final(POLL_S)
            times.append((time.perf_counter() - began) * 1000)
        return {"ms": times}

    def entries(self, count: int) -> dict[str, object]:
        """When many entries were begun, and when the last was final here."""
        for _ in range(count):
            self.source.close()
        began = time.time()
        while self.sealer.step():
            pass
        self._final(SELDOM_S)
        return {"began": began, "ended": time.time()}

    def close(self) -> None:
        """End the engine and its CometBFT."""
        self.ended.set()
        self.watch.join()
        self.store.close()
        self.part.close()

    def _final(self, every_s: float) -> None:
        while self.store.waiting():
            time.sleep(every_s)

    def _look_after(self) -> None:
        while not self.ended.wait(0.2):
            self.part.step()


def main(home: Path) -> None:
    """Work until standard input ends."""
    member = Member(home)
    try:
        member._final(POLL_S)  # its ledger.join
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            ((what, count),) = json.loads(line).items()
            print(json.dumps(member.commits(count) if what == "commits" else member.entries(count)), flush=True)
    finally:
        member.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
