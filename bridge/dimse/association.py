"""One accepted association: negotiated by our rules, served until it is released, aborted or lost."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_RELEASE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from bridge.dimse import negotiation
from bridge.dimse.messages import Context, Messages
from bridge.dimse.negotiation import Proposed, Rejection, Result
from bridge.dimse.store import StoreDoor, StoreService
from bridge.dimse.transport import AcceptedSocket
from bridge.dimse.upper_layer import UpperLayer
from bridge.model import Actor

log = logging.getLogger(__name__)


class Admit(Protocol):
    """Judges who asks for an association."""

    def __call__(self, association: AcceptedAssociation, called: str, calling: str, address: str) -> Actor | Rejection:
        """Who that is, or why it is refused."""


class AcceptedAssociation(Association):
    """Two threads: this one negotiates and answers the release; the upper layer's carries the messages."""

    dul: UpperLayer

    def __init__(
        self,
        ae: ApplicationEntity,
        sock: socket.socket,
        address: tuple[Any, ...],
        *,
        admit: Admit,
        storable: Callable[[str], bool],
        door: StoreDoor,
        ended: Callable[[AcceptedAssociation], None],
    ) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self._admit = admit
        self._storable = storable
        self._door = door
        self._ended = ended
        self._store: StoreService | None = None
        self.messages: Messages
        self.draining = False
        self.cut = False
        self.admitted = False
        self.began = time.monotonic()
        self.label = f"{address[0]}:{address[1]}"
        self.name = f"association {self.label}"
        self.dul = UpperLayer(self, ae.maximum_pdu_size)
        self.dul.name = f"upper layer {self.label}"
        # Setting them again hands them to the timers of the upper layer that was just put in place.
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout
        self.set_socket(AcceptedSocket(self, sock, stall=ae.acse_timeout or 30.0))
        self.acceptor.maximum_length = ae.maximum_pdu_size
        self.acceptor.ae_title = ae.ae_title
        self.acceptor.address_info = AddressInformation.from_tuple(sock.getsockname())
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(cast(Any, address))

    @property
    def must_end(self) -> bool:
        """Whether to abort now: at once when cut, between two messages when draining."""
        messages = getattr(self, "messages", None)
        return self.cut or (self.draining and not (messages is not None and messages.receiving))

    def drain(self) -> None:
        """Let the message that is on its way be finished and answered, then end."""
        self.draining = True
        self.dul.wake()

    def end(self) -> None:
        """End now, also in the middle of a message; what was not answered is forgotten."""
        self.cut = True
        self.dul.wake()
        sock = self.dul.socket.socket if self.dul.socket is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                sock.shutdown(socket.SHUT_RD)

    def close_messages(self) -> None:
        """Close what the association brought, once; in the upper layer's thread, which alone uses it."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def run_reactor(self) -> None:
        """Negotiate, then wait for the end. Never polls."""
        self.dul.start()
        self._started_dul = True
        how = "failed"
        try:
            primitive: object = self.dul.receive_pdu(wait=True)
            if not isinstance(primitive, A_ASSOCIATE):
                how = "nothing asked"
                return
            self.requestor.primitive = primitive
            rejection = self._negotiate(primitive)
            if rejection is not None:
                how = (
                    f"rejected {rejection.result}/{rejection.source}/{rejection.reason}: {rejection.why} "
                    f"(called {primitive.called_ae_title!r}, calling {primitive.calling_ae_title!r})"
                )
                self.acse.send_reject(rejection.result, rejection.source, rejection.reason)
                self.is_rejected = True
                return
            how = self._await_end()
        finally:
            self.is_established = False
            self.kill()
            if self.dul.socket is not None:
                self.dul.socket.dispose()
            self._ended(self)
            messages = getattr(self, "messages", None)
            log.info(
                "association %s: %s; stored %d, refused %d, %.2f s",
                self.label,
                how,
                messages.received if messages else 0,
                messages.refused if messages else 0,
                time.monotonic() - self.began,
            )

    def _negotiate(self, request: A_ASSOCIATE) -> Rejection | None:
        """Judge the request; accept it by pynetdicom's ACSE, or say how to reject it."""
        if request.application_context_name != negotiation.APPLICATION_CONTEXT:
            return negotiation.REFUSED_CONTEXT
        called, calling = request.called_ae_title, request.calling_ae_title
        verdict = self._admit(self, called, calling, cast(AddressInformation, self.requestor.address_info).address)
        if isinstance(verdict, Rejection):
            return verdict
        proposed = request.presentation_context_definition_list
        answers = negotiation.negotiate(
            (
                Proposed(cast(int, cx.context_id), str(cx.abstract_syntax), tuple(map(str, cx.transfer_syntax)))
                for cx in proposed
            ),
            self._storable,
        )
        accepted = {answer.id: answer for answer in answers if answer.result is Result.ACCEPTED}
        self._store = StoreService(self._door, verdict)
        self.messages = Messages(
            {id_: Context(answer.abstract_syntax, answer.transfer_syntax) for id_, answer in accepted.items()},
            self._store,
        )
        # pynetdicom chooses by the acceptor's order over all contexts of a class. The choice was made above, so each
        # proposal is cut down to it, and "supported" is what was chosen.
        supported: dict[str, list[str]] = {}
        for context in proposed:
            answer = accepted.get(cast(int, context.context_id))
            if answer is not None:
                context.transfer_syntax = [answer.transfer_syntax]
                syntaxes = supported.setdefault(answer.abstract_syntax, [])
                if answer.transfer_syntax not in syntaxes:
                    syntaxes.append(answer.transfer_syntax)
        self.acceptor.supported_contexts = [_context(uid, syntaxes) for uid, syntaxes in supported.items()]
        if self.dul.socket is not None:
            self.dul.socket.stall = self.network_timeout or self.dul.socket.stall
        self.acse.negotiate_association()
        return None

    def _await_end(self) -> str:
        """Answer the release, or notice the abort or the loss of the connection; how it ended, in words."""
        primitive: object = self.dul.receive_pdu(wait=True)
        if isinstance(primitive, A_RELEASE):
            self.acse.send_release(is_response=True)
            self.is_released = True
            return "released"
        self.is_aborted = True
        return "aborted"


def _context(abstract_syntax: str, transfer_syntaxes: list[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(transfer_syntaxes)
    return context
