"""The sample study: deterministic, legal, and taken by a real association."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from math import isclose

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from bridge.dimse.acceptor import Acceptor, AcceptorSettings
from bridge.errors import Busy, RequestError, StorageFull, Unreadable
from bridge.model import Actor, ActorKind, Role
from bridge.sample import cine, phantom
from bridge.sample.send import send_sample
from bridge.sample.shapes import Ellipsoid, spans
from bridge.sample.study import INSTANCES, new_uid, sample_study

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def study() -> list[Dataset]:
    return list(sample_study(new_uid(), MOMENT))


def test_the_pixels_are_the_same_on_every_machine() -> None:
    slices = hashlib.sha256(b"".join(phantom.slice_pixels(n) for n in range(phantom.SLICES)))
    frames = hashlib.sha256(b"".join(cine.frame_pixels(n) for n in range(cine.FRAMES)))
    assert slices.hexdigest() == "01cc2e21965ebe1cb2a9ee6dfa6263dd7cd2f3700fd5cf9161326e8d186d6bea"
    assert frames.hexdigest() == "530354d5d4792510a20a5d3886ed4a1474f40155d458bc803d573008fb88b046"


def test_spans_are_the_pixels_inside_the_ellipsoid() -> None:
    solid = Ellipsoid(7, -11, 2, 30, 17, 12, 25, 1)
    painted = np.zeros((64, 80), bool)
    for row, first, last in spans(solid, 5, 64, 80, 1.5):
        painted[row, first:last] = True
    y, x = (np.mgrid[:64, :80] - np.array([31.5, 39.5])[:, None, None]) * 1.5
    angle = np.radians(solid.turn)
    u = (x - solid.x) * np.cos(angle) + (y - solid.y) * np.sin(angle)
    v = -(x - solid.x) * np.sin(angle) + (y - solid.y) * np.cos(angle)
    inside = (u / solid.a) ** 2 + (v / solid.b) ** 2 + (3 / solid.c) ** 2 <= 1
    assert painted.any()
    assert (painted == inside).all()


def test_there_are_three_series_of_one_patient_with_uids_of_their_own(study: list[Dataset]) -> None:
    assert len(study) == INSTANCES
    assert {str(data.PatientName) for data in study} == {"CAIRN^SAMPLE"}
    assert len({data.StudyInstanceUID for data in study}) == 1
    assert len({data.SeriesInstanceUID for data in study}) == 3
    assert len({data.SOPInstanceUID for data in study}) == INSTANCES
    assert all(data.SOPInstanceUID.is_valid and data.SOPInstanceUID.startswith("2.25.") for data in study)


def test_every_instance_is_written_and_read_back_with_warnings_as_errors(study: list[Dataset]) -> None:
    for data in study:
        file = BytesIO()
        dcmwrite(file, data, enforce_file_format=True)
        file.seek(0)
        again = dcmread(file)
        if "PixelData" in again:
            assert again.pixel_array.size == again.Rows * again.Columns * again.SamplesPerPixel * again.get(
                "NumberOfFrames", 1
            )


def test_the_slices_are_a_volume(study: list[Dataset]) -> None:
    slices = [data for data in study if data.Modality == "CT"]
    assert len({data.FrameOfReferenceUID for data in slices}) == 1
    positions = [float(data.ImagePositionPatient[2]) for data in slices]
    assert all(isclose(b - a, 3.0) for a, b in pairwise(positions))
    middle = np.frombuffer(slices[30].PixelData, "<u2").astype(int) + int(slices[30].RescaleIntercept)
    assert middle[0] == -1000  # air in the corner, in HU
    assert middle.max() == 900  # skull


def test_the_cine_loop_is_in_colour_and_moves(study: list[Dataset]) -> None:
    frames = next(data for data in study if data.Modality == "US").pixel_array
    assert frames.shape == (16, 240, 320, 3)
    assert (frames[4] != frames[12]).any()
    assert (frames[4][..., 0] > frames[4][..., 2]).any()


def test_the_report_refers_to_an_image_of_the_study(study: list[Dataset]) -> None:
    report = next(data for data in study if data.Modality == "SR")
    shown = report.ContentSequence[2].ReferencedSOPSequence[0]
    assert shown.ReferencedSOPInstanceUID in {data.SOPInstanceUID for data in study}


@dataclass
class CountingDoor:
    """Takes everything, or refuses the n-th instance."""

    errors: dict[int, Exception] = field(default_factory=dict)
    seen: int = 0

    @contextmanager
    def reception(self, actor: Actor) -> Iterator[CountingDoor]:
        yield self

    def begin_data_set(self, sop_class: str, sop_instance: str, transfer_syntax: str, source_ae: str) -> CountingDoor:
        return self

    def write(self, chunk: bytes) -> None:
        assert chunk

    def commit(self) -> None:
        self.seen += 1
        if self.seen in self.errors:
            raise self.errors[self.seen]

    def abort(self) -> None:
        pass


@pytest.fixture
def door() -> CountingDoor:
    return CountingDoor()


@pytest.fixture
def acceptor(door: CountingDoor) -> Iterator[Acceptor]:
    started = Acceptor(
        AcceptorSettings(port=0),
        door,
        lambda calling, address: Actor(ActorKind.DEVICE, calling, Role.DEVICE, address, "dimse"),
    )
    started.start()
    yield started
    assert started.stop()


def test_it_is_sent_over_an_association_and_progress_is_told(acceptor: Acceptor, door: CountingDoor) -> None:
    told: list[tuple[int, int]] = []
    sent = send_sample(*acceptor.address, progress=lambda stored, total: told.append((stored, total)))
    assert door.seen == sent.instances == INSTANCES
    assert told == [(n, INSTANCES) for n in range(1, INSTANCES + 1)]


def test_a_refusal_is_told_with_its_status(acceptor: Acceptor, door: CountingDoor) -> None:
    door.errors = {5: Unreadable("no")}
    with pytest.raises(RequestError, match="C000"):
        send_sample(*acceptor.address)
    assert door.seen == 5


def test_a_node_that_takes_no_association_is_told(acceptor: Acceptor) -> None:
    with pytest.raises(Busy):
        send_sample(*acceptor.address, called="OTHER")


def test_the_command_sends_and_says_so(acceptor: Acceptor, door: CountingDoor) -> None:
    command = [sys.executable, "-m", "bridge.sample.send", *map(str, acceptor.address), "CAIRN"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, door.seen) == (0, INSTANCES), done.stderr
    assert done.stdout.splitlines()[-1].endswith("62 of 62 instances stored")
    door.errors = {door.seen + 1: StorageFull("the disk is full")}
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    assert subprocess.run(command[:3], capture_output=True, timeout=60, check=False).returncode == 2
