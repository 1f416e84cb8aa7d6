"""Between an index and its PostgreSQL: passes everything on, until a word of the index's at which it cuts the line."""

from __future__ import annotations

import contextlib
import select
import socket
import tempfile
import threading
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"


class PostgresqlRelay:
    """Listens on a socket in `folder`; a thread for each connection."""

    def __init__(self, server: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cairn-relay-"))
        self.cut = threading.Event()
        self._server = server / _SOCKET
        self._word: bytes | None = None
        self._delivered = self._then_refuse = False
        self._refusing = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / _SOCKET))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def has_cut(self) -> bool:
        """Whether the word was said."""
        return self.cut.is_set()

    def cut_at(self, word: bytes, *, delivered: bool, then_refuse: bool = False) -> None:
        """Cut the line at a word: behind it, when the server has answered, or before it; then take no one, or all."""
        self._delivered, self._then_refuse, self._word = delivered, then_refuse, word

    def accept(self) -> None:
        """Take connections again."""
        self._refusing = False

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self.folder / _SOCKET).unlink()
        self.folder.rmdir()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refusing:
                    client.close()
                    continue
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(str(self._server))
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client and self._word is not None and self._word in data:
                        self._word = None
                        if self._delivered:
                            server.sendall(data)
                            server.recv(65536)
                        self._refusing = self._then_refuse
                        self.cut.set()
                        return
                    (server if ready is client else client).sendall(data)
