"""A small ABCI application, for what is not about ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ledger.abci.messages import (
    OK,
    Answer,
    Block,
    Checked,
    Finalized,
    Info,
    InitChain,
    Proposal,
    Snapshot,
)


class Words:
    """A small application: a transaction is "name=value", once; the app hash is over all that was taken, in order.

    "boom" raises, wherever it is seen. What it was asked is in `calls`.
    """

    def __init__(self) -> None:
        self.height = 0
        self.app_hash = b""
        self.taken: list[bytes] = []
        self.calls: list[str] = []
        self._next: tuple[int, bytes, list[bytes]] = (0, b"", [])

    def info(self) -> Info:
        self.calls.append("info")
        return Info(self.height, self.app_hash, "words", "1", 1)

    def init_chain(self, request: InitChain) -> bytes:
        self.calls.append("init_chain")
        return b""

    def check_tx(self, tx: bytes, recheck: bool) -> Checked:
        self.calls.append("check_tx")
        if tx == b"boom":
            raise OSError("the disk is gone")
        return self._verdict(tx, self.taken)

    def prepare_proposal(self, proposal: Proposal) -> Sequence[bytes]:
        self.calls.append("prepare_proposal")
        return [tx for tx in proposal.txs if self._verdict(tx, self.taken).code == OK]

    def process_proposal(self, proposal: Proposal) -> bool:
        self.calls.append("process_proposal")
        return True

    def finalize_block(self, block: Block) -> Finalized:
        self.calls.append("finalize_block")
        taken: list[bytes] = []
        verdicts: list[Checked] = []
        app_hash = self.app_hash
        for tx in block.txs:
            verdicts.append(self._verdict(tx, [*self.taken, *taken]))
            if verdicts[-1].code == OK:
                taken.append(tx)
                app_hash = hashlib.sha256(app_hash + hashlib.sha256(tx).digest()).digest()
        self._next = (block.height, app_hash, taken)
        return Finalized(verdicts, [], app_hash)

    @staticmethod
    def _verdict(tx: bytes, taken: Sequence[bytes]) -> Checked:
        if b"=" not in tx:
            return Checked(1, "no word")
        return Checked(2, "taken before") if tx in taken else Checked(OK)

    def commit(self) -> int:
        self.calls.append("commit")
        self.height, self.app_hash, taken = self._next
        self.taken += taken
        return 0

    def query(self, path: str, data: bytes, height: int) -> Answer:
        self.calls.append("query")
        return Answer(OK, b"\n".join(self.taken), "", self.height)

    def list_snapshots(self) -> Sequence[Snapshot]:
        return ()

    def load_snapshot_chunk(self, height: int, format: int, chunk: int) -> bytes:
        return b""

    def offer_snapshot(self, snapshot: Snapshot, app_hash: bytes) -> int:
        return 3

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> int:
        return 2
