"""Kubo's RPC over HTTP for everything that carries blocks: imports, exports, single blocks (Kubo "RPC API v0").

Kubo answers POST requests alone. An import without `timeout` never ends when a child is missing, since Kubo looks for
it in the swarm whatever `offline` says; so each has one, and what the answer says of the pin is read (HTTP says 200).
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import urllib3

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content.kubo import configuration
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.model import Block

__all__ = ["ChildMissing", "ImportRefused", "NodeDamaged", "Rpc", "base_url", "credential"]

CONNECT_S: Final = 3.0
BLOCK_S: Final = 5.0  # a viewer waits for it; Kubo reads a block that it holds within some milliseconds
ASK_S: Final = 10.0
WRITE_S: Final = 60.0  # for one piece of an import, while Kubo writes what it has to the disk
BEYOND_S: Final = 15.0  # how much longer than Kubo's own timeout its answer is waited for
MAX_ANSWER: Final = 1 << 20
_ABSENT: Final = ("not found locally", "could not find", "context deadline exceeded")
_CODECS: Final = {cids.RAW: "raw", cids.DAG_PB: "dag-pb", cids.DAG_CBOR: "dag-cbor"}
_HASHES: Final = {cids.BLAKE3: "blake3", cids.SHA2_256: "sha2-256"}


class ChildMissing(EngineFault):
    """Kubo did not find a block below the root within the time; or it had too little of it."""


class NodeDamaged(EngineFault):
    """Kubo holds a block with links below the root that it cannot read; it wrote nothing over it."""


class ImportRefused(EngineFault):
    """Kubo did not take the CAR: a block is not what its CID says, or the bytes are no CAR."""


def base_url(kubo: Kubo) -> str:
    """The root of the RPC API as URL, from `content.kubo.api` (URL or multiaddress). Raises ConfigError."""
    host, port = configuration.endpoint(kubo.api)
    secure = kubo.api.startswith("https:") or kubo.api.endswith(("/https", "/tls/http"))
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{name}:{port}/api/v0/"


def credential(kubo: Kubo) -> dict[str, str]:
    """The Authorization header for `content.kubo.token`: Basic for user:password, else Bearer; none without."""
    if kubo.token is None:
        return {}
    if ":" in kubo.token:
        return {"Authorization": f"Basic {base64.b64encode(kubo.token.encode()).decode()}"}
    return {"Authorization": f"Bearer {kubo.token}"}


class Rpc:
    """One Kubo's RPC; safe to use from many threads. Every method raises EngineFault when Kubo does not do as asked."""

    def __init__(self, kubo: Kubo) -> None:
        timeout = httpx.Timeout(ASK_S, connect=CONNECT_S)
        # trust_env: a proxy in the environment is for the way out, not for the node's own daemon
        self._client = httpx.Client(
            base_url=base_url(kubo), headers=credential(kubo), timeout=timeout, trust_env=False, follow_redirects=False
        )
        # Single blocks come through this one: httpx reads Kubo's many small chunks at three times the cost.
        self._block_get = f"{base_url(kubo)}block/get"
        self._blocks = urllib3.PoolManager(maxsize=10, headers=credential(kubo), retries=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._blocks.clear()

    def import_car(self, root: bytes, pieces: Iterable[bytes], timeout_s: float) -> None:
        """Stream a CAR to dag/import and have its root pinned recursively; all below it is held when this returns.

        Raises ChildMissing when Kubo gave up on the pin within `timeout_s`, NodeDamaged when what it held already
        cannot be read, ImportRefused when it did not take the CAR, EngineFault otherwise, and whatever `pieces` raises.
        """
        boundary = secrets.token_hex(16)
        parameters = {"pin-roots": "true", "timeout": f"{timeout_s:.3f}s"}
        text = self._post(
            "dag/import",
            parameters,
            content=_multipart(boundary, pieces),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            timeout=httpx.Timeout(timeout_s + BEYOND_S, connect=CONNECT_S, write=WRITE_S),
        ).text
        wanted = cids.to_text(root)
        for line in filter(None, map(str.strip, text.splitlines())):
            told = _object(line).get("Root")
            if isinstance(told, dict) and told.get("Cid") == {"/": wanted}:
                reason = told.get("PinErrorMsg")
                if reason:
                    raise _pin_error(str(reason))
                return
        raise EngineFault("Kubo's answer to an import does not name its root")

    def block(self, cid: bytes, network_s: float | None = None) -> bytes:
        """The block, verified: what Kubo holds itself, or, when `network_s` is given, what its peers give within that.

        Raises ContentMissing, ContentCorrupt, EngineFault.
        """
        name = cids.to_text(cid)
        where = {"offline": "true"} if network_s is None else {"timeout": f"{network_s:.3f}s"}
        timeout = urllib3.Timeout(connect=CONNECT_S, read=(network_s or 0) + BLOCK_S)
        try:
            asked = f"{self._block_get}?{urlencode({'arg': name, **where})}"
            answer = self._blocks.request("POST", asked, timeout=timeout)
        except urllib3.exceptions.NewConnectionError as error:
            raise EngineFault(f"Kubo cannot be reached: {str(error).rpartition(': ')[2]}") from error
        except urllib3.exceptions.TimeoutError as error:
            raise EngineFault(f"Kubo does not answer in time ({type(error).__name__})") from error
        except urllib3.exceptions.HTTPError as error:
            raise EngineFault(f"Kubo cannot be reached: {error or type(error).__name__}") from error
        if answer.status != httpx.codes.OK:
            refusal = _answered(answer.status, answer.data)
            if isinstance(refusal, _Answered) and refusal.says(*_ABSENT):
                raise ContentMissing(f"Kubo does not hold block {name}")
            raise refusal
        if not cids.verify(cid, answer.data):
            raise ContentCorrupt(f"Kubo's block {name} is damaged")
        return answer.data

    def holds(self, cid: bytes) -> bool:
        """Whether Kubo holds the block itself; not read, not verified."""
        try:
            self._post("block/stat", {"arg": cids.to_text(cid), "offline": "true"})
        except _Answered as error:
            if error.says("not found locally", "could not find"):
                return False
            raise
        return True

    def put(self, block: Block) -> None:
        """Give Kubo one block; it keeps what lies under that CID already, whole or not."""
        parts = cids.parse(block.cid)
        parameters = {"cid-codec": _CODECS[parts.codec], "mhtype": _HASHES[parts.hash], "allow-big-block": "true"}
        answer = self._post("block/put", parameters, files={"file": bytes(block.data)})
        if _object(answer.text).get("Key") != cids.to_text(block.cid):
            raise EngineFault("Kubo named a block otherwise than by its CID")

    def remove(self, cid: bytes, timeout_s: float) -> str | None:
        """Remove a block; the root that pins it (text) when one does, and it then stays. Absent ones are removed.

        Kubo looks through the trees of its pins for the block. Raises NodeDamaged when it cannot read one of these.
        """
        parameters = {"arg": cids.to_text(cid), "force": "true", "timeout": f"{timeout_s:.3f}s"}
        timeout = httpx.Timeout(timeout_s + BEYOND_S, connect=CONNECT_S)
        answer = self._post("block/rm", parameters, timeout=timeout)
        reason = str(_object(answer.text).get("Error") or "")
        if not reason:
            return None
        if reason.startswith("pinned via "):
            return reason.removeprefix("pinned via ").strip()
        if reason.startswith("pinned"):
            return cids.to_text(cid)
        if reason.startswith("pin check failed"):
            raise NodeDamaged(f"Kubo does not remove a block: {reason}")
        raise EngineFault(f"Kubo does not remove a block: {reason}")

    def broken_pins(self, timeout_s: float) -> list[str]:
        """The roots (text) of pins below which Kubo misses or cannot read a block with links; it looks at all pins."""
        timeout = httpx.Timeout(timeout_s + BEYOND_S, connect=CONNECT_S)
        lines = map(_object, self._post("pin/verify", {"verbose": "false"}, timeout=timeout).text.splitlines())
        return [str(line.get("Cid")) for line in lines if line.get("BadNodes")]

    def pin(self, root: bytes, timeout_s: float) -> None:
        """Pin a root whose blocks Kubo or its peers hold. Raises ChildMissing when one cannot be had in time."""
        timeout = httpx.Timeout(timeout_s + BEYOND_S, connect=CONNECT_S)
        try:
            self._post("pin/add", {"arg": cids.to_text(root), "timeout": f"{timeout_s:.3f}s"}, timeout=timeout)
        except _Answered as error:
            raise _pin_error(error.reason) from None

    def lacks_nothing(self, root: bytes, timeout_s: float) -> bool:
        """Whether Kubo holds every block below a root itself, and can read it; it hashes none."""
        parameters = {"arg": cids.to_text(root), "offline": "true", "progress": "false", "timeout": f"{timeout_s:.3f}s"}
        timeout = httpx.Timeout(timeout_s + BEYOND_S, connect=CONNECT_S)
        try:
            self._post("dag/stat", parameters, timeout=timeout)
        except _Answered:
            return False
        return True

    def configuration(self) -> dict[str, Any]:
        """Kubo's configuration as it lies in its repository, without its private key."""
        return _object(self._post("config/show", {}).text)

    def _post(self, command: str, parameters: dict[str, str], **request: Any) -> httpx.Response:
        with self._transport():
            response = self._client.post(command, params=parameters, **request)
        if response.status_code != httpx.codes.OK:
            raise _answered(response.status_code, response.read())
        return response

    @contextmanager
    def _transport(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise EngineFault(f"Kubo does not answer in time ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise EngineFault(f"Kubo cannot be reached: {error or type(error).__name__}") from error


class _Answered(EngineFault):
    """Kubo answered, and not with what was asked for."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Kubo: {reason}")
        self.reason = reason

    def says(self, *words: str) -> bool:
        """Whether one of these is in what it said."""
        return any(word in self.reason for word in words)


def _answered(status: int, body: bytes) -> EngineFault:
    reason = f"HTTP {status}"
    text = body[:MAX_ANSWER].decode("utf-8", "replace")
    message = _object(text).get("Message") if text.startswith("{") else text.strip()[:200]
    reason = str(message or reason)
    if status in (401, 403):
        return EngineFault(f"Kubo refuses our credential or what it may do (HTTP {status})")
    if "no space left on device" in reason or "disk quota exceeded" in reason:
        return EngineFault("Kubo's disk is full")
    if reason.startswith("import failed"):
        return ImportRefused(f"Kubo: {reason}")
    return _Answered(reason)


def _pin_error(reason: str) -> EngineFault:
    if any(word in reason for word in ("context deadline exceeded", "could not find", "not found")):
        return ChildMissing(f"Kubo did not get every block below the root: {reason}")
    if "no space left on device" in reason:
        return EngineFault("Kubo's disk is full")
    return NodeDamaged(f"Kubo does not pin: {reason}")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise EngineFault("Kubo's answer is not JSON") from None
    if not isinstance(value, dict):
        raise EngineFault("Kubo's answer is not what its API says")
    return value


def _multipart(boundary: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """One file in a multipart/form-data body (RFC 7578), streamed."""
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="study.car"\r\n'
        "Content-Type: application/vnd.ipld.car\r\n\r\n"
    ).encode()
    yield from pieces
    yield f"\r\n--{boundary}--\r\n".encode()
