"""The application's end of ABCI's socket: CometBFT connects four times and asks, each connection in order.

Requests and responses are framed by their length (an unsigned varint); responses come in the order of the requests,
which may be sent ahead of them (CometBFT, spec/abci/abci++_client_server.md, "Socket"). The four connections
(consensus, mempool, info, snapshot) are known only by what is asked on them.

What comes is read while the application works on what came before: a CometBFT that must wait to write tries again
after 20 ns (the unit of `flushThrottleMS` in abci/client/socket_client.go of 0.38), and takes a processor for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.abci import wire
from ledger.abci.messages import Application, Block, InitChain
from ledger.errors import CodecError

log = logging.getLogger(__name__)

BACKLOG: Final = 16
READ_BYTES: Final = 1 << 18
READ_AHEAD_BYTES: Final = 16 << 20
CLAIM_S: Final = 5.0
CLOSE_S: Final = 10.0
LONGEST_UNIX_PATH: Final = 107

CONSENSUS: Final = (InitChain, wire.PrepareProposal, wire.ProcessProposal, Block, wire.Commit)
"""Asked only on the consensus connection."""


class AbciServer:
    """Serves one application at `unix://PATH` (0600) or `tcp://HOST:PORT`, in a thread for each connection.

    Parameters
    ----------
    address
        Where to listen, written as CometBFT's `proxy_app` is. Port 0 takes a free one; `address` then tells it.
    application
        What is asked. The requests of one connection are handed over in order, those of several at once; requests of
        consensus come from one connection at a time.
    fault
        Called once, from the thread that met it, with what the application raised. All connections are closed by
        then: CometBFT ends (or waits for ever for an answer: it may have to be killed), and the caller is to start both
        afresh. A stream that is no ABCI ends its connection alone.
    """

    def __init__(self, address: str, application: Application, fault: Callable[[Exception], None]) -> None:
        self.address = address
        self._application = application
        self._fault = fault
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._changed = threading.Condition()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._consensus: socket.socket | None = None
        self._closing = False

    def start(self) -> None:
        """Listen, and accept in the background.

        Raises OSError when the place cannot be had, ValueError when it is none.
        """
        parts = urlsplit(self.address)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            self._listener = self._listen_unix(Path(parts.path))
        elif parts.scheme == "tcp" and parts.hostname and parts.port is not None:
            self._listener = socket.create_server((parts.hostname, parts.port), backlog=BACKLOG)
            self.address = f"tcp://{parts.hostname}:{self._listener.getsockname()[1]}"
        else:
            raise ValueError(f"{self.address} is neither unix:///PATH nor tcp://HOST:PORT")
        threading.Thread(target=self._accept, args=(self._listener,), name="abci-accept", daemon=True).start()

    @property
    def connections(self) -> int:
        """How many connections are open: four while CometBFT runs."""
        return len(self._open)

    def close(self) -> None:
        """Close everything, after the calls that run now have returned (a commit is never cut short by it)."""
        self._hang_up()
        for thread in list(self._open.values()):
            if thread is not threading.current_thread():
                thread.join(CLOSE_S)

    def _listen_unix(self, path: Path) -> socket.socket:
        """Bind a Unix socket; one that an earlier process left is removed, any other file is not."""
        if len(os.fsencode(path)) > LONGEST_UNIX_PATH:
            raise OSError(f"the path of a Unix socket has at most {LONGEST_UNIX_PATH} bytes: {path}")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            path.chmod(0o600)  # nobody connects before listen()
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._path = path
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed by `_hang_up`
                return
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._converse, args=(connection,), name="abci", daemon=True)
            with self._changed:
                if self._closing:
                    connection.close()
                    return
                self._open[connection] = thread
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        """One connection until its end. A fault is told after all of them were hung up."""
        fault: Exception | None = None
        try:
            fault = self._serve(connection)
        except OSError as error:
            log.info("an ABCI connection broke: %s", error.strerror)
        finally:
            with self._changed:
                del self._open[connection]
                if self._consensus is connection:
                    self._consensus = None
                self._changed.notify_all()
            connection.close()
        if fault is not None and self._hang_up():
            self._fault(fault)

    def _serve(self, connection: socket.socket) -> Exception | None:
        """Answer what comes, all that is there before anything is sent; what the application raised, if it did.

        Raises OSError when the connection breaks.
        """
        incoming = _Incoming(connection)
        try:
            return self._answer(connection, incoming)
        finally:
            incoming.close()

    def _answer(self, connection: socket.socket, incoming: _Incoming) -> Exception | None:
        buffer = bytearray()
        while read := incoming.take():
            buffer += read
            answers = bytearray()
            at, failed, words = 0, None, ""
            try:
                while (found := wire.unframed(buffer, at)) is not None:
                    message, at = found
                    asked = wire.request(message)
                    if isinstance(asked, CONSENSUS):
                        self._claim(connection)
                    try:
                        answers += wire.framed(_ANSWERS[type(asked)](self._application, asked))
                    except Exception as error:
                        log.exception("the ABCI application failed; its connections are closed")
                        failed, words = error, "the application failed; its own log says why"
                        break
            except CodecError as error:
                log.error("an ABCI connection is closed: %s", error)
                words = str(error)
            if words:
                answers += wire.framed(wire.exception(words))
                with contextlib.suppress(OSError):
                    connection.sendall(answers)
                return failed
            connection.sendall(answers)
            del buffer[:at]
        return None

    def _claim(self, connection: socket.socket) -> None:
        """Let requests of consensus come from this connection alone, once the one before it has ended.

        After a kill of CometBFT the new process may ask before the end of the old one's connection is seen. Raises
        CodecError when the older connection stays: two CometBFT must not drive one application.
        """
        if self._consensus is connection:
            return
        with self._changed:
            if not self._changed.wait_for(lambda: self._consensus is None or self._closing, CLAIM_S):
                raise CodecError("a second CometBFT speaks to this application")
            self._consensus = connection

    def _hang_up(self) -> bool:
        """End accepting and every connection; whether this was the first call."""
        with self._changed:
            first, self._closing = not self._closing, True
            listener, self._listener = self._listener, None
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # close() alone would not wake the thread that accepts
            listener.close()
        if first and self._path is not None:
            self._path.unlink(missing_ok=True)
        return first


class _Incoming:
    """What a connection sends, read in a thread of its own, READ_AHEAD_BYTES or little more ahead of who takes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._read = bytearray()
        self._ended = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="abci-read", daemon=True)
        self._thread.start()

    def take(self) -> bytearray:
        """All that has come since; empty at the end of the stream. Raises OSError when the connection broke."""
        with self._changed:
            self._changed.wait_for(lambda: self._read or self._ended)
            taken, self._read = self._read, bytearray()
            self._changed.notify_all()
            if not taken and self._error is not None:
                raise self._error
            return taken

    def close(self) -> None:
        """End the reading, and the connection."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        error: OSError | None = None
        try:
            while read := self._connection.recv(READ_BYTES):
                with self._changed:
                    self._read += read
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: len(self._read) < READ_AHEAD_BYTES or self._ended)
        except OSError as broken:
            error = broken
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()


_Answer = Callable[[Application, Any], bytes]

_ANSWERS: Final[Mapping[type, _Answer]] = {
    wire.Echo: lambda app, asked: wire.echoed(asked.message),
    wire.Flush: lambda app, asked: wire.flushed(),
    wire.InfoRequest: lambda app, asked: wire.info(app.info()),
    InitChain: lambda app, asked: wire.chain_begun(app.init_chain(asked)),
    wire.Query: lambda app, asked: wire.answered(app.query(asked.path, asked.data, asked.height)),
    wire.CheckTx: lambda app, asked: wire.checked(app.check_tx(asked.tx, asked.recheck)),
    wire.Commit: lambda app, asked: wire.committed(app.commit()),
    wire.ListSnapshots: lambda app, asked: wire.snapshots(app.list_snapshots()),
    wire.OfferSnapshot: lambda app, asked: wire.snapshot_offered(app.offer_snapshot(asked.snapshot, asked.app_hash)),
    wire.LoadSnapshotChunk: lambda app, asked: wire.snapshot_chunk(
        app.load_snapshot_chunk(asked.height, asked.format, asked.chunk)
    ),
    wire.ApplySnapshotChunk: lambda app, asked: wire.chunk_applied(
        app.apply_snapshot_chunk(asked.position, asked.chunk, asked.sender)
    ),
    wire.PrepareProposal: lambda app, asked: wire.prepared(app.prepare_proposal(asked.proposal)),
    wire.ProcessProposal: lambda app, asked: wire.processed(app.process_proposal(asked.proposal)),
    wire.ExtendVote: lambda app, asked: wire.vote_extended(),
    wire.VerifyVoteExtension: lambda app, asked: wire.vote_extension_verified(not asked.extension),
    Block: lambda app, asked: wire.finalized(app.finalize_block(asked)),
}
