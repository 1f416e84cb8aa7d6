"""The acceptor against real senders: DCMTK's and pynetdicom's."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_context
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from bridge.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from bridge.dimse import acceptor as acceptor_module
from bridge.dimse import transport
from bridge.dimse.acceptor import Acceptor, AcceptorSettings, Authorise, listen
from bridge.errors import IdentityMissing

if TYPE_CHECKING:
    from conftest import MemoryDoor

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def instance(size: int = 1000, sop_class: str = CT) -> Dataset:
    data = Dataset()
    data.SOPClassUID = sop_class
    data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID = generate_uid()
    data.SeriesInstanceUID = generate_uid()
    data.PatientName = "CAIRN^TEST"
    data.Rows = data.Columns = 16
    data.BitsAllocated = 16
    data.PixelData = bytes(i % 251 for i in range(1000)) * (size // 1000)
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    data.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data


def file(folder: Path, data: Dataset) -> Path:
    path = folder / f"{data.SOPInstanceUID}.dcm"
    dcmwrite(path, data, enforce_file_format=True)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)


Associate = Callable[..., Any]


@pytest.fixture
def associate() -> Iterator[Associate]:
    """Associate as pynetdicom's SCU; its sockets are closed at the end, which it forgets when the peer closes first."""
    sockets: list[socket.socket] = []

    def request(
        acceptor: Acceptor, *contexts: tuple[str, list[str]], calling: str = "SCU", called: str = "CAIRN"
    ) -> Any:
        entity = AE(calling)
        host, port = acceptor.address
        proposed = [build_context(uid, [UID(s) for s in syntaxes]) for uid, syntaxes in contexts]
        association = entity.associate(host, port, contexts=proposed, ae_title=called)
        if association.dul.socket.socket is not None:
            sockets.append(association.dul.socket.socket)
        return association

    yield request
    for sock in sockets:
        sock.close()


def test_echoscu_gets_its_echo(acceptor: Acceptor) -> None:
    done = run("echoscu", "-aec", "CAIRN", "--repeat", 20, *acceptor.address)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sender", [("storescu", "-aec", "CAIRN"), ("dcmsend", "-aec", "CAIRN", "--no-uid-checks")])
def test_dcmtks_senders_are_taken_byte_for_byte(
    acceptor: Acceptor, door: MemoryDoor, tmp_path: Path, sender: tuple[str, ...]
) -> None:
    sent = [instance(size) for size in (0, 1000, 300_000, 1_000_000)]
    done = run(*sender, *acceptor.address, *(file(tmp_path, data) for data in sent))
    assert done.returncode == 0, done.stdout + done.stderr
    door.wait_for(lambda: door.closed == 1)
    assert [held.data for held in door.held] == [encode(data, False, True) for data in sent]
    assert [held.sop_instance for held in door.held] == [data.SOPInstanceUID for data in sent]
    assert {(held.sop_class, held.transfer_syntax) for held in door.held} == {(CT, EXPLICIT)}
    assert door.actors[0].address == "127.0.0.1"


@pytest.mark.parametrize("largest", [4096, 16384, 131072])
def test_any_pdu_size_of_the_sender_is_taken(
    acceptor: Acceptor, door: MemoryDoor, tmp_path: Path, largest: int
) -> None:
    data = instance(500_000)
    done = run("storescu", "-aec", "CAIRN", "--max-send-pdu", largest, *acceptor.address, file(tmp_path, data))
    assert done.returncode == 0, done.stderr
    assert door.held[0].data == encode(data, False, True)
    assert door.held[0].largest_chunk <= largest


def test_pdus_of_256_kib_are_advertised_and_used(acceptor: Acceptor, door: MemoryDoor, associate: Associate) -> None:
    association = associate(acceptor, (CT, [EXPLICIT]))
    assert association.acceptor.maximum_length == 256 * 1024
    assert association.send_c_store(instance(600_000)).Status == 0
    association.release()
    assert door.held[0].largest_chunk == 256 * 1024 - 6


@pytest.mark.parametrize("offered", [7, 8, 100])
def test_a_tiny_maximum_of_the_sender_is_kept_to(acceptor: Acceptor, offered: int, associate: Associate) -> None:
    entity = AE("SCU")
    association = entity.associate(
        *acceptor.address, contexts=[build_context(VERIFICATION)], ae_title="CAIRN", max_pdu=offered
    )
    assert association.send_c_echo().Status == 0
    association.release()


def test_every_transfer_syntax_of_the_table_is_negotiated_and_128_contexts_fit(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    syntaxes = [*TRANSFER_SYNTAXES, "1.2.840.113619.5.2", "1.2.826.0.1.3680043.9.1.1"]
    contexts = [(CT, [syntax]) for syntax in syntaxes]
    contexts += [(f"{PRIVATE_CLASS}.{n}", [IMPLICIT, EXPLICIT]) for n in range(128 - len(contexts))]
    association = associate(acceptor, *contexts)
    assert association.is_established
    assert len(association.accepted_contexts) == 128
    accepted = {str(cx.transfer_syntax[0]) for cx in association.accepted_contexts if cx.abstract_syntax == CT}
    assert accepted == set(syntaxes)
    association.release()


def test_contexts_of_one_class_are_answered_each_in_its_own_order(acceptor: Acceptor, associate: Associate) -> None:
    jpeg = "1.2.840.10008.1.2.4.50"
    proposals = [[EXPLICIT, IMPLICIT], [IMPLICIT, EXPLICIT], [jpeg, IMPLICIT], [jpeg]]
    association = associate(acceptor, *((CT, syntaxes) for syntaxes in proposals))
    chosen = [str(cx.transfer_syntax[0]) for cx in association.accepted_contexts]
    assert chosen == [EXPLICIT, IMPLICIT, IMPLICIT, jpeg]
    association.release()


def test_a_private_class_is_stored_and_worklist_find_is_not_accepted(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    association = associate(acceptor, (PRIVATE_CLASS, [EXPLICIT]), (ModalityWorklistInformationFind, [IMPLICIT]))
    assert [str(cx.abstract_syntax) for cx in association.accepted_contexts] == [PRIVATE_CLASS]
    assert [(cx.result) for cx in association.rejected_contexts] == [3]
    # pynetdicom's sender refuses classes it does not know, so the class is a known one for it alone.
    assert association.send_c_store(instance(sop_class=PRIVATE_CLASS)).Status == 0
    association.release()
    assert door.held[0].sop_class == PRIVATE_CLASS


def test_the_association_goes_on_after_a_refused_instance(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    association = associate(acceptor, (CT, [EXPLICIT]))
    door.fail = {"write": IdentityMissing("no Study Instance UID")}
    refused = association.send_c_store(instance(400_000))
    assert (refused.Status, refused.ErrorComment) == (0xC000, "no Study Instance UID")
    door.fail = {}
    assert association.send_c_store(instance()).Status == 0
    association.release()
    assert len(door.held) == 1


def test_the_reception_is_closed_before_the_release_is_answered(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    association = associate(acceptor, (CT, [EXPLICIT]))
    association.send_c_store(instance())
    association.send_c_store(instance())
    assert (len(door.actors), door.closed) == (1, 0)
    association.release()
    assert door.closed == 1


def test_an_aborted_association_forgets_what_was_not_complete(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    association = associate(acceptor, (CT, [EXPLICIT]))
    association.send_c_store(instance())
    association.abort()
    door.wait_for(lambda: door.closed == 1)
    assert (len(door.held), door.aborted) == (1, 0)


def test_many_associations_at_once_are_served_and_kept_apart(
    serve: Callable[..., Acceptor], door: MemoryDoor, tmp_path: Path
) -> None:
    acceptor = serve(associations=40)
    sent = {f"SCU{n}": [instance(100_000) for _ in range(3)] for n in range(30)}
    # DCMTK sends: pynetdicom's own sender can lose a response between its two threads when many run in one process.
    senders = [
        subprocess.Popen(
            [
                "storescu",
                "-aet",
                title,
                "-aec",
                "CAIRN",
                *map(str, (*acceptor.address, *(file(tmp_path, d) for d in data))),
            ]
        )
        for title, data in sent.items()
    ]
    assert [sender.wait(60) for sender in senders] == [0] * 30
    assert len(door.held) == 90
    held = {h.sop_instance: (h.source_ae, h.data) for h in door.held}
    assert held == {d.SOPInstanceUID: (title, encode(d, False, True)) for title, data in sent.items() for d in data}


@pytest.mark.parametrize(
    ("titles", "expected"),
    [({"called": "WRONG"}, (1, 1, 7)), ({"calling": "STRANGER"}, (1, 1, 3))],
)
def test_ae_titles_that_are_not_known_are_rejected(
    acceptor: Acceptor, titles: dict[str, str], expected: tuple[int, int, int], associate: Associate
) -> None:
    association = associate(acceptor, (VERIFICATION, [IMPLICIT]), **titles)
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == expected


def test_any_called_ae_title_is_taken_when_not_strict(serve: Callable[..., Acceptor], associate: Associate) -> None:
    association = associate(serve(strict_called=False), (VERIFICATION, [IMPLICIT]), called="ANY")
    assert association.send_c_echo().Status == 0
    association.release()


def test_beyond_the_limit_associations_are_rejected_as_transient(
    serve: Callable[..., Acceptor], associate: Associate
) -> None:
    acceptor = serve(associations=2)
    first, second = (associate(acceptor, (VERIFICATION, [IMPLICIT])) for _ in range(2))
    third = associate(acceptor, (VERIFICATION, [IMPLICIT]))
    answer = third.acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    first.release()
    second.release()


@dataclass
class SharedLoads:
    """What a status board does for processes, for acceptors of one process."""

    told: list[tuple[int, int]]
    own: int

    def tell(self, connections: int, admitted: int) -> None:
        self.told[self.own] = connections, admitted

    def all(self) -> list[tuple[int, int]]:
        return self.told


@pytest.fixture
def pair(
    door: MemoryDoor, authorise: Authorise, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Acceptor, Acceptor]]:
    """Two acceptors that share a listener and three associations; as threads, they take turns more slowly."""
    monkeypatch.setattr(acceptor_module, "YIELD_S", 0.5)
    listener, told = listen("127.0.0.1", 0), [(0, 0), (0, 0)]
    settings = AcceptorSettings(associations=3)
    one, two = (
        Acceptor(settings, door, authorise, listener=listener.dup(), loads=SharedLoads(told, number))
        for number in range(2)
    )
    one.start()
    two.start()
    yield one, two
    assert one.stop(drain_s=5)
    assert two.stop(drain_s=5)
    listener.close()


def test_acceptors_that_share_a_listener_share_the_associations_evenly(
    pair: tuple[Acceptor, Acceptor], associate: Associate
) -> None:
    for _ in range(5):
        both = [associate(pair[0], (VERIFICATION, [IMPLICIT])) for _ in range(2)]
        assert all(association.is_established for association in both)
        assert [len(acceptor._open) for acceptor in pair] == [1, 1]
        for association in both:
            association.release()
        deadline = time.monotonic() + 20
        while pair[0].associations:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_limit_holds_for_all_that_share_a_listener(pair: tuple[Acceptor, Acceptor], associate: Associate) -> None:
    taken = [associate(pair[0], (VERIFICATION, [IMPLICIT])) for _ in range(3)]
    answer = associate(pair[0], (VERIFICATION, [IMPLICIT])).acceptor.primitive
    assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
    for association in taken:
        association.release()


def test_nodelay_is_set_and_quickack_again_after_each_read(
    acceptor: Acceptor, door: MemoryDoor, monkeypatch: pytest.MonkeyPatch, associate: Associate
) -> None:
    set_again: list[tuple[int, int]] = []
    original = transport.acknowledge_at_once

    def observed(sock: socket.socket) -> None:
        original(sock)
        set_again.append(
            (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            )
        )

    reads: list[int] = []
    receive = transport.AcceptedSocket._receive

    def counted(self: transport.AcceptedSocket, sock: socket.socket) -> int:
        before = len(set_again)
        count = receive(self, sock)
        reads.append(len(set_again) - before)
        return count

    monkeypatch.setattr(transport, "acknowledge_at_once", observed)
    monkeypatch.setattr(transport.AcceptedSocket, "_receive", counted)
    association = associate(acceptor, (CT, [EXPLICIT]))
    before = len(reads)
    association.send_c_store(instance(600_000))
    association.release()
    assert len(reads) > before + 1  # more than the buffer holds, however the network cut it
    assert set(reads) == {1}
    assert all(quick == 1 and no_delay != 0 for quick, no_delay in set_again)


def test_stopping_finishes_and_answers_the_current_message(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    committing, go_on = threading.Event(), threading.Event()
    door.before_commit = lambda: (committing.set(), go_on.wait(30))
    association = associate(acceptor, (CT, [EXPLICIT]))
    statuses: list[int] = []
    sender = threading.Thread(target=lambda: statuses.append(association.send_c_store(instance()).Status))
    sender.start()
    assert committing.wait(30)
    stopped: list[bool] = []
    stopper = threading.Thread(target=lambda: stopped.append(acceptor.stop(drain_s=30)))
    stopper.start()
    while acceptor.accepting:
        time.sleep(0.005)
    go_on.set()
    sender.join()
    stopper.join()
    assert (statuses, stopped) == ([0], [True])
    assert (len(door.held), door.closed) == (1, 1)
    with pytest.raises(OSError):
        socket.create_connection(acceptor.address, timeout=5)


def test_a_message_that_does_not_end_is_cut_off_at_the_deadline(
    acceptor: Acceptor, door: MemoryDoor, associate: Associate
) -> None:
    association = associate(acceptor, (CT, [EXPLICIT]))
    command = Dataset()
    command.AffectedSOPClassUID = CT
    command.CommandField = 1
    command.MessageID = 1
    command.CommandDataSetType = 1
    command.AffectedSOPInstanceUID = "1.2.3"
    half = P_DATA()
    half.presentation_data_value_list.append((1, b"\x03" + (encode(command, True, True) or b"")))
    half.presentation_data_value_list.append((1, b"\x00half"))
    association.dul.send_pdu(half)
    door.wait_for(lambda: bool(door.actors))
    assert acceptor.stop(drain_s=0.2)
    assert (door.held, door.aborted, door.closed) == ([], 1, 1)
    association.abort()


def test_a_listening_socket_from_outside_is_used(door: MemoryDoor, authorise: Authorise, associate: Associate) -> None:
    listener = listen("127.0.0.1", 0)
    acceptor = Acceptor(AcceptorSettings(), door, authorise, listener=listener)
    assert not acceptor.accepting
    acceptor.start()
    assert acceptor.accepting
    assert acceptor.address == listener.getsockname()
    association = associate(acceptor, (VERIFICATION, [IMPLICIT]))
    assert association.send_c_echo().Status == 0
    association.release()
    assert acceptor.stop()
    assert not acceptor.accepting
