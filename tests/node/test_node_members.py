"""The members' listener of a running node: mutual TLS, the certificates of the settings, sealed blocks and no more."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from bridge.config import Member, Members
from bridge.content import cid as cids
from bridge.content.car import CarReader
from bridge.errors import ContentMissing, EngineFault
from bridge.member_sources import member_sources
from tests.conftest import ended_well
from tests.kubo_daemon import KuboDaemon
from tests.node.audit_repository import Authority, Identity
from tests.node.instances import HIGHDICOM, retrieve, sendable
from tests.node.running_node import RunningNode, free_ports

NAME = "St. Elsewhere"
SENT = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")


class Hospital(NamedTuple):
    """A node with a members' listener, its certificate, that of its one member, and the study that it has."""

    node: RunningNode
    url: str
    own: Identity
    member: Identity
    authority: Authority
    castle: Authority
    root: str
    car: bytes

    def client(self, identity: Identity | None) -> httpx.Client:
        """A client that shows a certificate, or none, and trusts this node's."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.check_hostname = False
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return httpx.Client(base_url=self.url, verify=context, timeout=30.0, trust_env=False)

    def source(self, identity: Identity, url: str | None = None, server: Identity | None = None):  # type: ignore[no-untyped-def]
        """This node's gateway as another node's settings name it."""
        peer = Member("here", (server or self.own).certificate, url or self.url)
        (source,) = member_sources(Members(certificate=identity.certificate, key=identity.key, peers=(peer,)))
        return source


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("members")
    authority = Authority(folder)
    own, member = authority.issue("here", "127.0.0.1"), authority.issue("elsewhere", "127.0.0.1")
    castle = Authority(folder, "castle")
    (port,) = free_ports(1)
    settings = folder / "cairn.toml"
    settings.write_text(
        f'[members]\nport = {port}\ncertificate = "{own.certificate}"\nkey = "{own.key}"\n'
        f'[[members.peers]]\nname = "{NAME}"\ncertificate = "{member.certificate}"\n'
        f'[[members.peers]]\nname = "Castle"\ncertificate = "{castle.file}"\n',
        "utf-8",
    )
    node = RunningNode(folder / "home", CAIRN_CONFIG=str(settings))
    try:
        node.start()
        node.cairn("import", str(SENT.file))
        file = folder / "study.car"
        root = node.answer("study", "export", SENT.study, "--out", str(file))["root"]
        yield Hospital(node, f"https://127.0.0.1:{port}", own, member, authority, castle, root, file.read_bytes())
        ended_well(node)
    finally:
        node.kill()


@pytest.fixture
def assigned(hospital: Hospital) -> Iterator[Hospital]:
    hospital.node.cairn("content", "assign", SENT.study, "--to", NAME)
    yield hospital
    hospital.node.cairn("content", "unassign", SENT.study, "--to", NAME)


def test_a_member_fetches_a_study_while_it_is_assigned_and_not_before_or_after(hospital: Hospital) -> None:
    path = f"/ipfs/{hospital.root}?format=car"
    with hospital.client(hospital.member) as client:
        assert client.get(path).status_code == 404
        answer = hospital.node.answer("content", "assign", SENT.study, "--to", NAME, "--expires", "12h")
        assert answer["expires"]
        assert client.get(path).content == hospital.car
        (listed,) = hospital.node.answer("content", "assignments")["assignments"]
        assert (listed["member"], listed["study"], listed["state"]) == (NAME, SENT.study, "valid")
        hospital.node.cairn("content", "unassign", SENT.study, "--to", NAME)
        assert client.get(path).status_code == 404
    assert hospital.node.answer("content", "assignments") == {"assignments": []}


def test_a_start_says_where_members_meet(hospital: Hospital) -> None:
    assert f"members     {hospital.url}" in hospital.node.printed()


def test_what_a_member_fetched_is_imported_whole_by_kubo(assigned: Hospital, kubo: KuboDaemon, tmp_path: Path) -> None:
    file = tmp_path / "study.car"
    with assigned.client(assigned.member) as client:
        file.write_bytes(client.get(f"/ipfs/{assigned.root}?format=car").content)
    kubo.ipfs("dag", "import", "--timeout=20s", file)
    assert assigned.root in kubo.pins()


def refused(client: httpx.Client, path: str) -> bool:
    """Whether the listener ends the connection instead of answering."""
    try:
        client.get(path)
    except httpx.TransportError:
        return True
    return False


def test_no_other_certificate_is_let_in_though_the_same_authority_issued_it(assigned: Hospital) -> None:
    path = f"/ipfs/{assigned.root}?format=raw"
    stranger = assigned.authority.issue("stranger", "127.0.0.1")
    same_name = Authority(assigned.own.certificate.parent, "another").issue("elsewhere-too", "127.0.0.1")
    for identity in (None, stranger, same_name, assigned.own):
        with assigned.client(identity) as client:
            assert refused(client, path)


def test_a_member_that_is_an_authority_cannot_make_others_members(assigned: Hospital) -> None:
    """TLS lets in whom a member's certificate vouches for; what counts is the certificate shown."""
    with assigned.client(assigned.castle.issue("courtier", "127.0.0.1")) as client:
        assert client.get(f"/ipfs/{assigned.root}?format=raw").status_code == 401
        assert client.get("/ipfs/bafkqaaa?format=raw").status_code == 401


def test_without_tls_or_with_an_older_one_there_is_no_answer(assigned: Hospital) -> None:
    host, _, port = assigned.url.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1" not in plain.recv(4096)
    context = ssl.create_default_context(cafile=str(assigned.authority.file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(assigned.member.certificate, assigned.member.key)
    with socket.create_connection((host, int(port)), timeout=10) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_hostname=host)


@pytest.mark.parametrize(
    "path", ["/", "/console/", "/dicom-web/studies", "/ledger/checkpoint", "/livez", "/readyz", "/login", "/ipfs/"]
)
def test_members_reach_nothing_but_sealed_blocks(assigned: Hospital, path: str) -> None:
    with assigned.client(assigned.member) as client:
        assert client.get(path, headers={"authorization": f"Bearer {assigned.node.token('admin')}"}).status_code == 404


def test_another_node_reads_its_blocks_from_here_each_verified(assigned: Hospital) -> None:
    source = assigned.source(assigned.member)
    root = cids.from_text(assigned.root)
    assert cids.verify(root, source(root))
    with pytest.raises(ContentMissing):
        source(cids.make(cids.RAW, b"nobody has this"))
    source.close()


def test_a_member_that_does_not_answer_or_shows_another_certificate_is_no_source(assigned: Hospital) -> None:
    root = cids.from_text(assigned.root)
    (port,) = free_ports(1)
    silent = assigned.source(assigned.member, url=f"https://127.0.0.1:{port}")
    impostor = assigned.source(assigned.member, server=assigned.authority.issue("impostor", "127.0.0.1"))
    for source in (silent, impostor):
        for _ in range(2):
            with pytest.raises(EngineFault):
                source(root)
        source.close()


def test_an_assignment_names_a_known_member_and_a_study_that_is_held(hospital: Hospital) -> None:
    hospital.node.cairn("content", "assign", SENT.study, "--to", "Nobody", code=1)
    hospital.node.cairn("content", "assign", "1.2.3.4", "--to", NAME, code=1)
    hospital.node.cairn("content", "assign", SENT.study, "--to", NAME, "--expires", "2001-01-01", code=2)
    hospital.node.cairn("content", "unassign", SENT.study, "--to", NAME, code=1)


def test_assignments_and_fetches_stand_in_the_ledger(assigned: Hospital) -> None:
    types = {entry["type"] for entry in assigned.node.answer("ledger", "entries")["entries"]}
    assert {"consent.grant", "consent.revoke"} <= types


def test_a_certificate_that_cannot_be_read_keeps_the_node_from_starting(
    fresh_node: RunningNode, tmp_path: Path
) -> None:
    for name in ("certificate", "key"):
        (tmp_path / name).write_text("not PEM", "ascii")
    fresh_node.settings |= {
        "CAIRN_MEMBERS__CERTIFICATE": str(tmp_path / "certificate"),
        "CAIRN_MEMBERS__KEY": str(tmp_path / "key"),
    }
    done = fresh_node.cairn("serve", code=2)
    assert "members.certificate" in done.stderr


@pytest.fixture
def there(hospital: Hospital, tmp_path: Path) -> Iterator[RunningNode]:
    """The member's own node, which has this one as a source and was given the study with its key."""
    (port,) = free_ports(1)
    settings = tmp_path / "there.toml"
    settings.write_text(
        f'[members]\nport = {port}\ncertificate = "{hospital.member.certificate}"\nkey = "{hospital.member.key}"\n'
        f'[[members.peers]]\nname = "here"\ncertificate = "{hospital.own.certificate}"\nurl = "{hospital.url}"\n',
        "utf-8",
    )
    node = RunningNode(tmp_path / "there", CAIRN_CONFIG=str(settings))
    try:
        node.start()
        car, key = tmp_path / "study.car", tmp_path / "study.key"
        recipient = node.answer("key", "show")["recipient"]
        hospital.node.cairn("study", "export", SENT.study, "--out", str(car), "--to", recipient, "--key-out", str(key))
        node.cairn("study", "import", str(car), "--key", str(key))
        yield node
        ended_well(node)
    finally:
        node.kill()


def test_an_image_whose_blocks_are_damaged_is_read_from_the_other_member(
    assigned: Hospital, there: RunningNode
) -> None:
    assert there.stop() == 0
    for pack in (there.home / "packs").iterdir():
        content = bytearray(pack.read_bytes())
        content[4096:] = bytes(len(content) - 4096)
        pack.write_bytes(content)
    there.start()
    with there.http() as client:
        assert retrieve(client, SENT) == SENT.data_set


def test_a_study_that_came_from_another_node_is_served_block_by_block_under_the_same_cids(
    hospital: Hospital, there: RunningNode
) -> None:
    token = there.answer("token", "create", "--role", "viewer", "--study", SENT.study)["token"]
    with httpx.Client(base_url=there.url, headers={"authorization": f"Bearer {token}"}, timeout=30.0) as client:
        assert client.get(f"/ipfs/{hospital.root}?format=car").content == hospital.car
        for block in CarReader(io.BytesIO(hospital.car).read):
            assert client.get(f"/ipfs/{cids.to_text(block.cid)}?format=raw").content == block.data
