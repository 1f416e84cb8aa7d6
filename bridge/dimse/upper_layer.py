"""The DICOM upper layer of an accepted association: pynetdicom's state machine and codecs in a loop that waits.

pynetdicom's own loop polls every millisecond, reads 4 KiB at a time, copies each PDU four times and checks no length.
Here the loop sleeps until there is something to do, a PDU's length is judged before memory is spent on it, and P-DATA
goes from the connection's one buffer straight to the messages (PS3.8 chapter 9).
"""

from __future__ import annotations

import logging
import queue
import struct
import time
from typing import TYPE_CHECKING

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_P_ABORT

from bridge.dimse.messages import ProtocolViolation, Reason
from bridge.dimse.transport import AcceptedSocket, ConnectionLost

if TYPE_CHECKING:
    from bridge.dimse.association import AcceptedAssociation

log = logging.getLogger(__name__)

ASSOCIATE_RQ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 0x01, 0x04, 0x05, 0x06, 0x07
ASSOCIATE_LIMIT = 1024 * 1024
"""The longest A-ASSOCIATE-RQ taken, in bytes: 128 contexts of 64 transfer syntaxes are half of it."""
PDU_SLACK = 12
"""Bytes beyond the advertised maximum that are tolerated: some senders do not count the PDV's header."""

_AWAITING_REQUEST, _ESTABLISHED, _AWAITING_CLOSE, _IDLE = "Sta2", "Sta6", "Sta13", "Sta1"
_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")


class UpperLayer(DULServiceProvider):
    """The thread of one accepted association; everything that its messages cause runs here, one after the other."""

    assoc: AcceptedAssociation
    socket: AcceptedSocket | None

    def __init__(self, assoc: AcceptedAssociation, maximum_pdu: int) -> None:
        super().__init__(assoc)
        self.daemon = True  # a commit that hangs must not keep a stopping process alive: it is not acknowledged
        self._maximum_pdu = maximum_pdu
        self._begun = time.monotonic()

    def run_reactor(self) -> None:
        """Run until the association is over; then tell the association's own thread."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        try:
            while not self._kill_thread:
                self._step()
        except ProtocolViolation as violation:
            log.warning("association %s: protocol violated: %s", self.assoc.label, violation.why)
            self._abort(violation.reason)
        except Exception:
            log.exception("association %s: a fault of ours", self.assoc.label)
            self._abort(Reason.NOT_SPECIFIED)
        finally:
            self.assoc.close_messages()
            self.to_user_queue.put(None)  # wakes the association's thread

    def send_pdu(self, primitive: object) -> None:
        """Queue a primitive of the association's thread, and wake this one."""
        super().send_pdu(primitive)  # type: ignore[arg-type]
        self.wake()

    def kill_dul(self) -> None:
        super().kill_dul()
        self.wake()

    def stop_dul(self) -> bool:
        """End when idle (Sta1); the thread is joined, not polled."""
        if self.state_machine.current_state != _IDLE:
            self.join(0.05)
            return False
        self.kill_dul()
        self.join()
        return True

    def wake(self) -> None:
        if self.socket is not None:
            self.socket.wake()

    def _step(self) -> None:
        """One turn: what the state machine must do, else what the user sends, else what the peer sends."""
        try:
            event = self.event_queue.get_nowait()
        except queue.Empty:
            self._look_around()
            return
        try:
            self.state_machine.do_action(event)
        except Exception as error:
            if event == "Evt6":  # AE-6 turns the A-ASSOCIATE-RQ into a primitive, which checks its values
                raise ProtocolViolation(Reason.INVALID_PARAMETER, "an A-ASSOCIATE-RQ of invalid values") from error
            raise

    def _look_around(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self._process_recv_primitive():
            pass
        elif self.assoc.must_end:
            self._abort(Reason.NOT_SPECIFIED)
        elif self._idle_timer.expired and self.state_machine.current_state == _ESTABLISHED:
            log.warning("association %s: nothing came for %s s", self.assoc.label, self._idle_timer.timeout)
            self._abort(Reason.NOT_SPECIFIED)
        elif self.socket is None or self.socket.socket is None:
            self.event_queue.put("Evt17")
        elif self.socket.wait(self._until_timer()):
            self._read_pdu_data()
            self._idle_timer.restart()

    def _until_timer(self) -> float | None:
        timers = [timer.remaining for timer in (self.artim_timer, self._idle_timer) if timer.timeout is not None]
        return max(0.0, min(timers)) if timers else None

    def _read_pdu_data(self) -> None:
        """Read one PDU. Raises ProtocolViolation for one that may not come now, or is too long, or is malformed."""
        assert self.socket is not None
        state = self.state_machine.current_state
        # The time for the association request is one, however it trickles in (ARTIM, PS3.8 section 9.1.5).
        deadline = self._begun + (self.assoc.acse_timeout or 30.0) if state == _AWAITING_REQUEST else None
        try:
            header = bytes(self.socket.take(_PDU_HEADER.size, deadline))
            kind, length = _PDU_HEADER.unpack(header)
            self._judge(state, kind, length)
            body = self.socket.take(length, deadline)
        except ConnectionLost as lost:
            log.debug("association %s: %s", self.assoc.label, lost)
            self.event_queue.put("Evt17")
            return
        if kind == P_DATA_TF:
            if state == _ESTABLISHED:  # DT-2 (PS3.8 Table 9-7); awaiting the close, AA-6 ignores it
                self._data(body)
            return
        try:
            pdu, event = self._decode_pdu(bytearray(header + body))
        except Exception as error:  # pynetdicom's codecs raise whatever their slicing meets
            raise ProtocolViolation(Reason.INVALID_PARAMETER, f"PDU {kind:02X} cannot be decoded") from error
        if kind == RELEASE_RQ:
            self.assoc.close_messages()  # what the association brought is complete before the release is answered
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _judge(self, state: str, kind: int, length: int) -> None:
        """Refuse a PDU by its header alone (PS3.8 section 9.3.1), before memory is spent on it."""
        allowed = {
            _AWAITING_REQUEST: (ASSOCIATE_RQ, ABORT),
            _ESTABLISHED: (P_DATA_TF, RELEASE_RQ, ABORT),
            _AWAITING_CLOSE: (P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT),
        }.get(state, (ABORT,))
        if kind not in allowed:
            if 0x01 <= kind <= 0x07:
                raise ProtocolViolation(Reason.UNEXPECTED_PDU, f"PDU {kind:02X} in state {state}")
            raise ProtocolViolation(Reason.UNRECOGNISED_PDU, f"unknown PDU type {kind:02X}")
        limit = {ASSOCIATE_RQ: ASSOCIATE_LIMIT, P_DATA_TF: self._maximum_pdu + PDU_SLACK}.get(kind, 4)
        if length > limit:
            raise ProtocolViolation(Reason.INVALID_PARAMETER, f"PDU {kind:02X} of {length} bytes, {limit} may come")

    def _data(self, body: memoryview) -> None:
        """Hand each presentation data value of a P-DATA-TF on, and send the responses (PS3.8 section 9.3.5)."""
        at = 0
        while at < len(body):
            if len(body) - at < _PDV_HEADER.size:
                raise ProtocolViolation(Reason.INVALID_PARAMETER, "a presentation data value is cut off")
            length, context_id, control = _PDV_HEADER.unpack_from(body, at)
            end = at + 4 + length
            if length < 2 or end > len(body):
                raise ProtocolViolation(Reason.INVALID_PARAMETER, "a presentation data value does not fit its PDU")
            response = self.assoc.messages.fragment(context_id, control, bytes(body[at + 6 : end]))
            at = end
            if response is not None:
                self._respond(context_id, response)

    def _respond(self, context_id: int, command: bytes) -> None:
        """Send a command set in P-DATA-TFs no longer than the peer takes (0: no limit, PS3.8 section D.1)."""
        assert self.socket is not None
        limit = self.assoc.requestor.maximum_length or len(command) + 6
        size = max(1, limit - 6)
        for at in range(0, len(command), size):
            part = command[at : at + size]
            control = 0x03 if at + size >= len(command) else 0x01
            pdv = _PDV_HEADER.pack(len(part) + 2, context_id, control) + part
            self.socket.send(_PDU_HEADER.pack(P_DATA_TF, len(pdv)) + pdv)

    def _abort(self, reason: Reason) -> None:
        """Send A-ABORT (source: service provider, PS3.8 section 9.3.8), close, and end this thread."""
        if self.socket is not None and self.socket.socket is not None:
            pdu = A_ABORT_RQ()
            pdu.source = 0x02
            pdu.reason_diagnostic = reason
            self.socket.send(pdu.encode())
            self.socket.drain_and_close(seconds=1.0, limit=4 * 1024 * 1024)
        indication = A_P_ABORT()
        indication.provider_reason = int(reason)
        self.to_user_queue.put(indication)
        self.state_machine.transition(_IDLE)
        self._kill_thread = True
