"""Forwarding to an audit repository that speaks real syslog over TLS, dies, comes back, and is somebody else."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bridge.audit_forwarding import forwarder as forwarding
from bridge.audit_forwarding.forwarder import Forwarder
from bridge.audit_forwarding.position import Position, PositionFile
from bridge.audit_forwarding.syslog_tls import Lost, Repository, SyslogConnection
from bridge.errors import StorageFault
from ledger.event import Event, Participant
from ledger.export.atna import Source, audit_message, syslog_message
from tests.contract.memory_trail import MemoryTrail
from tests.node.audit_repository import AuditRepository, Authority, Identity

SOURCE = Source("pacs.example.org", "CAIRN", "cairn/0001")


def event(index: int) -> Event:
    return Event(
        index=index,
        id=hashlib.sha256(b"%d" % index).digest(),
        node=bytes(16),
        sequence=index,
        type="study.access",
        time_us=1_700_000_000_000_000 + index,
        purpose="TREAT",
        outcome=0,
        actor=Participant("user", "Dr Who", "viewer", "192.0.2.7", "http"),
        records=1,
        study="1.2.3",
    )


def message(index: int) -> bytes:
    return syslog_message(event(index), audit_message(event(index), (), SOURCE), SOURCE)


def trail_of(count: int) -> MemoryTrail:
    return MemoryTrail(event(index) for index in range(count))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses; what is tested does not depend on them."""
    for name in ("POLL_S", "SETTLE_S", "FIRST_PAUSE_S", "LONGEST_PAUSE_S"):
        monkeypatch.setattr(forwarding, name, 0.05)
    monkeypatch.setattr(forwarding, "BATCH", 10)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def identity(authority: Authority) -> Identity:
    return authority.issue("repository", "localhost")


@pytest.fixture
def repository(identity: Identity) -> Iterator[AuditRepository]:
    with AuditRepository(identity) as running:
        yield running


class Forwarding:
    """Forwarders over one trail and one spool, each after the other, as a node's starts make them."""

    def __init__(self, trail: MemoryTrail, folder: Path, repository: Repository) -> None:
        self.trail = trail
        self.file = PositionFile(folder)
        self.repository = repository
        self.running: Forwarder | None = None

    def __enter__(self) -> Forwarder:
        self.running = Forwarder(self.trail, self.repository, self.file, SOURCE)
        self.running.start()
        return self.running

    def __exit__(self, *error: object) -> None:
        assert self.running is not None
        self.running.stop()


def to(running: AuditRepository, authority: Authority, host: str = "localhost") -> Repository:
    return Repository(host, running.port, authority.file)


def wait_confirmed(running: Forwarder, count: int) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if running.state.next >= count:
            return
        waiting.wait(0.01)
    raise AssertionError(running.state)


def wait_fault(running: Forwarder, words: str) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if words in running.state.fault:
            return
        waiting.wait(0.01)
    raise AssertionError(running.state)


def in_order(messages: Sequence[bytes]) -> list[bytes]:
    """Each message at its first coming."""
    return list(dict.fromkeys(messages))


def test_every_event_is_sent_once_in_order(tmp_path: Path, repository: AuditRepository, authority: Authority) -> None:
    with Forwarding(trail_of(57), tmp_path, to(repository, authority)) as running:
        wait_confirmed(running, 57)
    assert repository.messages == [message(index) for index in range(57)]
    assert repository.faults == []
    assert repository.versions == ["TLSv1.3"]
    assert PositionFile(tmp_path).load() == Position(57, event(56).id)


def test_what_is_sealed_later_follows(tmp_path: Path, repository: AuditRepository, authority: Authority) -> None:
    trail = trail_of(3)
    with Forwarding(trail, tmp_path, to(repository, authority)) as running:
        wait_confirmed(running, 3)
        for index in range(3, 30):
            trail.add(event(index))
        wait_confirmed(running, 30)
    assert repository.messages == [message(index) for index in range(30)]


def test_an_empty_log_needs_no_repository(tmp_path: Path, repository: AuditRepository, authority: Authority) -> None:
    trail = trail_of(0)
    with Forwarding(trail, tmp_path, to(repository, authority)) as running:
        assert running.state.fault == ""
        trail.add(event(0))
        repository.wait(lambda: len(repository.messages) == 1)


def test_a_repository_killed_in_the_middle_gets_everything(
    tmp_path: Path, repository: AuditRepository, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "SETTLE_S", 1.0)
    with Forwarding(trail_of(500), tmp_path, to(repository, authority)) as running:
        for count in (1, 120, 333):
            repository.wait(lambda count=count: len(repository.messages) >= count)  # type: ignore[misc]
            repository.kill()
            repository.start()
        wait_confirmed(running, 500)
    assert in_order(repository.messages) == [message(index) for index in range(500)]
    assert len(repository.versions) >= 2


def test_what_a_dying_repository_had_not_read_is_sent_again(
    tmp_path: Path, repository: AuditRepository, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "SETTLE_S", 30.0)
    repository.deaf = True  # its TCP acknowledges everything, and nothing of it is read
    with Forwarding(trail_of(5), tmp_path, to(repository, authority)) as running:
        repository.wait(lambda: len(repository.versions) == 1)
        repository.kill()
        assert PositionFile(tmp_path).load() == Position()
        repository.deaf = False
        repository.start()
        repository.wait(lambda: len(repository.messages) == 5)
    assert running.state.next == 5  # the orderly end told that all was read
    assert repository.messages == [message(index) for index in range(5)]


def test_the_next_start_goes_on_where_the_last_ended(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    trail = trail_of(20)
    forwarding_of = Forwarding(trail, tmp_path, to(repository, authority))
    with forwarding_of as first:
        wait_confirmed(first, 20)
    for index in range(20, 25):
        trail.add(event(index))
    with forwarding_of as second:
        wait_confirmed(second, 25)
    assert repository.messages == [message(index) for index in range(25)]


def test_an_absent_repository_holds_nothing_up(tmp_path: Path, identity: Identity, authority: Authority) -> None:
    repository = AuditRepository(identity).start()
    repository.kill()
    trail = trail_of(3)
    with Forwarding(trail, tmp_path, to(repository, authority)) as running:
        wait_fault(running, "ConnectionRefusedError")
        trail.add(event(3))
        with repository:
            wait_confirmed(running, 4)
        assert running.state.fault == ""
    assert in_order(repository.messages) == [message(index) for index in range(4)]


def test_another_name_than_the_certificate_s_is_refused(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    with Forwarding(trail_of(1), tmp_path, to(repository, authority, host="127.0.0.1")) as running:
        wait_fault(running, "IP address mismatch")
    assert repository.messages == []


def test_a_certificate_of_another_authority_is_refused(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    with Forwarding(trail_of(1), tmp_path, Repository("localhost", repository.port, other.file)) as running:
        wait_fault(running, "CERTIFICATE_VERIFY_FAILED")
    assert repository.messages == []


def test_a_repository_that_asks_for_a_certificate_gets_ours(
    tmp_path: Path, identity: Identity, authority: Authority
) -> None:
    node = authority.issue("node")
    with AuditRepository(identity, clients=authority) as repository:
        with Forwarding(trail_of(2), tmp_path, to(repository, authority)) as without:
            wait_fault(without, "")
            repository.wait(lambda: repository.refused >= 1)
            assert without.state.next == 0
        ours = Repository("localhost", repository.port, authority.file, node.certificate, node.key)
        with Forwarding(trail_of(2), tmp_path, ours) as running:
            wait_confirmed(running, 2)
    assert in_order(repository.messages) == [message(0), message(1)]


def test_tls_older_than_1_2_is_not_spoken(authority: Authority) -> None:
    assert Repository("localhost", 6514, authority.file).context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert Repository("localhost", 6514, authority.file).context().check_hostname


def test_files_that_cannot_be_read_are_a_fault_that_passes(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    file = tmp_path / "renewed.pem"
    with Forwarding(trail_of(1), tmp_path, Repository("localhost", repository.port, file)) as running:
        wait_fault(running, "FileNotFoundError")
        file.write_bytes(authority.file.read_bytes())
        wait_confirmed(running, 1)


def test_a_gap_in_the_trail_is_waited_for_not_skipped(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    trail = MemoryTrail([event(0), event(2)])
    with Forwarding(trail, tmp_path, to(repository, authority)) as running:
        wait_fault(running, "lacks an entry")
        trail.add(event(1))
        wait_confirmed(running, 3)
    assert in_order(repository.messages) == [message(0), message(1), message(2)]


def test_a_trail_that_is_being_made_anew_is_waited_for(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    PositionFile(tmp_path).save(Position(2, event(1).id))
    trail = trail_of(1)
    with Forwarding(trail, tmp_path, to(repository, authority)) as running:
        wait_fault(running, "does not reach")
        for index in (1, 2):
            trail.add(event(index))
        wait_confirmed(running, 3)
    assert repository.messages == [message(2)]


def test_another_log_than_the_position_s_is_sent_from_its_beginning(
    tmp_path: Path, repository: AuditRepository, authority: Authority
) -> None:
    PositionFile(tmp_path).save(Position(2, bytes(32)))
    with Forwarding(trail_of(3), tmp_path, to(repository, authority)) as running:
        wait_confirmed(running, 3)
    assert repository.messages == [message(index) for index in range(3)]


def test_the_messages_are_audit_messages(tmp_path: Path, repository: AuditRepository, authority: Authority) -> None:
    with Forwarding(trail_of(1), tmp_path, to(repository, authority)) as running:
        wait_confirmed(running, 1)
    xml = repository.messages[0].partition(b"\xef\xbb\xbf")[2]
    assert ElementTree.fromstring(xml.decode()).find("ParticipantObjectIdentification") is not None


def test_a_connection_that_the_repository_closed_is_noticed(repository: AuditRepository, authority: Authority) -> None:
    connection = SyslogConnection(to(repository, authority))
    repository.wait(lambda: len(repository.versions) == 1)
    connection.check()
    repository.kill()
    with pytest.raises((Lost, ConnectionResetError)):
        connection.check()
    connection.abandon()


def test_a_position_is_kept_and_replaced(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "spool")
    assert file.load() == Position()
    for position in (Position(1, bytes(32)), Position(70, b"\1" * 32)):
        file.save(position)
        assert PositionFile(tmp_path / "spool").load() == position
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["position.json"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"next": -1, "last": ""}', '{"next": 1, "last": ""}', '{"next": 1, "last": "zz"}']
)
def test_a_position_that_is_none_is_a_fault_never_the_beginning(tmp_path: Path, text: str) -> None:
    (tmp_path / "position.json").write_text(text)
    with pytest.raises(StorageFault):
        PositionFile(tmp_path).load()


def test_a_position_that_cannot_be_kept_leaves_the_last_one(tmp_path: Path) -> None:
    file = PositionFile(tmp_path)
    file.save(Position(1, bytes(32)))
    (tmp_path / "position.new").mkdir()
    with pytest.raises(StorageFault):
        file.save(Position(2, bytes(32)))
    assert file.load() == Position(1, bytes(32))
