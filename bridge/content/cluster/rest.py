"""The REST API of one IPFS Cluster peer (ipfs-cluster v1.1), as much of it as pinning needs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx

from bridge.content.cluster import replication
from bridge.content.cluster.replication import Standing
from bridge.errors import ConfigError, EngineFault

__all__ = ["ClusterApi", "NoAnswer", "NotEnoughPeers", "Peer"]

CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
METRICS_S: Final = 5.0  # what the peer knows by itself
MOST_ORIGINS: Final = 10


class NoAnswer(EngineFault):
    """The peer took the question and said nothing in time: what it asked another peer, or a Kubo, hangs there."""


class NotEnoughPeers(EngineFault):
    """Fewer peers are there to allocate a pin to than copies are wanted; a new peer is seen after some seconds."""


class Peer(NamedTuple):
    """A peer of the cluster: its id, its name, what is wrong with it, and its Kubo's swarm addresses."""

    id: str
    name: str
    error: str
    kubo_addresses: tuple[str, ...]


class ClusterApi:
    """Safe to use from many threads; every method raises EngineFault when the peer does not do as asked.

    Parameters
    ----------
    url
        The root of the API, "http://127.0.0.1:9094".
    token
        "user:password" or a bearer token, None for neither.

    Raises ConfigError for an address that is not a URL.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        headers: dict[str, str] = {}
        auth: tuple[str, str] | None = None
        if token is not None and ":" in token:
            user, _, password = token.partition(":")
            auth = (user, password)
        elif token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._client = httpx.Client(
                base_url=httpx.URL(url),
                headers=headers,
                auth=auth,
                timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
                trust_env=False,
            )
        except (httpx.InvalidURL, TypeError) as error:
            raise ConfigError(f"content.cluster.api = {url} is not a URL: {error}") from error
        if self._client.base_url.scheme not in ("http", "https") or not self._client.base_url.host:
            raise ConfigError(f"content.cluster.api = {url} is not a URL such as http://127.0.0.1:9094")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def identity(self) -> Peer:
        """The peer that is asked."""
        return _peer(self._document("GET", "/id"))

    def alive(self) -> frozenset[str]:
        """The ids of the peers that pins can be allocated to now: heard of lately, and with a Kubo that answers.

        Nobody is asked for this. What a peer says of its Kubo's free space (or, where the cluster is not configured to
        tell that, of itself) counts until it expires.
        """
        for metric in ("freespace", "ping"):
            found = self._json("GET", f"/monitor/metrics/{metric}", timeout_s=METRICS_S) or []
            if not isinstance(found, list):
                raise EngineFault("IPFS Cluster answered its metrics with something else")
            heard = frozenset(str(one.get("peer")) for one in found if isinstance(one, dict) and one.get("valid"))
            if heard:
                return heard
        return frozenset()

    def pin(self, root: str, replicas: int, prefer: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        """Ask for a root to be pinned on `replicas` peers.

        `prefer` are ids of peers that are allocated before others; `origins` swarm addresses (ending in /p2p/ID) that
        the Kubos connect to first. Returns when it is asked for, not when it is done. Raises NotEnoughPeers.
        """
        query = {"replication-min": str(replicas), "replication-max": str(replicas), "mode": "recursive"}
        if prefer:
            query["user-allocations"] = ",".join(prefer)
        if origins:
            query["origins"] = ",".join(origins[:MOST_ORIGINS])
        self._document("POST", f"/pins/{root}", query)

    def unpin(self, root: str) -> None:
        """Ask for a root to be unpinned everywhere; without effect when the cluster does not know it."""
        answer = self._ask("DELETE", f"/pins/{root}")
        if answer.status_code != 404:
            _checked(answer)

    def recover(self, root: str) -> None:
        """Ask the peers that failed to pin a root to try again."""
        self._ask("POST", f"/pins/{root}/recover")

    def standing(self, root: str, timeout_s: float = ANSWER_S) -> Standing:
        """How a root stands on every peer, each of which is asked; `replication.unknown` when the cluster knows it not.

        Raises NoAnswer when one of them does not answer within `timeout_s`.
        """
        answer = self._ask("GET", f"/pins/{root}", timeout_s=timeout_s)
        if answer.status_code == 404:
            return replication.unknown
        try:
            return replication.from_document(_checked(answer).json())
        except ValueError as error:
            raise EngineFault(f"IPFS Cluster answered a pin's status with something else: {error}") from error

    def allocations(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Every pin of the cluster's state: its CID in text, and the ids of the peers that it is allocated to."""
        for document in self._documents("/allocations"):
            try:
                yield _cid(document), replication.allocations(document)
            except ValueError as error:
                raise EngineFault(f"IPFS Cluster answered its pins with something else: {error}") from error

    def lost(self, timeout_s: float = ANSWER_S) -> Iterator[tuple[str, int]]:
        """Pins that peers which answer do not hold although they should: the CID in text, and how many peers.

        Raises NoAnswer when a peer, or its Kubo, does not answer within `timeout_s`.
        """
        for document in self._documents("/pins", {"filter": "pin_error,unexpectedly_unpinned"}, timeout_s):
            peers = document.get("peer_map")
            yield _cid(document), len(peers) if isinstance(peers, dict) else 0

    def _document(self, method: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        document = self._json(method, path, query)
        if not isinstance(document, dict):
            raise EngineFault("IPFS Cluster answered something that is not a JSON object")
        return document

    def _json(self, method: str, path: str, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S) -> Any:
        try:
            return _checked(self._ask(method, path, query, timeout_s)).json()
        except ValueError as error:
            raise EngineFault("IPFS Cluster answered something that is not JSON") from error

    def _documents(
        self, path: str, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S
    ) -> Iterator[dict[str, Any]]:
        """The objects of an answer that streams one a line."""
        try:
            timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
            with self._client.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.status_code == 204:
                    return
                if answer.status_code != 200:
                    answer.read()
                    _checked(answer)
                for line in answer.iter_lines():
                    document = json.loads(line) if line else None
                    if isinstance(document, dict):
                        yield document
            # An error behind the first line is in a trailer that httpx does not show; the ledger of pins is ours.
        except (httpx.HTTPError, RuntimeError) as error:
            raise _silent(error) from error
        except ValueError as error:
            raise EngineFault("IPFS Cluster answered something that is not JSON") from error

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, timeout_s: float = ANSWER_S
    ) -> httpx.Response:
        try:
            timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
            return self._client.request(method, path, params=query, timeout=timeout)
        except (httpx.HTTPError, RuntimeError) as error:
            raise _silent(error) from error


def _silent(error: Exception) -> EngineFault:
    """A connection that failed, in words; httpx says nothing of its own for some, and RuntimeError when closed."""
    kind = NoAnswer if isinstance(error, httpx.ReadTimeout) else EngineFault
    return kind(f"IPFS Cluster does not answer: {error or type(error).__name__}")


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code in (401, 403):
        raise EngineFault("IPFS Cluster refuses the credential (content.cluster.token)")
    if answer.status_code >= 400:
        try:
            said = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            said = answer.text
        kind = NotEnoughPeers if "not enough peers to allocate" in said else EngineFault
        raise kind(f"IPFS Cluster: {said[:300] or answer.reason_phrase} (HTTP {answer.status_code})")
    return answer


def _cid(document: Mapping[str, Any]) -> str:
    cid = document.get("cid")
    if not isinstance(cid, str):
        raise EngineFault("IPFS Cluster answered its pins with something else")
    return cid


def _peer(document: Mapping[str, Any]) -> Peer:
    kubo = document.get("ipfs")
    kubo = kubo if isinstance(kubo, dict) else {}
    error = str(document.get("error") or "") or str(kubo.get("error") or "")
    listens = kubo.get("addresses")
    addresses = tuple(str(address) for address in (listens if isinstance(listens, list) else ()))
    reached = tuple(address for address in addresses if "/p2p/" in address)
    return Peer(str(document.get("id") or ""), str(document.get("peername") or ""), error, reached)
