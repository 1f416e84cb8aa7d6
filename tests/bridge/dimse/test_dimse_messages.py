"""PS3.7 chapter 9 and PS3.8 Annex E without a network: fragments in, responses out."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode
from pynetdicom.dsutils import encode as encode_data_set

from bridge.dimse.messages import Context, Messages, ProtocolViolation, Reason
from bridge.dimse.status import Status
from bridge.dimse.store import StoreService
from bridge.errors import (
    Busy,
    ContentCorrupt,
    Forbidden,
    IdentityMismatch,
    IdentityMissing,
    SopClassMismatch,
    SopClassUnsupported,
    StorageFault,
    StorageFull,
    Unreadable,
)
from bridge.model import Actor, ActorKind, Role

if TYPE_CHECKING:
    from conftest import MemoryDoor

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
ACTOR = Actor(ActorKind.DEVICE, "CT1", Role.DEVICE, "127.0.0.1", "dimse")


@pytest.fixture
def messages(door: MemoryDoor) -> Messages:
    return Messages(
        {1: Context(VERIFICATION, EXPLICIT), 3: Context(CT, EXPLICIT), 5: Context("1.2.9", EXPLICIT)},
        StoreService(door, ACTOR),
    )


def command(field: int = 1, sop_class: str = CT, instance: str = "1.2.3", data_set: int = 1) -> bytes:
    data = Dataset()
    data.AffectedSOPClassUID = sop_class
    data.CommandField = field
    data.MessageID = 7
    data.CommandDataSetType = data_set
    encoded = encode_data_set(data, True, True) or b""
    padded = instance.encode() + b"\0" * (len(instance) % 2)
    return encoded + struct.pack("<HHI", 0, 0x1000, len(padded)) + padded


def answered(encoded: bytes | None) -> Dataset:
    assert encoded is not None
    return decode(BytesIO(encoded), True, True)


def store(messages: Messages, *, context: int = 3, **changes: str) -> Dataset:
    assert messages.fragment(context, 3, command(**changes)) is None  # type: ignore[arg-type]
    assert messages.fragment(context, 0, b"data ") is None
    return answered(messages.fragment(context, 2, b"set"))


@pytest.mark.parametrize(
    ("error", "status", "offending"),
    [
        (Unreadable("x"), 0xC000, None),
        (IdentityMissing("x"), 0xC000, None),
        (IdentityMismatch("x"), 0xA900, 0x00080018),
        (SopClassMismatch("x"), 0xA900, 0x00080016),
        (SopClassUnsupported("x"), 0x0122, None),
        (Forbidden("x"), 0x0124, None),
        (StorageFull("x"), 0xA700, None),
        (Busy("x"), 0xA700, None),
        (StorageFault("x"), 0xA700, None),
        (ContentCorrupt("x"), 0x0110, None),
        (ZeroDivisionError("PATIENT^NAME"), 0x0110, None),
    ],
)
@pytest.mark.parametrize("step", ["begin", "write", "commit"])
def test_each_error_at_each_step_has_its_status_and_the_next_instance_is_taken(
    messages: Messages, door: MemoryDoor, step: str, error: Exception, status: int, offending: int | None
) -> None:
    door.fail = {step: error}
    response = store(messages)
    assert response.Status == status
    assert response.get("OffendingElement") == offending
    assert "PATIENT" not in response.ErrorComment
    assert not door.held
    assert door.aborted == (step != "begin")
    door.fail = {}
    assert store(messages).Status == Status.SUCCESS
    assert door.held[0].data == b"data set"
    assert (messages.received, messages.refused) == (1, 1)


def test_a_long_detail_is_shortened_to_64_characters(messages: Messages, door: MemoryDoor) -> None:
    door.fail = {"commit": Unreadable("e" * 100)}
    assert store(messages).ErrorComment == "e" * 64


@pytest.mark.parametrize("instance", ["", "1.2.x", "..", "1." * 32 + "1", "1.2/3"])
def test_a_malformed_uid_in_the_command_is_answered_0117(messages: Messages, door: MemoryDoor, instance: str) -> None:
    assert store(messages, instance=instance).Status == 0x0117
    assert not door.held


def test_a_class_other_than_the_contexts_is_answered_0122(messages: Messages, door: MemoryDoor) -> None:
    assert store(messages, sop_class="1.2.9").Status == 0x0122
    assert store(messages, context=1, sop_class=VERIFICATION).Status == 0x0122
    assert not door.held


def test_an_unknown_operation_is_drained_and_answered_0211(messages: Messages) -> None:
    assert messages.fragment(3, 3, command(field=0x0020)) is None
    assert answered(messages.fragment(3, 2, b"identifier")).Status == 0x0211
    assert store(messages).Status == 0


def test_a_store_without_a_data_set_is_answered_c000(messages: Messages) -> None:
    assert answered(messages.fragment(3, 3, command(data_set=0x0101))).Status == 0xC000


def test_echo_is_answered_and_cancel_is_not(messages: Messages) -> None:
    echo = answered(messages.fragment(1, 3, command(field=0x0030, sop_class=VERIFICATION, data_set=0x0101)))
    assert (echo.Status, echo.CommandField) == (0, 0x8030)
    cancel = Dataset()
    cancel.CommandField = 0x0FFF
    cancel.MessageIDBeingRespondedTo = 7
    cancel.CommandDataSetType = 0x0101
    assert messages.fragment(1, 3, encode_data_set(cancel, True, True) or b"") is None


def test_a_command_in_fragments_of_one_byte_and_empty_fragments_are_assembled(
    messages: Messages, door: MemoryDoor
) -> None:
    whole = command()
    for i, byte in enumerate(whole):
        assert messages.fragment(3, 3 if i == len(whole) - 1 else 1, bytes([byte])) is None
    for _ in range(1000):
        assert messages.fragment(3, 0, b"") is None
    assert messages.fragment(3, 0, b"abc") is None
    assert answered(messages.fragment(3, 2, b"")).Status == 0
    assert door.held[0].data == b"abc"


def violates(messages: Messages, reason: Reason, context: int, control: int, data: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        messages.fragment(context, control, data)
    assert caught.value.reason is reason


def test_what_breaks_the_protocol_is_a_violation(messages: Messages) -> None:
    violates(messages, Reason.INVALID_PARAMETER, 99, 3, command())  # a context that was not accepted
    violates(messages, Reason.UNEXPECTED_PARAMETER, 3, 2, b"data")  # a data set without a command
    violates(messages, Reason.INVALID_PARAMETER, 3, 3, b"garbage")
    violates(messages, Reason.NOT_SPECIFIED, 3, 3, command(field=0x8001).replace(b"\x10\x01", b"\x20\x01"))
    assert not messages.receiving
    assert messages.fragment(3, 3, command()) is None
    assert messages.receiving
    violates(messages, Reason.INVALID_PARAMETER, 5, 0, b"data")  # the context changes within a message
    violates(messages, Reason.UNEXPECTED_PARAMETER, 3, 3, command())  # a command within a data set


def test_a_command_beyond_64_kib_is_refused_without_keeping_it(messages: Messages) -> None:
    assert messages.fragment(3, 1, bytes(60_000)) is None
    violates(messages, Reason.INVALID_PARAMETER, 3, 1, bytes(6_000))


def test_an_association_that_ends_in_a_data_set_forgets_it(door: MemoryDoor) -> None:
    service = StoreService(door, ACTOR)
    messages = Messages({3: Context(CT, EXPLICIT)}, service)
    messages.fragment(3, 3, command())
    messages.fragment(3, 0, b"half")
    service.close()
    assert (door.aborted, door.closed, door.held) == (1, 1, [])


def test_an_association_that_only_echoes_opens_no_reception(messages: Messages, door: MemoryDoor) -> None:
    messages.fragment(1, 3, command(field=0x0030, sop_class=VERIFICATION, data_set=0x0101))
    assert door.actors == []
