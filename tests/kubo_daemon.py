"""A real Kubo in a process of its own, on loopback alone: a private swarm, no routing, blocks durable when taken.

`make tools` builds the executable. A daemon can be configured, started, paused, killed, and its files damaged.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.daemon_process import DaemonProcess
from tests.node.running_node import free_ports

IPFS = Path(__file__).resolve().parents[1] / ".cache/tools/kubo/ipfs"
EMPTY_DIRECTORY = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
CALL_S = 60.0


def swarm_key() -> str:
    """A new key of a private swarm, as the text of `swarm.key`."""
    return f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n"


class KuboDaemon(DaemonProcess):
    """One repository (IPFS_PATH) and the daemon that runs on it, or does not at the moment.

    Parameters
    ----------
    home
        Where the repository lies; made when it is not there. The ports stay the same over all starts.
    key
        The text of `swarm.key`; a swarm of its own when None.
    peers
        Daemons to be peered with, both ways when each names the other; they need not run.
    settings
        Dotted keys of Kubo's configuration that differ from what the tests want ("Datastore.GCPeriod": "1h").
    """

    def __init__(
        self,
        home: Path,
        key: str | None = None,
        peers: Sequence[KuboDaemon] = (),
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(home.with_name(home.name + ".kubo.log"))
        self.home = home
        self.api_port, self.swarm_port = free_ports(2)
        if not (home / "config").exists():
            home.mkdir(parents=True, exist_ok=True)
            self.ipfs("init", "--profile=unixfs-v1-2025")
            self.key = key or swarm_key()
            (home / "swarm.key").write_text(self.key, "ascii")
        self.key = (home / "swarm.key").read_text("ascii")
        self.configure(_loopback(self.api_port, self.swarm_port))
        self.make_durable()
        self.configure(settings or {})
        self.peer_with(*peers)

    @property
    def api(self) -> str:
        """The multiaddr of its RPC, as the setting `content.kubo.api` and ipfshttpclient want it."""
        return f"/ip4/127.0.0.1/tcp/{self.api_port}/http"

    @property
    def url(self) -> str:
        """The root of its RPC, without a slash at its end."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def peer_id(self) -> str:
        """Its identity in the swarm."""
        return str(self.config()["Identity"]["PeerID"])

    @property
    def swarm(self) -> str:
        """The multiaddr at which others reach it."""
        return f"/ip4/127.0.0.1/tcp/{self.swarm_port}"

    def config(self) -> dict[str, Any]:
        """The configuration as it lies in the repository."""
        document = json.loads((self.home / "config").read_text("utf-8"))
        assert isinstance(document, dict)
        return document

    def configure(self, settings: Mapping[str, object]) -> None:
        """Set dotted keys of the configuration; the daemon reads them when it starts."""
        document = self.config()
        for key, value in settings.items():
            *above, name = key.split(".")
            place = document
            for part in above:
                place = place.setdefault(part, {})
            place[name] = value
        (self.home / "config").write_text(json.dumps(document, indent=2), "utf-8")

    def make_durable(self, sync: bool = True) -> None:
        """Whether a block is on the disk when it was taken (flatfs `sync`; Kubo's default is False)."""
        spec = self.config()["Datastore"]["Spec"]
        for mount in spec["mounts"]:
            if mount["type"] == "flatfs":
                mount["sync"] = sync
        self.configure({"Datastore.Spec": spec})

    def peer_with(self, *others: KuboDaemon) -> None:
        """Keep a connection to these from the next start on."""
        self.configure({"Peering.Peers": [{"ID": other.peer_id, "Addrs": [other.swarm]} for other in others]})

    def environment(self) -> dict[str, str]:
        """The surroundings of every process of this repository."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("IPFS_", "LIBP2P_"))}
        return inherited | {"IPFS_PATH": str(self.home), "LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off"}

    def ipfs(self, *arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        """Run Kubo's command line on this repository; its exit code must be `code` unless that is None."""
        done = subprocess.run(
            [IPFS, *arguments], env=self.environment(), capture_output=True, check=False, timeout=CALL_S
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stderr.decode()}"
        return done

    def start(self, *flags: str, ready: bool = True) -> KuboDaemon:
        """Start the daemon; with `ready`, return when its RPC answers."""
        self.spawn([IPFS, "daemon", *flags], self.environment())
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until its RPC answers; fails with the log when the process ends or the time is over."""
        self.wait_until(self.is_ready, "ready")

    def is_ready(self) -> bool:
        """Whether its RPC answers now."""
        try:
            return httpx.post(f"{self.url}/api/v0/id", timeout=5.0, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def connect(self, *others: KuboDaemon) -> None:
        """Connect to these running daemons at once (a peering waits for seconds between two tries)."""
        for other in others:
            address = f"{other.swarm}/p2p/{other.peer_id}"
            self.wait_until(lambda to=address: self.post("swarm/connect", to).status_code == 200, "connected")

    def post(self, command: str, *arguments: str, files: Any = None, **options: object) -> httpx.Response:
        """Call its RPC: `post("block/get", cid, offline=True)`; dashes of an option are written as underscores."""
        query: list[tuple[str, str]] = [("arg", argument) for argument in arguments]
        for name, value in options.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            query.append((name.replace("_", "-"), text))
        return httpx.post(f"{self.url}/api/v0/{command}", params=query, files=files, timeout=CALL_S, trust_env=False)

    def call(self, command: str, *arguments: str, **options: object) -> dict[str, Any]:
        """The JSON document that its RPC answers to a call, which must succeed."""
        answer = self.post(command, *arguments, **options)
        assert answer.status_code == 200, f"{command}: {answer.status_code} {answer.text}"
        document = answer.json()
        assert isinstance(document, dict)
        return document

    def dag_import(self, car: bytes, **options: object) -> list[dict[str, Any]]:
        """Import a CAR; every line of the answer. Gives up on a missing child after ten seconds (`timeout`)."""
        answer = self.post("dag/import", files={"file": car}, **{"timeout": "10s", **options})
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        return [json.loads(line) for line in answer.text.splitlines()]

    def holds(self, cid: str) -> bool:
        """Whether it has the block itself, without asking the swarm."""
        return self.post("block/stat", cid, offline=True).status_code == 200

    def pins(self) -> set[str]:
        """The roots of all recursive pins, without the empty directory (a CIDv0) that every repository begins with."""
        return {root for root in self.call("pin/ls", type="recursive")["Keys"] if root != EMPTY_DIRECTORY}

    def collect(self) -> None:
        """Collect garbage: every block that no pin keeps is gone."""
        answer = self.post("repo/gc", quiet=True)
        assert answer.status_code == 200 and not answer.headers.get("x-stream-error"), answer.text

    def block_file(self, cid: bytes) -> Path:
        """The file of a block in its flatfs, to be damaged or removed; `cid` is binary.

        It is called after the multihash (base32, upper case, unpadded); SHARDING says how many letters name its folder.
        """
        name = base64.b32encode(cid[2:]).decode("ascii").rstrip("=")
        letters = int((self.home / "blocks/SHARDING").read_text("ascii").rpartition("/")[2])
        return self.home / "blocks" / name[-1 - letters : -1] / f"{name}.data"


def _loopback(api_port: int, swarm_port: int) -> dict[str, object]:
    """Nothing reaches beyond loopback, nothing is announced, and a block is on the disk when it was taken."""
    transports = ("QUIC", "Websocket", "WebTransport", "WebRTCDirect", "Relay")
    return {
        "Addresses.API": [f"/ip4/127.0.0.1/tcp/{api_port}"],
        "Addresses.Gateway": [],
        "Addresses.Swarm": [f"/ip4/127.0.0.1/tcp/{swarm_port}"],
        "AutoConf.Enabled": False,
        "AutoTLS.Enabled": False,
        "Bootstrap": [],
        "Datastore.GCPeriod": "0s",
        "DNS.Resolvers": {},
        "Discovery.MDNS.Enabled": False,
        "HTTPRetrieval.Enabled": False,
        "Ipns.DelegatedPublishers": [],
        "Plugins.Plugins": {"telemetry": {"Config": {"Mode": "off"}}},
        "Provide.Enabled": False,
        "Routing.Type": "none",
        "Routing.DelegatedRouters": [],
        "Swarm.DisableNatPortMap": True,
        "Swarm.EnableHolePunching": False,
        "Swarm.RelayClient.Enabled": False,
        "Swarm.RelayService.Enabled": False,
        "Swarm.Transports.Network": dict.fromkeys(transports, False),
        "Version.SwarmCheckEnabled": False,
    }
