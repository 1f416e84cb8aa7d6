"""DIMSE messages out of presentation data values, and what each request is answered (PS3.7 chapter 9, PS3.8 Annex E).

Knows neither sockets nor a DICOM library: fragments go in, encoded responses come out, data sets flow to the store
service as they arrive, so that memory stays bounded whatever an instance's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from bridge.dimse.command import (
    COMMAND_LIMIT,
    RESPONSE,
    CommandMalformed,
    Field,
    Request,
    decode_request,
    encode_response,
)
from bridge.dimse.status import Status
from bridge.dimse.store import Answer, StoreService

COMMAND = 0x01
LAST = 0x02
"""Bits of a Message Control Header, PS3.8 section E.2; the others are not to be tested."""


class Reason(IntEnum):
    """Reason of a provider's A-ABORT, PS3.8 Table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolViolation(Exception):
    """The peer broke the protocol; the association must be aborted with `reason`."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class Context(NamedTuple):
    """An accepted presentation context: its abstract syntax and the one transfer syntax agreed."""

    abstract_syntax: str
    transfer_syntax: str


class Messages:
    """The requests of one association, one at a time (asynchronous operations window 1, PS3.7 section D.3.3.3)."""

    def __init__(self, contexts: Mapping[int, Context], store: StoreService) -> None:
        self._contexts = contexts
        self._store = store
        self._command = bytearray()
        self._context_id = 0
        self._request: Request | None = None
        self.received = 0
        self.refused = 0

    @property
    def receiving(self) -> bool:
        """Whether a message has begun and is not yet complete."""
        return self._request is not None or bool(self._command)

    def fragment(self, context_id: int, control: int, data: bytes) -> bytes | None:
        """Take one presentation data value; the response's command set when it completes a request.

        Raises ProtocolViolation for a context that was not accepted, fragments of two messages mixed, a data set where
        none may be, and a command set that cannot be read.
        """
        if context_id not in self._contexts:
            raise ProtocolViolation(Reason.INVALID_PARAMETER, "a presentation context that was not accepted")
        if self.receiving and context_id != self._context_id:
            raise ProtocolViolation(Reason.INVALID_PARAMETER, "two messages are mixed")
        if control & COMMAND:
            return self._command_fragment(context_id, control, data)
        return self._data_fragment(control, data)

    def _command_fragment(self, context_id: int, control: int, data: bytes) -> bytes | None:
        if self._request is not None:
            raise ProtocolViolation(Reason.UNEXPECTED_PARAMETER, "a command where a data set must follow")
        if len(self._command) + len(data) > COMMAND_LIMIT:
            raise ProtocolViolation(Reason.INVALID_PARAMETER, "a command set beyond the limit")
        self._command += data
        self._context_id = context_id
        if not control & LAST:
            return None
        encoded = bytes(self._command)
        self._command.clear()
        try:
            request = decode_request(encoded)
        except CommandMalformed as error:
            raise ProtocolViolation(Reason.INVALID_PARAMETER, str(error)) from error
        if request.field & RESPONSE:
            raise ProtocolViolation(Reason.NOT_SPECIFIED, "a response to nothing that was asked")
        if request.has_data_set:
            self._request = request
            if request.field == Field.C_STORE:
                self._store.begin(request, *self._contexts[context_id])
            return None
        return self._answer(request)

    def _data_fragment(self, control: int, data: bytes) -> bytes | None:
        request = self._request
        if request is None:
            raise ProtocolViolation(Reason.UNEXPECTED_PARAMETER, "a data set without a command that announces it")
        if request.field == Field.C_STORE and data:
            self._store.write(data)
        if not control & LAST:
            return None
        self._request = None
        return self._answer(request)

    def _answer(self, request: Request) -> bytes | None:
        if request.field == Field.C_ECHO:
            return encode_response(request, Status.SUCCESS)
        if request.field == Field.C_CANCEL:
            return None  # PS3.7 section 9.3.2.3: nothing that could be cancelled is under way, and it has no response
        if request.field != Field.C_STORE:
            return encode_response(request, Status.UNRECOGNISED_OPERATION)
        if request.has_data_set:
            answer = self._store.finish()
        else:
            answer = Answer(Status.CANNOT_UNDERSTAND, "a C-STORE without a data set")
        self.received += answer.status == Status.SUCCESS
        self.refused += answer.status != Status.SUCCESS
        return encode_response(request, answer.status, comment=answer.comment, offending=answer.offending)
