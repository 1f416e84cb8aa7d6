"""A node's stores in one process, and instances to put into them."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bridge.config import Content, Settings
from bridge.crypto.keystore import Cost, open_keystore
from bridge.ledger_reading import opener
from bridge.model import Actor, ActorKind, Role, SealedRecord
from bridge.node import Node
from ledger import record as ledger_record

CHEAP = Cost(64, 1, 1)
SENDER = Actor(ActorKind.DEVICE, "CT1", Role.DEVICE, "127.0.0.1", "dimse")
VIEWER = Actor(ActorKind.USER, "Dr Who", Role.VIEWER, "127.0.0.1", "http")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def open_node(home: Path) -> Iterator[Callable[[], Node]]:
    """Opens the node of `home`, as often as wanted; closes what is left open."""
    opened: list[Node] = []

    def open_() -> Node:
        settings = Settings(home=home, content=Content(reserve_bytes=0))
        opened.append(Node(settings, open_keystore(home, cost=CHEAP), "command"))
        return opened[-1]

    yield open_
    for node in opened:
        if not node.closed:
            node.close()


@pytest.fixture
def node(open_node: Callable[[], Node]) -> Node:
    return open_node()


def instance(
    *,
    study: str | None = None,
    series: str | None = None,
    sop: str | None = None,
    rows: int = 8,
    frames: int = 1,
    name: str = "Doe^John",
    fill: int = 7,
) -> Dataset:
    """A CT-like instance with native 16-bit pixels."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data_set.SOPClassUID = CTImageStorage
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = sop or generate_uid()
    data_set.StudyInstanceUID = study or generate_uid()
    data_set.SeriesInstanceUID = series or generate_uid()
    data_set.PatientName, data_set.PatientID, data_set.Modality = name, "P1", "CT"
    data_set.StudyDate, data_set.StudyTime, data_set.AccessionNumber = "20260101", "120000", "A1"
    data_set.Rows = data_set.Columns = rows
    data_set.SamplesPerPixel, data_set.PhotometricInterpretation = 1, "MONOCHROME2"
    data_set.BitsAllocated = data_set.BitsStored = 16
    data_set.HighBit, data_set.PixelRepresentation, data_set.InstanceNumber = 15, 0, 1
    if frames > 1:
        data_set.NumberOfFrames = frames
    data_set.PixelData = b"".join(bytes([fill, number % 256]) * (rows * rows) for number in range(frames))
    return data_set


def part10(data_set: Dataset) -> bytes:
    """The data set as a file."""
    buffer = io.BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def recorded(node: Node, kind: str) -> list[dict[str, Any]]:
    """The bodies of every record of a type in the node's index, opened with its keys, in the order of writing."""
    query = (
        "SELECT b.study, r.leaf, r.sealed FROM batch b JOIN record r ON r.batch = b.id"
        " WHERE b.type = :kind ORDER BY b.id, r.position"
    )
    with closing(sqlite3.connect(node.settings.home / "index.db")) as connection:
        rows = connection.execute(query, {"kind": kind}).fetchall()
    open_ = opener(node.keys, node.keystore)
    found = []
    for study, leaf, sealed in rows:
        encoded = open_(study, SealedRecord(leaf, sealed))
        assert encoded is not None
        record = ledger_record.decode(encoded)
        assert record.type == kind and ledger_record.leaf_hash(encoded) == leaf
        found.append(dict(record.body))
    return found
