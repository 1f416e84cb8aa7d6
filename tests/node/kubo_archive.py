"""A running node over a real Kubo, and what was sent to it: what every test of the two asks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import httpx

from bridge.content import cid as cids
from tests.kubo_daemon import IPFS, KuboDaemon
from tests.node.instances import FOLDER, Sent, all_there
from tests.node.running_node import RunningNode, acknowledged, free_ports

SEEN_S = 120.0
SERIES = FOLDER / "77654033" / "CT2"
OTHERS = FOLDER / "98892003" / "MR1"
MIB = 1 << 20


def until(what: Callable[[], Any], why: Callable[[], str] = lambda: "") -> Any:
    """Wait until something is so; what it is then."""
    end = time.monotonic() + SEEN_S
    while not (found := what()):
        assert time.monotonic() < end, f"it did not come about: {why()}"
        time.sleep(0.1)
    return found


def managed_kubo() -> dict[str, str]:
    """The settings of a node with a Kubo of its own, on ports that are free."""
    api, swarm = free_ports(2)
    return {
        "CAIRN_CONTENT__ENGINE": "kubo",
        "CAIRN_CONTENT__KUBO__MANAGED": "true",
        "CAIRN_CONTENT__KUBO__BINARY": str(IPFS),
        "CAIRN_CONTENT__KUBO__API": f"http://127.0.0.1:{api}",
        "CAIRN_CONTENT__KUBO__SWARM_PORT": str(swarm),
    }


class Archive:
    """A node over a Kubo, and the instances that were sent to it and acknowledged."""

    def __init__(self, node: RunningNode, kubo: KuboDaemon, url: str | None = None) -> None:
        self.node, self.kubo = node, kubo
        self.sent: list[Sent] = []
        node.settings |= {
            "CAIRN_CONTENT__ENGINE": "kubo",
            "CAIRN_CONTENT__KUBO__API": url or kubo.url,
            "CAIRN_CONTENT__KUBO__TIMEOUT_S": "20",
        }

    def store(self, instances: Sequence[Sent]) -> None:
        """Send instances; each must be acknowledged."""
        said = self.node.storescu(*[sent.file for sent in instances]).stdout
        assert len(acknowledged(said)) == len(instances), said
        self.sent += instances

    def view(self) -> None:
        """Everything acknowledged so far comes back byte for byte."""
        with self.node.http("viewer") as client:
            all_there(client, self.sent)

    def readyz(self) -> dict[str, Any]:
        """What /readyz says; it must be 200."""
        answer = httpx.get(f"{self.node.url}/readyz", timeout=10.0)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert isinstance(said, dict)
        return said

    def degraded(self, words: str) -> None:
        """Wait until /readyz tells of a fault in these words."""
        until(lambda: any(words in reason for reason in self.readyz().get("reasons", ())), lambda: str(self.readyz()))

    def settled(self) -> None:
        """Wait until every study is pinned and read back, and nothing is wrong."""
        until(
            lambda: self.readyz() == {"status": "ready"} and self.numbers() == (0, 0),
            lambda: f"{self.readyz()} {self.node.answer('content', 'status')} {self.node.printed()[-2000:]}",
        )

    def numbers(self) -> tuple[int, int]:
        """How many studies wait to be pinned, and how many are pinned and not read back."""
        studies = self.node.answer("content", "status")["studies"]
        return studies["waiting"], studies["pinned"] - studies["verified"]

    def rows(self, query: str) -> list[bytes]:
        """The first column of a query to the index."""
        with closing(sqlite3.connect(f"file:{self.node.home / 'index.db'}?mode=ro", uri=True)) as index:
            return [row[0] for row in index.execute(query)]

    def roots(self) -> set[str]:
        """The roots of all studies as the index has them."""
        return {cids.to_text(root) for root in self.rows("SELECT root FROM tree WHERE root IS NOT NULL")}

    def leaves(self) -> list[bytes]:
        """CIDs of blocks of instances."""
        return [
            cid
            for cid in self.rows("SELECT cid FROM block WHERE instance IS NOT NULL ORDER BY cid")
            if cid[1] == cids.RAW
        ]

    def whole(self) -> None:
        """Kubo pins what the index says and nothing else of ours, and every block below is whole there."""
        assert self.kubo.pins() == self.roots()
        for root in self.roots():
            car = self.kubo.post("dag/export", root, progress=False)
            assert car.status_code == 200, car.text
        for cid in self.leaves():
            assert cids.verify(cid, self.kubo.post("block/get", cids.to_text(cid), offline=True).content)

    def nothing_wrong(self) -> None:
        """Everything is there, in Kubo and in the node, and its checks say so."""
        self.settled()
        self.view()
        self.whole()
        assert self.node.answer("fsck")["findings"] == []
        assert self.node.answer("ledger", "verify")["findings"] == []
