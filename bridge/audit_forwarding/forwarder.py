"""Sends the log's events to the audit repository, in order, each at least once, in a thread of its own.

    (1) read the next events after the position, at most BATCH of them      (memory is bounded by these)
    (2) make their audit messages and write them as syslog frames           (`ledger.export.atna`, pure)
    (3) wait until the repository's TCP has acknowledged the octets
    (4) when the connection still lives SETTLE_S later: they count as taken, and the position is made durable

What is lost with the repository's process is in its receive buffer at most: the connection then breaks, and everything
after the durable position is sent again. So a repository may get a message twice (the same octets, since a message is a
function of its event), and loses one only if it dies later than SETTLE_S after its TCP took it without having read it.
Syslog offers no more (RFC 5425 has no acknowledgement).

Nothing waits for this thread: events are in the ledger already, and stay there however long the repository is away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.audit_forwarding.position import Position, PositionFile
from bridge.audit_forwarding.syslog_tls import Repository, SyslogConnection
from bridge.errors import CairnError, NotFound, StorageFault
from bridge.ports import AuditTrail
from ledger.event import Detail, Event, EventQuery
from ledger.export.atna import Source, audit_message, framed, syslog_message

log = logging.getLogger(__name__)
BATCH = 100  # events read, and messages of at most 32 KiB held, at once
MOST_RECORDS = 5000  # records opened for one message; an event of more is sent without the counts of its instances
SETTLE_S = 1.0
POLL_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class State:
    """How forwarding stands: the index of the next entry not confirmed, whether connected, the last fault's words."""

    next: int
    connected: bool
    fault: str


class Forwarder:
    """The thread that forwards. `start` once; `stop` ends the connection in order and keeps the position."""

    def __init__(
        self,
        trail: AuditTrail,
        repository: Repository,
        position: PositionFile,
        source: Source,
        *,
        connect: Callable[[Repository], SyslogConnection] = SyslogConnection,
    ) -> None:
        self._trail = trail
        self._repository = repository
        self._file = position
        self._source = source
        self._connect = connect
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-forwarding", daemon=True)
        self._confirmed = Position()
        self._connected = False
        self._fault = ""
        self._pause = FIRST_PAUSE_S

    @property
    def state(self) -> State:
        """How forwarding stands now; may be read by any thread."""
        return State(self._confirmed.next, self._connected, self._fault)

    def start(self) -> None:
        """Begin; what fails is tried again for ever."""
        self._thread.start()

    def stop(self, patience_s: float = 8.0) -> None:
        """End, and wait for it at most `patience_s`; what is not confirmed by then is sent at the next start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._confirmed = self._verified(self._file.load())
                self._forward()
            except (OSError, CairnError) as error:
                self._note(error)
            self._connected = False
            self._stopped.wait(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)

    def _note(self, error: OSError | CairnError) -> None:
        """Log a fault when it is another than the last one, so that an absent repository does not fill the log."""
        fault = f"{type(error).__name__}: {error}"
        if fault != self._fault:
            log.error("audit messages wait for the repository: %s", fault, extra={"next": self._confirmed.next})
        self._fault = fault

    def _verified(self, position: Position) -> Position:
        """The position, when the log still has the entry that it followed; else the log's beginning."""
        if not position.next:
            return position
        before = self._trail.search(EventQuery(before=position.next, limit=1))
        if before and before[0].index == position.next - 1 and before[0].id == position.last:
            return position
        if not before or before[0].index < position.next - 1:
            raise StorageFault("the trail does not reach as far as the repository was told")
        log.error("the log is another one than before: the audit repository is told everything from its beginning")
        return Position()

    def _forward(self) -> None:
        """One connection, until it breaks (raises OSError), a fault (raises CairnError), or the end."""
        if not self._after(self._confirmed.next):
            self._stopped.wait(POLL_S)  # nothing to say: no connection is needed
            self._pause = FIRST_PAUSE_S
            return
        connection = self._connect(self._repository)
        self._connected = True
        log.info("the audit repository is connected", extra={"next": self._confirmed.next})
        written: deque[tuple[float, Position]] = deque()
        try:
            self._send_all(connection, written)
        except BaseException:
            connection.abandon()
            raise
        try:
            connection.close()
        except OSError as error:
            log.info("the audit repository did not end the connection in order: %s", error)
        else:
            if written:  # it has answered our close_notify, so it has read what came before
                self._confirm(written[-1][1])

    def _send_all(self, connection: SyslogConnection, written: deque[tuple[float, Position]]) -> None:
        """Write batch after batch and confirm them as they settle, until stopped."""
        following = self._confirmed.next
        while not self._stopped.is_set():
            events = self._after(following)
            if events:
                connection.write(b"".join(self._frame(event) for event in events))
                connection.drain()
                following = events[-1].index + 1
                written.append((time.monotonic(), Position(following, events[-1].id)))
            else:
                self._stopped.wait(POLL_S)
            connection.check()
            self._settle(written)

    def _settle(self, written: deque[tuple[float, Position]]) -> None:
        """Confirm what was acknowledged SETTLE_S ago or earlier; the connection has just been seen alive."""
        settled: Position | None = None
        while written and time.monotonic() - written[0][0] >= SETTLE_S:
            settled = written.popleft()[1]
        if settled is not None:
            self._confirm(settled)

    def _confirm(self, position: Position) -> None:
        self._file.save(position)
        self._confirmed = position
        self._fault = ""
        self._pause = FIRST_PAUSE_S

    def _after(self, index: int) -> Sequence[Event]:
        """The next events in order, none left out. Raises StorageFault when the trail lacks one."""
        newest = self._trail.search(EventQuery(limit=1))
        if not newest or newest[0].index < index:
            return ()
        end = min(index + BATCH, newest[0].index + 1)
        found = self._trail.search(EventQuery(before=end, limit=end - index))
        events = [event for event in reversed(found) if event.index >= index]
        for place, event in enumerate(events, index):
            if event.index != place:
                raise StorageFault("the trail lacks an entry; cairn ledger reindex makes it anew")
        return events

    def _frame(self, event: Event) -> bytes:
        """The event's message; nothing of another member's event, which that one tells its own repository."""
        if self._source.node not in (None, event.node):
            return b""
        message = audit_message(event, self._details(event), self._source)
        return framed(syslog_message(event, message, self._source))

    def _details(self, event: Event) -> Sequence[Detail]:
        if event.records > MOST_RECORDS:
            return ()
        try:
            return self._trail.details(event.id)
        except NotFound:
            return ()  # its records are gone; the entry itself still has its message
