"""CometBFT's light client, which a state sync needs, asks the other members over their listeners (mutual TLS).

CometBFT's RPC stays on loopback at every member. What a light client reads of it is offered to members at
`GET /consortium/rpc/{method}`; a member that starts from a snapshot has proxies of its own on loopback, which CometBFT
takes for the others' RPC and which ask them there.
"""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

from bridge.consensus.configuration import EVIDENCE_AGE_H, StateSync
from bridge.consensus.rpc import Rpc
from bridge.errors import CairnError, EngineFault, NotFound

log = logging.getLogger(__name__)
PATH: Final = "/consortium/rpc/"
METHODS: Final[Mapping[str, frozenset[str]]] = {
    "status": frozenset(),
    "commit": frozenset({"height"}),
    "validators": frozenset({"height", "page", "per_page"}),
    "consensus_params": frozenset({"height"}),
}
"""What members may ask, and with which parameters: numbers. Nothing of it changes anything."""
LEAST_HEIGHT: Final = 64
"""Below it a new member executes every block, which takes no longer."""
ASKED_BYTES: Final = 1 << 16
_FRESH: Final = 0.9  # of the trusting period


class Client(Protocol):
    """A member's listener (`bridge.content.gateway_client.GatewayClient`)."""

    name: str

    def ask(self, method: str, path: str) -> Any:
        """The JSON that it answers. Raises EngineFault, ContentMissing, RequestError."""


def answer(rpc: Rpc, method: str, parameters: Mapping[str, str]) -> Any:
    """What this node's CometBFT says to a member. Raises NotFound for what is not offered, EngineFault."""
    known = METHODS.get(method)
    if known is None or not parameters.keys() <= known or not all(_is_number(text) for text in parameters.values()):
        raise NotFound("this is not offered to members")
    try:
        return rpc.call(method, **parameters)
    except OSError as error:
        raise EngineFault(f"CometBFT does not say: {error}") from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


class RpcProxy:
    """One member's RPC on a loopback port of this node, from `start` to `close`."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(client))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="rpc-proxy", daemon=True)

    @property
    def address(self) -> str:
        """Where CometBFT finds it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _handler(client: Client) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: the client would else acknowledge the first 40 ms later

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = _answered(client, self.rfile.read(min(length, ASKED_BYTES)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler


def _answered(client: Client, body: bytes) -> bytes:
    """The JSON-RPC answer to a request of CometBFT's."""
    told: dict[str, Any] = {"jsonrpc": "2.0", "id": -1}
    try:
        asked = json.loads(body)
        told["id"] = asked["id"]
        method, given = str(asked["method"]), asked.get("params") or {}
        if method not in METHODS:
            raise NotFound("not offered")
        parameters = {name: str(value) for name, value in given.items() if name in METHODS[method]}
        path = PATH + method + (f"?{urlencode(parameters)}" if parameters else "")
        return json.dumps({**told, "result": client.ask("GET", path)}).encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return json.dumps({**told, "error": {"code": -32600, "message": "Invalid request", "data": ""}}).encode()
    except CairnError as error:
        data = f"member {client.name}: {error.detail}"
        return json.dumps({**told, "error": {"code": -32603, "message": "Internal error", "data": data}}).encode()


class Start(NamedTuple):
    """Where a node that has no state may start: whether a member answered, and from which header (None: the first)."""

    answered: bool
    height: int = 0
    hash: bytes = b""
    clients: tuple[Client, ...] = ()


def where_to_start(clients: Sequence[Client], now: datetime | None = None) -> Start:
    """Ask members for the newest header; two must say the same of it, unless there is but one other member.

    A header older than the trusting period is not started from, as CometBFT would not: blocks are executed then.
    """
    first: Start | None = None
    for client in clients:
        try:
            if first is None:
                first = _newest(client, datetime.now(UTC) if now is None else now)
                if not first.height:
                    return first
                if len(clients) == 1:
                    return first._replace(clients=(client, client))
            elif _hash_at(client, first.height) == first.hash:
                return first._replace(clients=(*first.clients, client))
            else:
                log.error("members say different things of one block: no state is taken over")
                return Start(True)
        except (CairnError, KeyError, TypeError, ValueError) as error:
            log.info("a member cannot be asked where consensus stands: %s", type(error).__name__)
    return Start(first is not None)


def _newest(client: Client, now: datetime) -> Start:
    signed = client.ask("GET", PATH + "commit")["signed_header"]
    height, hash = int(signed["header"]["height"]), bytes.fromhex(signed["commit"]["block_id"]["hash"])
    age = now - datetime.fromisoformat(signed["header"]["time"][:19] + "+00:00")
    if height < LEAST_HEIGHT or age.total_seconds() > EVIDENCE_AGE_H * 3600 * _FRESH:
        return Start(True)
    # The newest block may be one that the other member does not have yet.
    return Start(True, height - 1, _hash_at(client, height - 1), (client,)) if len(hash) == 32 else Start(True)


def _hash_at(client: Client, height: int) -> bytes:
    signed = client.ask("GET", f"{PATH}commit?height={height}")["signed_header"]
    return bytes.fromhex(signed["commit"]["block_id"]["hash"])


class StateSyncSource:
    """Proxies to two members, made when a state is to be taken over, kept until `close`."""

    def __init__(self) -> None:
        self._proxies: list[RpcProxy] = []

    @property
    def open(self) -> bool:
        """Whether there are proxies."""
        return bool(self._proxies)

    def from_(self, start: Start) -> StateSync:
        """What CometBFT's configuration says."""
        self.close()
        self._proxies = [RpcProxy(client) for client in start.clients]
        for proxy in self._proxies:
            proxy.start()
        return StateSync([proxy.address for proxy in self._proxies], start.height, start.hash)

    def close(self) -> None:
        """End the proxies."""
        while self._proxies:
            self._proxies.pop().close()
