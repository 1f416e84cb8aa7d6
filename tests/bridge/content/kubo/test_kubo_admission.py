"""A Kubo that endangers the archive is not used until the command that is told has mended it."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content.kubo.admission import Admission, peer_of
from bridge.content.kubo.configuration import hardened
from bridge.errors import ContentMissing, EngineFault
from tests.contract.content_store import Archive, Study, block
from tests.kubo_daemon import IPFS, KuboDaemon

FLATFS = {"mountpoint": "/blocks", "type": "flatfs", "path": "blocks", "sync": True}


class Asked:
    """A Kubo's answers, which the test changes, and how often they were asked for."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = hardened({"Datastore": {"Spec": {"type": "mount", "mounts": [FLATFS]}}}, Kubo())
        self.own: str | None = None
        self.times = 0
        self.at = 0.0

    def configuration(self) -> dict[str, Any]:
        self.times += 1
        return self.config

    def admission(self) -> Admission:
        return Admission(self.configuration, lambda: "0.42.0", lambda: self.own, lambda: self.at)


def test_one_without_findings_is_admitted_and_not_judged_again_at_once() -> None:
    asked = Asked()
    admission = asked.admission()
    admission.check()
    assert admission.findings() == []
    assert asked.times == 1
    asked.at = 301.0
    admission.check()
    assert asked.times == 2


def test_a_node_with_a_kubo_of_its_own_uses_no_other_that_answers_in_its_place(tmp_path: Path) -> None:
    asked = Asked()
    asked.config["Identity"] = {"PeerID": "12D3KooWAnother"}
    asked.own = peer_of(tmp_path)
    assert asked.own == "", "there is no repository yet"
    admission = asked.admission()
    with pytest.raises(EngineFault, match="another one than this node's own answers"):
        admission.check()
    (tmp_path / "config").write_text('{"Identity": {"PeerID": "12D3KooWAnother"}}')
    asked.own, asked.at = peer_of(tmp_path), 6.0
    admission.check()


def test_a_refusal_tells_the_danger_and_the_command_and_ends_when_it_is_mended() -> None:
    asked = Asked()
    asked.config["Routing"] = {"Type": "dht"}
    admission = asked.admission()
    with pytest.raises(EngineFault, match=r"routing is dht.*ipfs config Routing\.Type none"):
        admission.check()
    asked.config["Routing"] = {"Type": "none"}
    with pytest.raises(EngineFault):
        admission.check()
    asked.at = 6.0
    admission.check()


def test_a_warning_admits_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked()
    asked.config["Provide"] = {}
    admission = asked.admission()
    with caplog.at_level(logging.WARNING):
        for asked.at in (0.0, 301.0, 602.0):
            admission.check()
    assert asked.times == 3
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "Provide.Enabled" in caplog.records[0].message


@pytest.fixture
def archive(fresh_kubo: KuboDaemon, tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path, archive_environment(fresh_kubo))
    yield archive
    archive.close()


def test_a_kubo_of_a_public_network_gets_nothing_until_it_is_mended(fresh_kubo: KuboDaemon, archive: Archive) -> None:
    fresh_kubo.configure({"Routing.Type": "dht"})
    fresh_kubo.start()
    study = Study()
    archive.take(study.add(2))
    with pytest.raises(EngineFault, match="Kubo is not used") as refused:
        archive.store.pin(study.root)
    assert not fresh_kubo.holds(cids.to_text(study.root))
    assert archive.store.status().reasons == (refused.value.detail,)

    command = refused.value.detail.partition("to mend it: ")[2].removesuffix(" (then restart Kubo)")
    path = f"{IPFS.parent}{os.pathsep}{os.environ['PATH']}"
    environment = fresh_kubo.environment() | {"PATH": path}
    subprocess.run(["sh", "-c", command], env=environment, check=True, capture_output=True, timeout=60)
    fresh_kubo.stop()
    fresh_kubo.start()
    fresh_kubo.wait_until(lambda: archive.store.status().reasons == (), "admitted")
    archive.store.pin(study.root)
    assert fresh_kubo.holds(cids.to_text(study.root))


def archive_environment(kubo: KuboDaemon) -> dict[str, str]:
    return {"CAIRN_CONTENT__ENGINE": "kubo", "CAIRN_CONTENT__KUBO__API": kubo.api}


def test_a_kubo_that_may_not_be_asked_for_its_configuration_is_not_used(fresh_kubo: KuboDaemon, tmp_path: Path) -> None:
    scope = {"AuthSecret": "bearer:sesame", "AllowedPaths": ["/api/v0/dag", "/api/v0/block", "/api/v0/version"]}
    fresh_kubo.configure({"API.Authorizations": {"cairn": scope}})
    fresh_kubo.start(ready=False)
    environment = archive_environment(fresh_kubo) | {"CAIRN_CONTENT__KUBO__TOKEN": "sesame"}
    archive = Archive(tmp_path, environment)
    study = Study()
    archive.take(study.add(1))
    fresh_kubo.wait_until(lambda: "HTTP 403" in archive.store.status().reasons[0], "refusing")
    with pytest.raises(EngineFault, match="HTTP 403"):
        archive.store.pin(study.root)
    archive.close()


def test_what_kubo_does_not_hold_is_missing_when_it_is_admitted(fresh_kubo: KuboDaemon, archive: Archive) -> None:
    fresh_kubo.start()
    with pytest.raises(ContentMissing):
        archive.store.get(block(b"looked for").cid)
