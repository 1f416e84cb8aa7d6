"""CometBFT's end of one ABCI connection, spoken with generated protobuf code, and an application to speak with."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from typing import Any, Self

from cosmpy.protos.tendermint.abci import types_pb2 as pb

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


class AbciClient:
    """One connection to a server at `unix://` or `tcp://`."""

    def __init__(self, address: str) -> None:
        scheme, _, place = address.partition("://")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60.0)
            try:
                self.socket.connect(place)
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = place.rpartition(":")
            self.socket = socket.create_connection((host, int(port)), 60.0)
        self._input = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self.socket.close()

    def send(self, **asked: Any) -> None:
        """Send one request, named as in `tendermint.abci.Request`."""
        message = pb.Request(**asked).SerializeToString()
        length = bytearray()
        left = len(message)
        while left > 0x7F:
            length.append(left & 0x7F | 0x80)
            left >>= 7
        self.socket.sendall(bytes([*length, left]) + message)

    def read(self) -> Any:
        """The next response, whatever it is; None when the connection has ended."""
        length = shift = 0
        while True:
            byte = self._input.read(1)
            if not byte:
                return None
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        message = self._input.read(length)
        assert len(message) == length
        response = pb.Response.FromString(message)
        return getattr(response, response.WhichOneof("value"))

    def ask(self, **asked: Any) -> Any:
        """Send one request, and its response."""
        self.send(**asked)
        return self.read()


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
