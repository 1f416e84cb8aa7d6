"""A real IPFS Cluster peer (CRDT consensus) in a process of its own, on loopback, beside a Kubo of its own.

`make tools` builds the executable. What a peer says of itself and of others goes round every second here, not every
15 to 30 s, so that a second peer is soon there for allocation.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.daemon_process import DaemonProcess
from tests.kubo_daemon import KuboDaemon
from tests.node.running_node import free_ports

SERVICE = Path(__file__).resolve().parents[1] / ".cache/tools/cluster/ipfs-cluster-service"
CALL_S = 60.0


class ClusterPeer(DaemonProcess):
    """One configuration folder and the peer that runs on it, or does not at the moment.

    Parameters
    ----------
    home
        Where its configuration and state lie; made when it is not there. The ports stay the same over all starts.
    kubo
        The Kubo that it pins on.
    first
        A peer whose cluster it joins; without one it begins a cluster of its own.
    credentials
        User name and password of its REST API; open when None.
    """

    def __init__(
        self,
        home: Path,
        kubo: KuboDaemon,
        first: ClusterPeer | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(home.with_name(home.name + ".cluster.log"))
        self.home = home
        self.kubo = kubo
        self.first = first
        self.credentials = credentials
        self.secret: str = first.secret if first else secrets.token_hex(32)
        self.api_port, self.swarm_port = free_ports(2)
        if not (home / "service.json").exists():
            environment = os.environ | {"CLUSTER_SECRET": self.secret}
            command = [SERVICE, "--config", home, "init", "--consensus", "crdt"]
            subprocess.run(command, env=environment, check=True, capture_output=True, timeout=CALL_S)
        document = json.loads((home / "service.json").read_text("utf-8"))
        self._write(document)

    def _write(self, document: dict[str, Any]) -> None:
        """Loopback alone, one API, no multicast, and short intervals."""
        api = document["api"]["restapi"]
        api["http_listen_multiaddress"] = f"/ip4/127.0.0.1/tcp/{self.api_port}"
        api["basic_auth_credentials"] = dict([self.credentials]) if self.credentials else None
        document["api"] = {"restapi": api}
        document["cluster"] |= {
            "peername": self.home.name,
            "listen_multiaddress": [self.swarm],
            "enable_relay_hop": False,
            "mdns_interval": "0s",
            "monitor_ping_interval": "1s",
            "peer_watch_interval": "1s",
        }
        document["cluster"]["pubsub"]["heartbeat_interval"] = "1s"
        document["consensus"]["crdt"]["rebroadcast_interval"] = "1s"
        document["ipfs_connector"]["ipfshttp"] |= {
            "node_multiaddress": f"/ip4/127.0.0.1/tcp/{self.kubo.api_port}",
            "connect_swarms_delay": "1s",
        }
        document["monitor"]["pubsubmon"]["check_interval"] = "1s"
        for informer in document["informer"].values():
            informer["metric_ttl"] = "2s"
        document["datastore"]["pebble"]["pebble_options"] |= {"cache_size_bytes": 8 << 20, "mem_table_size": 4 << 20}
        (self.home / "service.json").write_text(json.dumps(document, indent=2), "utf-8")

    @property
    def url(self) -> str:
        """The root of its REST API, without a slash at its end."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def swarm(self) -> str:
        """The multiaddr at which others reach it."""
        return f"/ip4/127.0.0.1/tcp/{self.swarm_port}"

    @property
    def peer_id(self) -> str:
        """Its identity in the cluster."""
        return str(json.loads((self.home / "identity.json").read_text("utf-8"))["id"])

    def start(self, ready: bool = True) -> ClusterPeer:
        """Start it; with `ready`, return when its API answers and it sees the peer that it joined, both ways."""
        joins = ["--bootstrap", f"{self.first.swarm}/p2p/{self.first.peer_id}"] if self.first else []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLUSTER_")}
        self.spawn([SERVICE, "--config", self.home, "daemon", *joins], inherited)
        if ready:
            self.wait_until(self.is_ready, "ready")
            if self.first is not None and self.first.runs:
                self.wait_until(lambda: self.allocatable(self), "seen by itself")
                self.wait_until(lambda: self.allocatable(self.first), "sees the first")
                self.first.wait_until(lambda: self.first and self.first.allocatable(self), "seen by the first")
        return self

    def is_ready(self) -> bool:
        """Whether its REST API answers now."""
        try:
            return self.ask("GET", "/id").status_code == 200
        except httpx.TransportError:
            return False

    def allocatable(self, other: ClusterPeer | None) -> bool:
        """Whether this peer has a fresh metric of free space of that peer, without which it allocates nothing to it."""
        metrics = self.ask("GET", "/monitor/metrics/freespace").json() or ()
        return any(other is not None and metric["peer"] == other.peer_id for metric in metrics)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to its REST API."""
        return httpx.request(
            method, self.url + path, params=options, auth=self.credentials, timeout=CALL_S, trust_env=False
        )

    def statuses(self, root: str) -> dict[str, str]:
        """What each peer says of a pin ("pinned", "pinning", "pin_error", "remote"...), by its id."""
        answer = self.ask("GET", f"/pins/{root}").json()
        return {peer: entry["status"] for peer, entry in answer["peer_map"].items()}
