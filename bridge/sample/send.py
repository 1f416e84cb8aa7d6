"""Sends the sample study over the DICOM network, as a modality would: the store is not filled behind its doors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from bridge.errors import Busy, CairnError, RequestError
from bridge.sample.study import BASIC_TEXT_REPORT, CT_IMAGE, INSTANCES, ULTRASOUND_MULTIFRAME, new_uid, sample_study

ATTEMPTS = 3
"""How often an instance is sent when its answer does not come; sending it again is harmless."""

Progress = Callable[[int, int], object]
"""(instances stored, instances in all)."""


class Sent(NamedTuple):
    """The study's UID, how many instances were stored, in how many seconds."""

    study: str
    instances: int
    seconds: float


def send_sample(
    host: str,
    port: int,
    *,
    called: str = "CAIRN",
    calling: str = "CAIRN-SAMPLE",
    progress: Progress = lambda stored, total: None,
) -> Sent:
    """Make the sample study and store it at `called`; each call makes a new study.

    Raises Busy when no association can be had or answers stay away, RequestError when an instance is refused.
    """
    began = time.monotonic()
    study = new_uid()
    send(
        sample_study(study, datetime.now().astimezone()),
        INSTANCES,
        lambda: _associate(host, port, called, calling),
        progress,
    )
    return Sent(study, INSTANCES, time.monotonic() - began)


def send(instances: Iterable[Dataset], total: int, associate: Callable[[], Association], progress: Progress) -> None:
    """Send instances one by one; an association that fails is replaced and the instance sent again.

    Errors as `send_sample`.
    """
    association = associate()
    try:
        for stored, instance in enumerate(instances, 1):
            for _ in range(ATTEMPTS):
                if not association.is_established:
                    association = associate()
                answer = association.send_c_store(instance)
                if "Status" in answer:
                    break
                association.abort()
            else:
                raise Busy("the node does not answer C-STORE")
            if answer.Status != 0:
                raise RequestError(f"the node refused an instance with status {answer.Status:04X}")
            progress(stored, total)
    finally:
        if association.is_established:
            association.release()


def _associate(host: str, port: int, called: str, calling: str) -> Association:
    entity = AE(calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 15
    contexts = [
        build_context(UID(uid), ExplicitVRLittleEndian) for uid in (CT_IMAGE, ULTRASOUND_MULTIFRAME, BASIC_TEXT_REPORT)
    ]
    association = entity.associate(host, port, contexts=contexts, ae_title=called)
    if not association.is_established:
        raise Busy(f"no DICOM association with {called} at {host}:{port}")
    return association


def main(arguments: list[str]) -> int:
    """`python -m bridge.sample.send HOST PORT [AE_TITLE]`: exit 0 when all were stored, 1 when not, 2 on misuse."""
    if len(arguments) not in (2, 3) or not arguments[1].isdecimal():
        sys.stderr.write("usage: python -m bridge.sample.send HOST PORT [AE_TITLE]\n")
        return 2
    host, port, called = arguments[0], int(arguments[1]), (arguments[2:] or ["CAIRN"])[0]

    def show(stored: int, total: int) -> None:
        if stored % 20 == 0 or stored == total:
            sys.stdout.write(f"sample      {stored} of {total} instances stored\n")
            sys.stdout.flush()

    try:
        send_sample(host, port, called=called, progress=show)
    except CairnError as error:
        sys.stderr.write(f"sample      {error.detail}. {error.advice}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
