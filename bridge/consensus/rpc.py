"""CometBFT's RPC as the node uses it: JSON-RPC 2.0 over HTTP on loopback (CometBFT, rpc/openapi/openapi.yaml)."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bridge.consensus.configuration import endpoint
from ledger.abci.messages import Checked

ANSWER_S: Final = 10.0
ANSWER_BYTES: Final = 64 << 20
PAGE: Final = 100
_IN_CACHE: Final = "tx already exists in cache"


class RpcFault(OSError):
    """CometBFT did not answer, or answered with an error; the words are its own."""


class Status(NamedTuple):
    """Where a CometBFT stands: its id among peers, the last block that it has, whether it still catches up.

    `validator` is the address of its own consensus key (20 bytes), `power` its voting power in the next block;
    `earliest` the first block that it still has.
    """

    node_id: str
    height: int
    app_hash: bytes
    catching_up: bool
    validator: bytes
    power: int
    earliest: int


class Rpc:
    """One CometBFT at `http://HOST:PORT`; safe to use from many threads. Every method raises RpcFault."""

    def __init__(self, address: str, answer_s: float = ANSWER_S) -> None:
        self._host, self._port = endpoint(address)
        self._answer_s = answer_s
        self._kept = threading.local()

    def status(self) -> Status:
        """Where it stands; asks its consensus, so a CometBFT that hangs does not answer."""
        told = self.call("status")
        try:
            sync, validator = told["sync_info"], told["validator_info"]
            return Status(
                node_id=str(told["node_info"]["id"]),
                height=int(sync["latest_block_height"]),
                app_hash=bytes.fromhex(sync["latest_app_hash"]),
                catching_up=bool(sync["catching_up"]),
                validator=bytes.fromhex(validator["address"]),
                power=int(validator["voting_power"]),
                earliest=int(sync["earliest_block_height"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RpcFault("CometBFT's status is not understood") from error

    def submit(self, tx: bytes) -> Checked:
        """Put a transaction into the mempool (broadcast_tx_sync): what the application's CheckTx says of it.

        One that is in the mempool already, or was lately, counts as taken.
        """
        try:
            told = self.call("broadcast_tx_sync", tx=base64.b64encode(tx).decode("ascii"))
            return Checked(int(told["code"]), str(told["log"]))
        except RpcFault as error:
            if _IN_CACHE in str(error):
                return Checked(0, "in the mempool already")
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise RpcFault("CometBFT's answer is not understood") from error

    def peers(self) -> Mapping[str, str]:
        """The peers that it is connected to now: id among peers, moniker."""
        try:
            return {each["node_info"]["id"]: each["node_info"]["moniker"] for each in self.call("net_info")["peers"]}
        except (KeyError, TypeError) as error:
            raise RpcFault("CometBFT's answer is not understood") from error

    def commit(self, height: int | None = None) -> Mapping[str, Any]:
        """Header and commit of a height, or of the last one: `{"signed_header": {...}, "canonical": bool}`."""
        told = self.call("commit", **({} if height is None else {"height": str(height)}))
        if not isinstance(told, dict):
            raise RpcFault("CometBFT's answer is not understood")
        return told

    def headers(self, first: int, last: int) -> list[Mapping[str, Any]]:
        """Headers from a height to another, in order, 20 at most; those that it has of them (blockchain)."""
        told = self.call("blockchain", minHeight=str(first), maxHeight=str(last))
        try:
            found = [meta["header"] for meta in told["block_metas"]]
            return sorted(found, key=lambda header: int(header["height"]))
        except (KeyError, TypeError, ValueError) as error:
            raise RpcFault("CometBFT's answer is not understood") from error

    def validators(self, height: int) -> list[Mapping[str, Any]]:
        """Every validator of a height, in the order of the set."""
        found: list[Mapping[str, Any]] = []
        while True:
            page = str(len(found) // PAGE + 1)
            told = self.call("validators", height=str(height), page=page, per_page=str(PAGE))
            try:
                found += told["validators"]
                if len(found) >= int(told["total"]) or not told["validators"]:
                    return found
            except (KeyError, TypeError, ValueError) as error:
                raise RpcFault("CometBFT's answer is not understood") from error

    def call(self, method: str, **parameters: str) -> Any:
        """The result of any method, as JSON; numbers of 64 bits are strings, here and in the parameters."""
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode("ascii")
        try:
            status, body = self._post(request)
        except (OSError, http.client.HTTPException) as error:
            raise RpcFault(f"CometBFT does not answer: {error or type(error).__name__}") from error
        try:
            answer = json.loads(body)
            failed = answer.get("error")
            result = answer["result"] if not failed else None
        except (ValueError, KeyError, AttributeError) as error:
            raise RpcFault(f"CometBFT answers no JSON-RPC (HTTP {status})") from error
        if failed:
            raise RpcFault(f"CometBFT: {failed.get('message')}: {failed.get('data')}"[:300])
        return result

    def _post(self, request: bytes) -> tuple[int, bytes]:
        """Over this thread's connection; one that CometBFT has closed meanwhile is made anew, once."""
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if kept is not None:
            try:
                return self._ask(kept, request)
            except (http.client.RemoteDisconnected, ConnectionError):
                kept.close()
            except BaseException:
                kept.close()
                self._kept.connection = None
                raise
        self._kept.connection = None
        made = http.client.HTTPConnection(self._host, self._port, timeout=self._answer_s)
        try:
            answer = self._ask(made, request)
        except BaseException:
            made.close()
            raise
        self._kept.connection = made
        return answer

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, request: bytes) -> tuple[int, bytes]:
        connection.request("POST", "/", request, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES)
        if not answer.isclosed():
            raise http.client.HTTPException("the answer is too large")
        return answer.status, body

    def close(self) -> None:
        """Close this thread's connection; the others' go with their threads."""
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        self._kept.connection = None
        if kept is not None:
            kept.close()
