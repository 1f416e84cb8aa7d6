"""PS3.7 6.3.1 and Annex E: command sets, checked against pydicom's codec."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode
from pynetdicom.dsutils import encode as encode_data_set

from bridge.dimse.command import CommandMalformed, Field, Request, decode_request, encode_response
from bridge.dimse.status import Status, error_comment

CT = "1.2.840.10008.5.1.4.1.1.2"


def store_request(**changes: object) -> bytes:
    command = Dataset()
    command.AffectedSOPClassUID = CT
    command.CommandField = 0x0001
    command.MessageID = 7
    command.Priority = 0
    command.CommandDataSetType = 1
    command.AffectedSOPInstanceUID = "1.2.3"
    for keyword, value in changes.items():
        if value is None:
            delattr(command, keyword)
        else:
            setattr(command, keyword, value)
    return encode_data_set(command, True, True) or b""


def test_a_request_of_another_implementation_is_read() -> None:
    assert decode_request(store_request()) == Request(Field.C_STORE, 7, True, CT, "1.2.3")


def test_a_response_is_read_by_another_implementation() -> None:
    request = decode_request(store_request())
    encoded = encode_response(request, Status.DATA_SET_MISMATCH, comment="odd", offending=(0x00080018, 0x00080016))
    command = decode(BytesIO(encoded), True, True)
    assert command.CommandField == 0x8001
    assert command.MessageIDBeingRespondedTo == 7
    assert command.CommandDataSetType == 0x0101
    assert command.Status == 0xA900
    assert command.AffectedSOPClassUID == CT
    assert command.AffectedSOPInstanceUID == "1.2.3"
    assert list(command.OffendingElement) == [0x00080018, 0x00080016]
    assert command.ErrorComment == "odd"
    assert command.CommandGroupLength == len(encoded) - 12


@pytest.mark.parametrize("keyword", ["CommandField", "MessageID", "CommandDataSetType"])
def test_a_request_without_what_every_request_carries_is_malformed(keyword: str) -> None:
    with pytest.raises(CommandMalformed):
        decode_request(store_request(**{keyword: None}))


def test_uids_padded_with_nul_or_space_are_the_same_uids() -> None:
    whole = store_request()
    assert decode_request(whole.replace(b"1.2.3\0", b"1.2.3 ")).sop_instance == "1.2.3"


@pytest.mark.parametrize("bad", ["1.2.x", "../../etc/passwd", "1" * 65])
def test_what_is_no_uid_is_not_echoed(bad: str) -> None:
    request = Request(Field.C_STORE, 1, True, CT, bad)
    command = decode(BytesIO(encode_response(request, Status.INVALID_INSTANCE)), True, True)
    assert "AffectedSOPInstanceUID" not in command


@given(st.integers(min_value=0, max_value=len(store_request())))
def test_a_command_set_cut_anywhere_is_malformed_or_read_never_worse(at: int) -> None:
    try:
        decode_request(store_request()[:at])
    except CommandMalformed:
        return
    assert at >= len(store_request()) - 14  # only the last element, the instance UID, may be missing


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        request = decode_request(data)
    except CommandMalformed:
        return
    assert 0 <= request.field <= 0xFFFF


@given(st.text())
def test_an_error_comment_is_a_legal_lo(detail: str) -> None:
    comment = error_comment(detail)
    assert len(comment) <= 64
    assert comment.isascii()
    assert "\\" not in comment
    assert all(" " <= c <= "~" for c in comment)
