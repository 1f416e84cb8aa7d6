"""A real node tells a real syslog-TLS repository of every entry of its ledger, through kills of either."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.node.audit_repository import AuditRepository, Authority
from tests.node.instances import DICOM_ANY, HIGHDICOM, sendable, stow
from tests.node.running_node import RunningNode

INSTANCES = sendable([HIGHDICOM])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def repository(authority: Authority) -> Iterator[AuditRepository]:
    with AuditRepository(authority.issue("repository", "localhost"), clients=authority) as running:
        yield running


@pytest.fixture
def forwarding_node(fresh_node: RunningNode, repository: AuditRepository, authority: Authority) -> RunningNode:
    """A node that is not started yet, configured to forward with a certificate of its own."""
    own = authority.issue("node")
    fresh_node.settings |= {
        "CAIRN_AUDIT__REPOSITORY_HOST": "localhost",
        "CAIRN_AUDIT__REPOSITORY_PORT": str(repository.port),
        "CAIRN_AUDIT__CA_FILE": str(authority.file),
        "CAIRN_AUDIT__CERTIFICATE": str(own.certificate),
        "CAIRN_AUDIT__KEY": str(own.key),
    }
    return fresh_node


def told(repository: AuditRepository) -> dict[str, str]:
    """The entries that the repository was told of: leaf hash -> type, in the order of their first coming."""
    found = {}
    for message in repository.messages:
        root = ElementTree.fromstring(message.partition(b"\xef\xbb\xbf")[2].decode())
        pairs = {
            pair.attrib["type"]: base64.b64decode(pair.attrib["value"]).decode()
            for pair in root.iter("ParticipantObjectDetail")
        }
        found[pairs["Ledger Entry"]] = pairs["Entry Type"]
    return found


def entries(node: RunningNode) -> list[str]:
    """The leaf hash of every entry of the ledger, in order."""
    lines = node.cairn("ledger", "entries", "--json").stdout
    document = json.loads(lines)
    return [entry["id"] for entry in document["entries"]]


def view(node: RunningNode, study: str) -> None:
    with node.http("viewer") as client:
        assert client.get(f"/dicom-web/studies/{study}", headers={"accept": DICOM_ANY}).status_code == 200
        assert client.get("/dicom-web/studies", headers={"authorization": "Bearer wrong"}).status_code == 401


def test_the_repository_is_told_of_every_entry_though_both_are_killed(
    forwarding_node: RunningNode, repository: AuditRepository
) -> None:
    node = forwarding_node
    node.start()
    with node.http() as client:
        assert stow(client, [sent.file.read_bytes() for sent in INSTANCES[:4]]).status_code in (200, 202)
    view(node, INSTANCES[0].study)
    repository.wait(lambda: "study.store" in told(repository).values())
    repository.kill()
    with node.http() as client:  # nothing waits for the repository
        assert stow(client, [sent.file.read_bytes() for sent in INSTANCES[4:]]).status_code in (200, 202)
    repository.start()
    repository.wait(lambda: len(told(repository)) >= 3)
    node.kill()
    node.start()
    view(node, INSTANCES[-1].study)
    assert node.stop() == 0
    node.start()  # what the stop sealed is told by the next start
    sealed = entries(node)
    repository.wait(lambda: set(sealed) <= set(told(repository)))
    in_order = list(told(repository))
    assert in_order[: len(sealed)] == sealed
    assert repository.faults == []
    kinds = set(told(repository).values())
    assert {"app.start", "app.stop", "study.store", "study.access", "auth.fail", "admin.token"} <= kinds


def test_an_absent_repository_keeps_nobody_from_storing_and_viewing(
    forwarding_node: RunningNode, repository: AuditRepository
) -> None:
    repository.kill()
    node = forwarding_node.start()
    with node.http() as client:
        assert stow(client, [INSTANCES[0].file.read_bytes()]).status_code == 200
    view(node, INSTANCES[0].study)
    node.wait_printed("audit messages wait for the repository")
    assert node.is_ready()
