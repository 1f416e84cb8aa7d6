"""The way back: frames, bulk values, damage found and healed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from bridge.errors import ContentCorrupt, NotFound
from bridge.model import Outcome, StoredInstance
from bridge.node import Node
from bridge.services.access import Viewing
from bridge.services.fsck import fsck
from tests.bridge.services.conftest import VIEWER, instance, part10, recorded
from tests.bridge.services.test_store import store


def stored(node: Node, data_set: Dataset) -> tuple[Viewing, StoredInstance]:
    receipt = store(node, part10(data_set))
    (found,) = node.retrieve.locate(*receipt.key)
    return node.access.view(VIEWER, receipt.key.study, "TREAT"), found


def test_frames_come_in_the_order_asked_and_not_beyond_the_last(node: Node) -> None:
    data_set = instance(frames=4)
    viewing, found = stored(node, data_set)
    assert list(node.retrieve.frames(viewing, found, [3, 1])) == [bytes([7, 2]) * 64, bytes([7, 0]) * 64]
    for wrong in ([5], [0], []):
        with pytest.raises(NotFound):
            list(node.retrieve.frames(viewing, found, wrong))


def test_frames_of_a_deflated_data_set_are_inflated(node: Node) -> None:
    data_set = instance(frames=3)
    data_set.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    viewing, found = stored(node, data_set)
    assert next(node.retrieve.frames(viewing, found, [3])) == bytes([7, 2]) * 64


def test_frames_of_a_big_endian_data_set_are_given_little_endian(node: Node) -> None:
    data_set = instance()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data_set["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data_set.save_as(buffer, enforce_file_format=True, little_endian=False, implicit_vr=False)
    receipt = store(node, buffer.getvalue())
    (found,) = node.retrieve.locate(*receipt.key)
    viewing = node.access.view(VIEWER, receipt.key.study, "TREAT")
    assert next(node.retrieve.frames(viewing, found, [1])) == bytes([0, 7]) * 64


def test_pixel_data_is_a_bulk_value_and_an_unknown_path_is_not_found(node: Node) -> None:
    data_set = instance(frames=2)
    viewing, found = stored(node, data_set)
    assert node.retrieve.bulk(viewing, found, "7FE00010").data == data_set.PixelData
    with pytest.raises(NotFound):
        node.retrieve.bulk(viewing, found, "00091001")


def test_a_flipped_byte_is_an_integrity_error_that_fsck_names_and_a_resend_heals(node: Node) -> None:
    data_set = instance(rows=64)
    viewing, found = stored(node, data_set)
    position = node.index.locate_block(found.object.root)
    assert position is not None
    pack: Path = node.settings.home / "packs" / f"{position.pack:08d}.car"
    with pack.open("r+b") as file:
        file.seek(position.offset + 1000)
        byte = file.read(1)
        file.seek(position.offset + 1000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ContentCorrupt):
        b"".join(node.retrieve.part10(viewing, found))
    findings = fsck(node, lambda _: None)
    assert any(pack.name in finding.place for finding in findings)
    assert store(node, part10(data_set)).outcome is Outcome.HEALED
    assert [body["outcome"] for body in recorded(node, "study.store")] == ["new", "healed"]
    (healed,) = node.retrieve.locate(*found.key)
    assert b"".join(node.retrieve.part10(viewing, healed)) == part10(data_set)
    assert fsck(node, lambda _: None) == []
