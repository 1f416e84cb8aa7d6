"""A way to a real Kubo's RPC on which single calls hang or take their time, as those of a daemon that is half dead."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import httpx

from tests.kubo_daemon import KuboDaemon

CALL_S = 60.0


class KuboProxy:
    """Passes each request on; those to a command in `hangs` only once it is taken out, all others after `delay_s`."""

    def __init__(self, kubo: KuboDaemon) -> None:
        self.hangs: set[str] = set()
        self.delay_s = 0.0
        self.released = threading.Event()
        self.client = httpx.Client(base_url=kubo.url, timeout=CALL_S, trust_env=False)
        proxy = self

        class Handler(_Handler):
            way = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The root of the RPC by this way."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def hang(self, *commands: str) -> None:
        """Let these commands hang from now on, such as "block/get"."""
        self.released.clear()
        self.hangs = set(commands)

    def release(self) -> None:
        """Let nothing hang any more; what hung is passed on."""
        self.hangs = set()
        self.released.set()

    def __enter__(self) -> KuboProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self.client.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    way: KuboProxy

    def do_POST(self) -> None:
        body = self._body()
        command = self.path.partition("?")[0].removeprefix("/api/v0/")
        if command in self.way.hangs:
            self.way.released.wait()
        elif self.way.delay_s:
            threading.Event().wait(self.way.delay_s)
        kept = {
            name: value for name, value in self.headers.items() if name.lower() in ("content-type", "authorization")
        }
        try:
            answer = self.way.client.post(self.path, content=body, headers=kept)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)
        except (httpx.TransportError, OSError, RuntimeError):  # one of the two sides is gone
            self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""
