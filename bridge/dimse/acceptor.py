"""The listener: accepts connections, bounds them, and ends them in order (DESIGN section 7).

`Acceptor` knows no settings, stores nothing itself, and takes its listening socket from outside when there is one, so
that a supervisor can share it among processes.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pynetdicom import _config as pynetdicom_config
from pynetdicom.ae import ApplicationEntity

from bridge.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from bridge.dicom.storage_classes import is_storable
from bridge.dimse import negotiation
from bridge.dimse.association import AcceptedAssociation
from bridge.dimse.negotiation import Rejection
from bridge.dimse.store import StoreDoor
from bridge.dimse.transport import set_options
from bridge.errors import AccessError
from bridge.model import Actor

log = logging.getLogger(__name__)
YIELD_S: Final = 0.002
SILENT_S: Final = 1.0

Authorise = Callable[[str, str], Actor]
"""(calling AE title, address) -> who that is. Raises Unauthenticated or Forbidden."""


@dataclass(frozen=True, slots=True)
class AcceptorSettings:
    """How to listen; times in seconds, sizes in bytes.

    `strict_called` refuses called AE titles other than `ae_title`. `maximum_pdu` is advertised and enforced.
    `associations` may be open at once in all processes that share the listener. `pending` more connections may have
    asked for none yet; when there are more, the one that has been silent longest makes room for the newest.
    """

    ae_title: str = "CAIRN"
    host: str = "127.0.0.1"
    port: int = 11112
    strict_called: bool = True
    maximum_pdu: int = 256 * 1024
    associations: int = 64
    pending: int = 64
    associate_timeout: float = 30.0
    idle_timeout: float = 60.0
    backlog: int = 128


class Loads(Protocol):
    """What the acceptors that share a listener have in hand."""

    def tell(self, connections: int, admitted: int) -> None:
        """This one holds so many connections now, of which so many are admitted associations."""

    def all(self) -> Sequence[tuple[int, int]]:
        """What each has told, this one included."""


class Alone:
    """The loads of an acceptor that shares its listener with no other."""

    def __init__(self) -> None:
        self._told = (0, 0)

    def tell(self, connections: int, admitted: int) -> None:
        """As `Loads`."""
        self._told = connections, admitted

    def all(self) -> Sequence[tuple[int, int]]:
        """As `Loads`."""
        return (self._told,)


class Acceptor:
    """A DICOM application entity that accepts associations: Verification and Storage as SCP."""

    def __init__(
        self,
        settings: AcceptorSettings,
        door: StoreDoor,
        authorise: Authorise,
        *,
        listener: socket.socket | None = None,
        storable: Callable[[str], bool] = is_storable,
        loads: Loads | None = None,
    ) -> None:
        self._loads = loads or Alone()
        self._settings = settings
        self._door = door
        self._authorise = authorise
        self._listener = listener
        self._storable = storable
        self._open: set[AcceptedAssociation] = set()
        self._lock = threading.Lock()
        self._all_ended = threading.Condition(self._lock)
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake_receiver: socket.socket | None = None
        self._wake_sender: socket.socket | None = None
        self._entity = _entity(settings)

    @property
    def accepting(self) -> bool:
        """Whether new associations are taken (`/readyz`)."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are listened on; the port is the real one when 0 was asked for."""
        assert self._listener is not None
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def associations(self) -> int:
        """How many connections are open now, established or not, in all processes that share the listener."""
        return sum(connections for connections, _ in self._loads.all())

    def start(self) -> None:
        """Listen, and accept in a thread of its own. Raises OSError when the address cannot be had."""
        # pynetdicom's log handlers print data sets and command sets: PHI. What matters is logged here.
        pynetdicom_config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        if self._listener is None:
            self._listener = listen(self._settings.host, self._settings.port, self._settings.backlog)
        self._listener.setblocking(False)  # several processes may wait on it; one gets the connection
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_for_ever, name="dimse acceptor", daemon=True)
        self._thread.start()

    def stop(self, drain_s: float = 10.0) -> bool:
        """Accept no more, let each association finish and answer its current message, then end it.

        What is still receiving after `drain_s` seconds is cut off: it was not acknowledged. Returns whether everything
        ended; False means that a commit hangs.
        """
        self._stopping = True
        if self._thread is not None and self._wake_sender is not None and self._wake_receiver is not None:
            self._wake_sender.send(b"\0")
            self._thread.join()
            self._wake_sender.close()
            self._wake_receiver.close()
            self._wake_sender = self._wake_receiver = None
        if self._listener is not None:
            self._listener.close()
        for association in self._snapshot():
            association.drain()
        if self._wait_until_ended(drain_s):
            return True
        for association in self._snapshot():
            association.end()
        return self._wait_until_ended(5.0)

    def _snapshot(self) -> list[AcceptedAssociation]:
        with self._lock:
            return list(self._open)

    def _wait_until_ended(self, seconds: float) -> bool:
        with self._all_ended:
            return self._all_ended.wait_for(lambda: not self._open, timeout=seconds)

    def _accept_for_ever(self) -> None:
        assert self._listener is not None and self._wake_receiver is not None
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_receiver, select.POLLIN)
        while not self._stopping:
            poll.poll()
            if len(self._open) > min(connections for connections, _ in self._loads.all()):
                time.sleep(YIELD_S)  # who serves fewer takes it meanwhile; when none does, it is ours after all
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # another process took it, or it went away
            except OSError as error:
                log.error("a connection could not be accepted: %s", error.strerror)
                time.sleep(0.1)  # out of descriptors: it stays readable, so without a pause this would spin
                continue
            self._begin(sock, address)

    def _begin(self, sock: socket.socket, address: tuple[object, ...]) -> None:
        """Hand a connection to an association of its own; nothing here waits for the peer."""
        if not self._has_room():
            log.warning("connection from %s closed: too many are open", address[0])
            sock.close()
            return
        try:
            set_options(sock)
            association = AcceptedAssociation(
                self._entity,
                sock,
                address,
                admit=self._admit,
                storable=self._storable,
                door=self._door,
                ended=self._forget,
            )
        except OSError as error:
            log.warning("connection from %s lost at once: %s", address[0], error.strerror)
            sock.close()
            return
        with self._lock:
            self._open.add(association)
            self._tell()
        association.start()

    def _tell(self) -> None:
        """Tell the load; under the lock."""
        self._loads.tell(len(self._open), sum(association.admitted for association in self._open))

    def _has_room(self) -> bool:
        """Whether one more connection may wait for its association; the longest silent one is ended for it."""
        loads = self._loads.all()
        if sum(connections - admitted for connections, admitted in loads) < self._settings.pending:
            return True
        with self._lock:
            silent = [association for association in self._open if not (association.admitted or association.cut)]
            oldest = min(silent, key=lambda association: association.began, default=None)
        if oldest is None or time.monotonic() - oldest.began < SILENT_S:
            return False
        log.warning("connection from %s ended: it asks for no association, and others wait", oldest.label)
        oldest.end()
        return True

    def _forget(self, association: AcceptedAssociation) -> None:
        with self._all_ended:
            self._open.discard(association)
            self._tell()
            self._all_ended.notify_all()

    def _admit(self, association: AcceptedAssociation, called: str, calling: str, address: str) -> Actor | Rejection:
        """Who requests the association, or how it is rejected (PS3.8 Table 9-21)."""
        if self._stopping:
            return negotiation.CONGESTED
        refused = negotiation.refuse_called(called, self._settings.ae_title, self._settings.strict_called)
        if refused is not None:
            return refused
        try:
            actor = self._authorise(calling, address)
        except AccessError:
            return negotiation.REFUSED_CALLING
        with self._lock:
            if sum(admitted for _, admitted in self._loads.all()) >= self._settings.associations:
                return negotiation.LIMIT_REACHED
            association.admitted = True
            self._tell()
        return actor


def listen(host: str, port: int, backlog: int = 128) -> socket.socket:
    """A listening TCP socket, to be given to `Acceptor` (a supervisor makes it before it forks). Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _entity(settings: AcceptorSettings) -> ApplicationEntity:
    entity = ApplicationEntity(settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = settings.maximum_pdu
    entity.acse_timeout = settings.associate_timeout
    entity.network_timeout = settings.idle_timeout
    entity.dimse_timeout = settings.idle_timeout
    entity.require_called_aet = False  # judged by `negotiation`, as is the limit of associations
    entity.maximum_associations = 2**31
    return entity
