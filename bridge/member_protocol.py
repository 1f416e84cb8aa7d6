"""HTTP/1.1 towards members, bounded: no member holds the listener up, whatever it sends or does not send.

uvicorn's protocol has limits for all connections together and for idle ones. Here a request's head must be there within
a while and not grow for ever, what is sent must be read, and one member has a part of the connections, not all of them.
Bodies have their own bounds where they are read (`dicomweb.posting`).
"""

from __future__ import annotations

import logging
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MemberProtocol", "protocol_of"]

log = logging.getLogger(__name__)
HEAD_S: Final = 20.0
"""Seconds from a connection's begin, or the end of its last answer, to the end of the next request's head."""
HEAD_BYTES: Final = 64 << 10
STALL_S: Final = 60.0
"""Seconds that an answer may wait for its reader to take some tens of kilobytes more."""
OF_ONE: Final = 16
"""Connections of one member that are answered; further ones get 503, and beyond twice as many are closed."""


@dataclass(frozen=True, slots=True)
class Listening:
    """One listener: whose a certificate (DER) is, None for nobody's, and how many connections each member has."""

    name_of: Callable[[bytes], str | None]
    held: Counter[str | None] = field(default_factory=Counter)


class MemberProtocol(HttpToolsProtocol):
    """A connection of a member, whom its certificate names.

    Which member it is is told to the application in the scope's state, as `member`.
    """

    listening: ClassVar[Listening]
    member: str | None = None
    head_bytes = 0
    in_head = False
    late: TimerHandle | None = None
    stalled: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.member = self.listening.name_of(certificate)
        self.app_state = {**self.app_state, "member": self.member}
        self.listening.held[self.member] += 1
        if self.listening.held[self.member] > OF_ONE:
            self.limit_concurrency = 0  # each of its requests is answered 503
        if self.listening.held[self.member] > 2 * OF_ONE:
            self._abort("too many connections")
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.listening.held[self.member] -= 1
        if self.listening.held[self.member] <= 0:
            del self.listening.held[self.member]
        _cancel(self.late)
        _cancel(self.stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.head_bytes = self.head_bytes + len(data) if self.in_head else 0
        if self.head_bytes > HEAD_BYTES:
            self._abort("a request's head without end")

    def on_message_begin(self) -> None:
        self.in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        _cancel(self.late)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:
            self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled = self.loop.call_later(STALL_S, self._abort, "an answer is not read")

    def resume_writing(self) -> None:
        _cancel(self.stalled)
        super().resume_writing()

    def shutdown(self) -> None:
        """Of an idle connection at once: its other end may take long to answer that it closes too (TLS)."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def _expect_head(self) -> None:
        _cancel(self.late)
        self.late = self.loop.call_later(HEAD_S, self._abort, "a request's head does not come")

    def _abort(self, why: str) -> None:
        if not self.transport.is_closing():
            log.info("a member's connection is closed: %s", why, extra={"peer": self.member or "nobody"})
            self.transport.abort()


def protocol_of(name_of: Callable[[bytes], str | None]) -> type[MemberProtocol]:
    """The protocol of a listener that knows members by their certificates."""

    class ListenersProtocol(MemberProtocol):
        listening = Listening(name_of)

    return ListenersProtocol


def _cancel(timer: TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
