"""C-STORE behind an interface of our own: no type of any DICOM library appears here.

Whatever receives (today pynetdicom's upper layer) hands a request's command, then the data set's bytes as they arrive,
and takes the answer. The bytes are never decoded and encoded again.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

from bridge.dicom.transfer_syntaxes import is_uid
from bridge.dicom.uids import identifies
from bridge.dimse.command import Request
from bridge.dimse.negotiation import VERIFICATION
from bridge.dimse.status import SOP_CLASS_UID, SOP_INSTANCE_UID, Status, error_comment
from bridge.errors import CairnError, IdentityMismatch, SopClassMismatch
from bridge.model import Actor

log = logging.getLogger(__name__)


class Incoming(Protocol):
    """One data set on its way in."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises CairnError."""

    def commit(self) -> object:
        """All bytes came: return when the instance is durable and visible. Raises CairnError."""

    def abort(self) -> None:
        """Forget it, also after a commit that failed; nothing becomes visible."""


class Reception(Protocol):
    """What one association brings."""

    def begin_data_set(self, sop_class: str, sop_instance: str, transfer_syntax: str, source_ae: str) -> Incoming:
        """Begin a bare data set of which the command says class and instance. Raises CairnError."""


class StoreDoor(Protocol):
    """Where instances go: implemented by `bridge.services.store`."""

    def reception(self, actor: Actor) -> AbstractContextManager[Reception]:
        """Entered at an association's first C-STORE, left when it ends in whatever way; one thread uses it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status (0000,0900), Error Comment (0000,0902), tags for Offending Element (0000,0901)."""

    status: int
    comment: str = ""
    offending: tuple[int, ...] = ()


SUCCESS = Answer(Status.SUCCESS)
FAULT = Answer(Status.PROCESSING_FAILURE, "a fault in the receiver; see its log")

_OFFENDING: dict[type[CairnError], tuple[int, ...]] = {
    IdentityMismatch: (SOP_INSTANCE_UID,),
    SopClassMismatch: (SOP_CLASS_UID,),
}


def answer_error(error: CairnError) -> Answer:
    """How a failed C-STORE is answered: the status of the error table, its detail shortened, the element at fault."""
    offending = next((tags for kind, tags in _OFFENDING.items() if isinstance(error, kind)), ())
    return Answer(error.answer.c_store, error_comment(error.detail), offending)


class StoreService:
    """The C-STOREs of one association, one after the other; used by one thread only.

    A refused or failed instance leaves the association as it was: its data set is drained, then answered. The door's
    reception is opened at the first C-STORE, so that an association that only echoes costs nothing.
    """

    def __init__(self, door: StoreDoor, actor: Actor) -> None:
        self._door = door
        self._actor = actor
        self._stack = ExitStack()
        self._reception: Reception | None = None
        self._incoming: Incoming | None = None
        self._failure: Answer | None = None

    def begin(self, request: Request, abstract_syntax: str, transfer_syntax: str) -> None:
        """A C-STORE-RQ came on a context of this abstract and transfer syntax; its data set follows."""
        self._failure = self._incoming = None
        if not is_uid(request.sop_class) or not identifies(request.sop_instance):
            self._failure = Answer(Status.INVALID_INSTANCE, "the command holds no valid SOP Class or Instance UID")
        elif request.sop_class != abstract_syntax or abstract_syntax == VERIFICATION:
            self._failure = Answer(Status.CLASS_NOT_SUPPORTED, "not the SOP Class of this presentation context")
        else:
            self._attempt(lambda: self._begin(request, transfer_syntax))

    def write(self, chunk: bytes) -> None:
        """The next bytes of the data set; dropped once the instance has failed."""
        incoming = self._incoming
        if incoming is not None:
            self._attempt(lambda: incoming.write(chunk))

    def finish(self) -> Answer:
        """The data set is complete: what to answer, which is success only when the instance is durable."""
        incoming = self._incoming
        if incoming is not None:
            self._attempt(lambda: incoming.commit())
        self._incoming = None
        return self._failure or SUCCESS

    def close(self) -> None:
        """The association ended: what was half received is forgotten, the reception is closed. Never raises."""
        self._forget()
        try:
            self._stack.close()
        except CairnError as error:
            log.error("a reception could not be closed: %s (%s)", error.detail, error.slug)
        except Exception:
            log.exception("a reception could not be closed")

    def _begin(self, request: Request, transfer_syntax: str) -> None:
        if self._reception is None:
            self._reception = self._stack.enter_context(self._door.reception(self._actor))
        self._incoming = self._reception.begin_data_set(
            request.sop_class, request.sop_instance, transfer_syntax, self._actor.name
        )

    def _attempt(self, step: _Step) -> None:
        """Run a step of the door; what it raises becomes the answer, and the incoming instance is forgotten."""
        try:
            step()
        except CairnError as error:
            self._failure = answer_error(error)
            log.warning("C-STORE refused with %04X: %s (%s)", self._failure.status, error.detail, error.slug)
            self._forget()
        except Exception:
            # PS3.7 C.5.14: a bug of ours must answer, not hang the sender, and is not A700 (it would be sent again).
            self._failure = FAULT
            log.exception("C-STORE failed by a fault of ours")
            self._forget()

    def _forget(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            try:
                incoming.abort()
            except Exception:
                log.exception("an incoming instance could not be forgotten")


class _Step(Protocol):
    def __call__(self) -> object: ...
