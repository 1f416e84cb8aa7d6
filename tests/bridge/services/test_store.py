"""The way in: identity, versions, again, streaming, refusals, and that nothing half-stored is ever visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from bridge.errors import CairnError, IdentityMismatch, NotFound, SopClassMismatch, StorageFull, Unreadable
from bridge.model import Actor, ActorKind, Outcome, Role, StoredInstance
from bridge.node import Node
from bridge.services.import_files import import_files
from bridge.services.store import HELD_IN_MEMORY, Receipt
from tests.bridge.services.conftest import SENDER, VIEWER, instance, part10, recorded


def store(node: Node, file: bytes, *, piece: int = 1 << 16, study: str | None = None) -> Receipt:
    with node.store.reception(SENDER) as reception:
        incoming = reception.begin(study)
        for start in range(0, len(file), piece):
            incoming.write(file[start : start + piece])
        return incoming.commit()


def read(node: Node, stored: StoredInstance) -> bytes:
    return b"".join(node.retrieve.part10(node.access.view(VIEWER, stored.key.study, "TREAT"), stored))


@pytest.mark.parametrize("piece", [1, 997, 1 << 20])
def test_what_was_stored_comes_back_byte_for_byte_whatever_the_pieces(node: Node, piece: int) -> None:
    file = part10(instance())
    receipt = store(node, file, piece=piece)
    assert receipt.outcome is Outcome.NEW
    (stored,) = node.retrieve.locate(*receipt.key)
    assert read(node, stored) == file


def test_a_bare_data_set_gets_meta_in_front_and_is_the_same_instance_as_the_file(node: Node) -> None:
    data_set = instance()
    file = part10(data_set)
    receipt = store(node, file)
    (stored,) = node.retrieve.locate(*receipt.key)
    with node.store.reception(SENDER) as reception:
        incoming = reception.begin_data_set(
            data_set.SOPClassUID, data_set.SOPInstanceUID, data_set.file_meta.TransferSyntaxUID, "CT1"
        )
        incoming.write(file[stored.data_set :])
        assert incoming.commit().outcome is Outcome.AGAIN


def test_again_puts_no_block_but_is_recorded(node: Node) -> None:
    file = part10(instance())
    store(node, file)
    before = node.index.counts()
    assert store(node, file).outcome is Outcome.AGAIN
    after = node.index.counts()
    assert after["blocks"] - before["blocks"] == 0
    assert after["records"] - before["records"] == 1


def test_other_bytes_under_one_uid_are_a_version_and_the_senders_latest_is_served(node: Node) -> None:
    first = instance()
    second = instance(
        study=first.StudyInstanceUID, series=first.SeriesInstanceUID, sop=first.SOPInstanceUID, name="Other^Name"
    )
    for file, outcome in ((first, Outcome.NEW), (second, Outcome.VERSION), (first, Outcome.AGAIN)):
        assert store(node, part10(file)).outcome is outcome
        (served,) = node.retrieve.locate(first.StudyInstanceUID)
        assert read(node, served) == part10(file)
    assert node.index.counts()["conflicts"] == 2
    said = [(body["outcome"], body["conflict"]) for body in recorded(node, "study.store")]
    assert said == [("new", False), ("version", True), ("again", False)]


def test_another_senders_version_does_not_take_the_place_of_what_is_served(node: Node) -> None:
    first = instance()
    second = instance(
        study=first.StudyInstanceUID, series=first.SeriesInstanceUID, sop=first.SOPInstanceUID, name="Other^Name"
    )
    store(node, part10(first))
    with node.store.reception(replace(SENDER, name="CT2")) as reception:
        incoming = reception.begin()
        incoming.write(part10(second))
        assert incoming.commit().outcome is Outcome.VERSION
    (served,) = node.retrieve.locate(first.StudyInstanceUID)
    assert read(node, served) == part10(first)
    assert node.index.counts()["conflicts"] == 2


def test_a_large_instance_is_sealed_while_it_arrives(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    file = part10(instance(rows=1024, frames=6))
    assert len(file) > HELD_IN_MEMORY + (2 << 20)
    with node.store.reception(SENDER) as reception:
        incoming = reception.begin()
        for start in range(0, len(file), 1 << 20):
            incoming.write(file[start : start + (1 << 20)])
        put_before_the_end = sum(path.stat().st_size for path in (node.settings.home / "packs").glob("*.car"))
        receipt = incoming.commit()
    assert put_before_the_end > 4 << 20
    (stored,) = node.retrieve.locate(*receipt.key)
    assert read(node, stored) == file
    viewing = node.access.view(VIEWER, receipt.key.study, "TREAT")
    (frame,) = node.retrieve.frames(viewing, stored, [5])
    assert frame == bytes([7, 4]) * (1024 * 1024)
    assert store(node, file).outcome is Outcome.AGAIN


def test_an_aborted_instance_leaves_nothing_visible(node: Node) -> None:
    data_set = instance(rows=1024, frames=6)
    with node.store.reception(SENDER) as reception:
        incoming = reception.begin()
        incoming.write(part10(data_set)[: 10 << 20])
        incoming.abort()
    with pytest.raises(NotFound):
        node.retrieve.locate(data_set.StudyInstanceUID)


@pytest.mark.parametrize("end", [0, 100, 200, 400, -1])
def test_a_truncated_file_is_refused_and_the_next_is_taken(node: Node, end: int) -> None:
    file = part10(instance())
    with node.store.reception(SENDER) as reception:
        incoming = reception.begin()
        with pytest.raises(CairnError) as caught:
            incoming.write(file[:end])
            incoming.commit()
        assert caught.value.answer.c_store & 0xF000 == 0xC000
        incoming.abort()
        whole = reception.begin()
        whole.write(file)
        assert whole.commit().outcome is Outcome.NEW


def test_what_the_request_says_must_be_what_the_data_set_says(node: Node) -> None:
    data_set = instance()
    file = part10(data_set)
    body = file[file.index(b"\x08\x00\x16\x00UI") :]
    with pytest.raises(IdentityMismatch):
        store(node, file, study="1.2.3")
    syntax = data_set.file_meta.TransferSyntaxUID
    with node.store.reception(SENDER) as reception:
        for sop_class, sop, error in (
            (data_set.SOPClassUID, generate_uid(), IdentityMismatch),
            ("1.2.840.10008.5.1.4.1.1.4", data_set.SOPInstanceUID, SopClassMismatch),
        ):
            incoming = reception.begin_data_set(sop_class, sop, syntax, "CT1")
            with pytest.raises(error):
                incoming.write(body)
    with pytest.raises(NotFound):
        node.retrieve.locate(data_set.StudyInstanceUID)


def test_a_full_disk_refuses_and_what_was_acknowledged_stays(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store(node, part10(instance()))

    def full(blocks: Any) -> Iterator[Any]:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(node.content, "put", full)
    refused = instance()
    with pytest.raises(StorageFull):
        store(node, part10(refused))
    monkeypatch.undo()
    with pytest.raises(NotFound):
        node.retrieve.locate(refused.StudyInstanceUID)
    assert node.retrieve.locate(*kept.key)
    assert store(node, part10(refused)).outcome is Outcome.NEW


def test_garbage_is_unreadable(node: Node) -> None:
    with pytest.raises(Unreadable):
        store(node, b"GET / HTTP/1.1\r\n\r\n" * 100)


@pytest.mark.parametrize("piece", [5, 1 << 20])
def test_a_file_that_is_a_bare_data_set_is_taken_with_meta_made_in_front(node: Node, piece: int) -> None:
    data_set = instance()
    file = part10(data_set)
    body = file[file.index(b"\x08\x00\x16\x00UI") :]
    receipt = store(node, body, piece=piece)
    (stored,) = node.retrieve.locate(*receipt.key)
    again = read(node, stored)
    assert again[stored.data_set :] == body
    assert again[128:132] == b"DICM"
    assert store(node, file).outcome is Outcome.AGAIN


@pytest.mark.parametrize("piece", [50, 1 << 20])
def test_a_file_that_begins_with_its_meta_gets_the_preamble_it_lacks(node: Node, piece: int) -> None:
    file = part10(instance())
    receipt = store(node, file[132:], piece=piece)
    (stored,) = node.retrieve.locate(*receipt.key)
    assert read(node, stored) == bytes(128) + file[128:]


def test_what_an_import_reads_in_is_recorded_as_imported(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(part10(instance()))
    operator = Actor(ActorKind.SYSTEM, "operator", Role.ADMIN, "", "command")
    assert import_files(node.store, operator, file, lambda _: None)["outcomes"] == {"new": 1}
    (body,) = recorded(node, "study.import")
    assert body["outcome"] == "new" and recorded(node, "study.store") == []
    tag = node.keys.study_key(str(body["study"])).tag
    assert node.index.study_tree(tag).covered == 1  # its closing made the manifest grow
