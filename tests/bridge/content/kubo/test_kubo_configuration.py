"""What a managed Kubo is configured to do, and what is found in the configuration of one that is not ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Kubo
from bridge.content.kubo import configuration
from bridge.content.kubo.configuration import Finding
from bridge.errors import ConfigError
from tests.kubo_daemon import IPFS

SPEC: dict[str, Any] = {
    "type": "mount",
    "mounts": [
        {
            "type": "measure",
            "mountpoint": "/blocks",
            "prefix": "flatfs.datastore",
            "child": {"type": "flatfs", "path": "blocks", "sync": False, "shardFunc": "/repo/flatfs/shard/v1/x/2"},
        },
        {"type": "levelds", "mountpoint": "/", "path": "datastore", "compression": "none"},
    ],
}
HARDEN = Path(__file__).resolve().parents[4] / "configs/kubo/harden.sh"
PEER = "12D3KooWE7fLDnPTknJLqJwU6W4KmW4AjLV6hJuKrwsTVxXNeDcD"


def base() -> dict[str, Any]:
    return {"Identity": {"PeerID": PEER}, "Datastore": {"Spec": deepcopy(SPEC)}, "Import": {"CidVersion": 1}}


def hardened(**settings: Any) -> dict[str, Any]:
    return configuration.hardened(base(), Kubo(managed=True, **settings))


def changed(path: str, value: object) -> dict[str, Any]:
    """The hardened configuration with one dotted key set."""
    config = hardened()
    *above, name = path.split(".")
    place = config
    for part in above:
        place = place.setdefault(part, {})
    place[name] = value
    return config


def keys(config: dict[str, Any], severity: str) -> set[str]:
    return {finding.key for finding in configuration.judge(config, "0.42.0") if finding.severity == severity}


def test_the_managed_configuration_is_without_findings() -> None:
    assert configuration.judge(hardened(), "0.42.0") == []
    assert configuration.fsyncs(hardened())


def test_the_managed_configuration_keeps_identity_layout_and_what_it_does_not_name() -> None:
    config = hardened()
    assert config["Identity"] == {"PeerID": PEER}
    assert config["Import"] == {"CidVersion": 1}
    store = config["Datastore"]["Spec"]["mounts"][0]["child"]
    assert store == {"type": "flatfs", "path": "blocks", "sync": True, "shardFunc": "/repo/flatfs/shard/v1/x/2"}


def test_hardening_again_changes_nothing() -> None:
    once = hardened(token="secret", peers=(f"/ip4/10.0.0.2/tcp/4001/p2p/{PEER}",))
    settings = Kubo(managed=True, token="secret", peers=(f"/ip4/10.0.0.2/tcp/4001/p2p/{PEER}",))
    assert configuration.hardened(once, settings) == once


def test_a_token_that_is_no_longer_set_is_taken_away() -> None:
    once = hardened(token="secret")
    assert once["API"]["Authorizations"]["cairn"]["AuthSecret"] == "bearer:secret"
    assert configuration.hardened(once, Kubo(managed=True))["API"]["Authorizations"] == {}


def test_private_ranges_are_not_refused_in_the_swarm() -> None:
    config = configuration.hardened(base() | {"Swarm": {"AddrFilters": ["/ip4/10.0.0.0/ipcidr/8"]}}, Kubo())
    assert config["Swarm"]["AddrFilters"] == []


@pytest.mark.parametrize(
    ("api", "multiaddress"),
    [
        ("http://127.0.0.1:5005", "/ip4/127.0.0.1/tcp/5005"),
        ("http://localhost", "/ip4/127.0.0.1/tcp/5001"),
        ("http://[::1]:5005", "/ip6/::1/tcp/5005"),
        ("/ip4/127.0.0.1/tcp/5005/http", "/ip4/127.0.0.1/tcp/5005"),
        ("/ip6/::1/tcp/5005", "/ip6/::1/tcp/5005"),
    ],
)
def test_the_api_listens_where_the_setting_says(api: str, multiaddress: str) -> None:
    assert hardened(api=api)["Addresses"]["API"] == [multiaddress]


@pytest.mark.parametrize(
    "api",
    [
        "http://10.0.0.1:5001",
        "http://0.0.0.0:5001",
        "http://kubo:5001",
        "ftp://127.0.0.1",
        "/ip4/127.0.0.1",
        "http://:x",
    ],
)
def test_a_managed_api_beyond_loopback_or_an_address_that_is_none_is_refused(api: str) -> None:
    with pytest.raises(ConfigError, match=r"content\.kubo\.api"):
        hardened(api=api)


def test_several_addresses_of_one_peer_are_joined() -> None:
    addresses = (f"/ip4/10.0.0.2/tcp/4001/p2p/{PEER}", f"/dns4/kubo.example/tcp/4001/p2p/{PEER}")
    assert hardened(peers=addresses)["Peering"]["Peers"] == [
        {"ID": PEER, "Addrs": ["/ip4/10.0.0.2/tcp/4001", "/dns4/kubo.example/tcp/4001"]}
    ]


@pytest.mark.parametrize("address", ["/ip4/10.0.0.2/tcp/4001", "10.0.0.2:4001", f"/p2p/{PEER}", "/ip4/10.0.0.2/p2p/x"])
def test_a_peer_without_address_or_id_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"content\.kubo\.peers"):
        hardened(peers=(address,))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Routing.Type", "dht"),
        ("Routing.Type", None),
        ("Bootstrap", ["auto"]),
        ("Bootstrap", [f"/dnsaddr/bootstrap.libp2p.io/p2p/{PEER}"]),
        ("Addresses.API", ["/ip4/127.0.0.1/tcp/5001", "/ip4/0.0.0.0/tcp/5001"]),
        ("Addresses.API", "/ip6/::/tcp/5001"),
        ("API.HTTPHeaders", {"Access-Control-Allow-Origin": ["*"]}),
    ],
)
def test_what_endangers_the_archive_is_refused(path: str, value: object) -> None:
    config = changed(path, value)
    assert keys(config, "refuse") == {path}
    assert keys(config, "warn") == set()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Datastore.GCPeriod", "1h"),
        ("Datastore.GCPeriod", ""),
        ("Provide.Enabled", None),
        ("Discovery.MDNS.Enabled", True),
        ("AutoConf.Enabled", None),
        ("Addresses.Gateway", "/ip4/0.0.0.0/tcp/8080"),
        ("Datastore.Spec", SPEC),
        ("Datastore.Spec", {"type": "pebbleds", "path": "pebbleds"}),
        ("Datastore.Spec", None),
        ("Plugins.Plugins.telemetry.Config.Mode", "auto"),
    ],
)
def test_what_is_unwise_is_warned_of(path: str, value: object) -> None:
    config = changed(path, value)
    assert keys(config, "refuse") == set()
    assert keys(config, "warn") == {path}


def test_an_api_beyond_loopback_that_asks_for_a_credential_is_warned_of() -> None:
    config = changed("Addresses.API", ["/ip4/0.0.0.0/tcp/5001"])
    config["API"]["Authorizations"] = {"cairn": {"AuthSecret": "bearer:x", "AllowedPaths": ["/api/v0"]}}
    assert keys(config, "refuse") == set()
    assert keys(config, "warn") == {"Addresses.API"}


@pytest.mark.parametrize(
    "value", ["/unix/run/kubo.sock", "/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/dns4/localhost/tcp/1"]
)
def test_an_api_on_this_machine_alone_is_without_finding(value: str) -> None:
    assert configuration.judge(changed("Addresses.API", [value]), "0.42.0") == []


@pytest.mark.parametrize("value", ["0", "0s", "0h0m0s"])
def test_a_collection_that_never_runs_is_without_finding(value: str) -> None:
    assert configuration.judge(changed("Datastore.GCPeriod", value), "0.42.0") == []


def test_a_swarm_bootstrapped_by_peers_of_its_own_is_without_finding() -> None:
    assert configuration.judge(changed("Bootstrap", [f"/ip4/10.0.0.2/tcp/4001/p2p/{PEER}"]), "0.42.0") == []


@pytest.mark.parametrize(("version", "refused"), [("0.41.9", True), ("", True), ("js", True), ("0.42.0", False)])
def test_a_version_older_than_was_tested_is_refused(version: str, refused: bool) -> None:
    assert [finding.key for finding in configuration.judge(hardened(), version)] == ["version"] * refused


@pytest.mark.parametrize("version", ["0.42.0-rc1", "0.43.1", "0.44.0+cafe", "1.0.0"])
def test_a_newer_version_is_taken(version: str) -> None:
    assert configuration.judge(hardened(), version) == []


def test_only_a_datastore_of_blocks_that_syncs_counts_as_durable() -> None:
    assert not configuration.fsyncs({"Datastore": {"Spec": SPEC}})
    assert configuration.fsyncs({"Datastore": {"Spec": configuration.synced(SPEC)}})
    assert not configuration.fsyncs({"Datastore": {"Spec": {"type": "pebbleds", "path": "pebbleds"}}})
    assert not configuration.fsyncs({})


@pytest.fixture
def ipfs(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Shell commands on a new repository, as Kubo makes it when nothing is asked for."""

    def run(command: str) -> subprocess.CompletedProcess[str]:
        path = f"{IPFS.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "IPFS_PATH": str(tmp_path), "HOME": str(tmp_path)}
        return subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, check=True, text=True, timeout=60
        )

    run("ipfs init")
    return run


def test_the_commands_told_mend_what_kubo_sets_by_default(
    ipfs: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    def show() -> dict[str, Any]:
        config = json.loads(ipfs("ipfs config show").stdout)
        assert isinstance(config, dict)
        return config

    found: list[Finding] = configuration.judge(show(), ipfs("ipfs version --number").stdout.strip())
    assert [(finding.severity, finding.key) for finding in found] == [
        ("refuse", "Routing.Type"),
        ("refuse", "Bootstrap"),
        ("warn", "Provide.Enabled"),
        ("warn", "Discovery.MDNS.Enabled"),
        ("warn", "AutoConf.Enabled"),
        ("warn", "Plugins.Plugins.telemetry.Config.Mode"),
        ("warn", "Datastore.GCPeriod"),
        ("warn", "Datastore.Spec"),
    ]
    for finding in found:
        ipfs(finding.command)
    assert configuration.judge(show(), "0.42.0") == []
    ipfs("ipfs repo stat")  # which opens the repository as it is configured now


def test_the_script_for_a_kubo_of_ones_own_sets_all_that_a_managed_one_has(
    ipfs: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ipfs(f"sh {HARDEN}")
    once = json.loads(ipfs("ipfs config show").stdout)
    assert configuration.judge(once, "0.42.0") == []
    assert configuration.fsyncs(once)
    settings = Kubo(managed=True)
    managed = json.loads(json.dumps(configuration.hardened(once, settings)))
    managed |= {name: once[name] for name in ("API", "Peering")}  # whose they are to set
    assert managed == once
    ipfs(f"sh {HARDEN}")
    assert configuration.judge(json.loads(ipfs("ipfs config show").stdout), "0.42.0") == []
    ipfs("ipfs repo stat")
