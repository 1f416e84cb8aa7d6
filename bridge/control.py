"""The node's local socket, CAIRN_HOME/run/cairn.sock (0600): how commands reach a running node.

One request a connection: a line of JSON `{"command": NAME, "arguments": {...}}`; answers are lines of JSON: any number
of `{"progress": TEXT}`, then `{"result": ...}` or `{"error": {"slug", "detail", "advice", "code"}}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bridge.errors import CairnError, ConfigError, DatabaseDamaged, IntegrityError

log = logging.getLogger(__name__)
Report = Callable[[str], None]
Perform = Callable[[str, Mapping[str, Any], Report], object]
REQUEST_LIMIT = 1 << 20


class Failed(Exception):
    """A command that failed in the running node, as its socket told it."""

    def __init__(self, detail: str, advice: str, code: int) -> None:
        super().__init__(detail)
        self.detail, self.advice, self.code = detail, advice, code


def exit_code(error: CairnError) -> int:
    """DESIGN section 8: 1 failed, 2 usage or configuration, 3 integrity violated."""
    if isinstance(error, (IntegrityError, DatabaseDamaged)):
        return 3
    return 2 if isinstance(error, ConfigError) else 1


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        request = json.loads(self.rfile.readline(REQUEST_LIMIT))
        try:
            result = self.server.perform(
                request["command"], request["arguments"], lambda text: self._say(progress=text)
            )
        except CairnError as error:
            self._say(
                error={"slug": error.slug, "detail": error.detail, "advice": error.advice, "code": exit_code(error)}
            )
        except Exception:
            log.exception("a command failed", extra={"command": request["command"]})
            self._say(
                error={"slug": "internal-error", "detail": "the node failed", "advice": CairnError.advice, "code": 1}
            )
        else:
            self._say(result=result)

    def _say(self, **message: object) -> None:
        self.wfile.write(json.dumps(message).encode() + b"\n")
        self.wfile.flush()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    perform: Perform


class ControlServer:
    """Serves commands on the socket in threads of this process."""

    def __init__(self, path: Path, perform: Perform) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with _address(path) as address:
                self._server = _Server(address, _Handler)
        finally:
            os.umask(before)
        self._server.perform = perform
        self._path = path
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more commands and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)


def ask(path: Path, command: str, arguments: Mapping[str, Any], report: Report) -> Any:
    """Let the running node perform a command. Raises Failed; OSError when nothing listens."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        with _address(path) as address:
            connection.connect(address)
        connection.sendall(json.dumps({"command": command, "arguments": dict(arguments)}).encode() + b"\n")
        with connection.makefile("rb") as answers:
            for line in answers:
                message = json.loads(line)
                if "progress" in message:
                    report(message["progress"])
                elif "error" in message:
                    error = message["error"]
                    raise Failed(error["detail"], error["advice"], error["code"])
                else:
                    return message["result"]
    raise Failed("the node ended before it answered", "See the node's log.", 1)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """The path as AF_UNIX takes it: through the folder's descriptor when it exceeds the 107 bytes of sockaddr_un."""
    if len(os.fsencode(path)) <= 107:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
