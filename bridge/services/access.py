"""Who saw what: recorded before it is served (DESIGN section 6).

A viewing session is (actor, study, purpose): it slides by 60 s and lasts at most 10 minutes. Its opening record, which
covers the study, is durable before the first byte; instances and frames follow as detail records within a second, off
the request's path. Queries, refusals and administration are recorded likewise. If that cannot be done, nothing is
served: `view` and `query` raise AccessNotRecordable until recording works again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from bridge.crypto import derive
from bridge.errors import AccessNotRecordable, CairnError
from bridge.model import Actor, ActorKind, SealedRecord, StudyKey
from bridge.ports import KeyStore
from bridge.services.close_batch import Batches, OpenBatch
from bridge.services.provenance import Provenance, by

log = logging.getLogger(__name__)
SLIDING_S, LONGEST_S, DETAILS_PER_RECORD, PENDING_LIMIT = 60.0, 600.0, 200, 100_000
SYSTEM = Actor(ActorKind.SYSTEM, "cairn", None, "", "node")


class Session:
    """A run of records by one actor about one study (a viewing) or none (queries, refusals)."""

    __slots__ = ("batch", "began", "lock", "pending", "secret", "touched", "type")

    def __init__(self, kind: str, batch: OpenBatch, secret: bytes) -> None:
        self.type = kind
        self.batch = batch
        self.secret = secret
        self.began = self.touched = time.monotonic()
        self.pending: Counter[tuple[str, ...]] = Counter()
        self.lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether the session has ended by time."""
        now = time.monotonic()
        return now - self.touched > SLIDING_S or now - self.began > LONGEST_S


class Viewing:
    """The right to be served one study, proved recorded. `saw` adds what was served to the session's details."""

    __slots__ = ("_access", "_session", "study")

    def __init__(self, access: Access, session: Session, study: str) -> None:
        self._access = access
        self._session = session
        self.study = study

    def saw(self, what: str, sop: str = "", frame: str = "") -> None:
        """Count one thing served: `what` is "instance", "frame", "metadata" or "bulk"."""
        self._access.note(self._session, (what, sop, frame))


class Access:
    """The sessions of one process. Thread-safe."""

    def __init__(
        self,
        batches: Batches,
        keys: KeyStore,
        provenance: Provenance,
        audit_key: bytes,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batches = batches
        self._keys = keys
        self._provenance = provenance
        self._audit_key = derive.node_record_key(audit_key)
        self._now = now
        self._lock = threading.Lock()
        self._opening: dict[tuple[object, ...], threading.Lock] = {}
        self._sessions: dict[tuple[object, ...], Session] = {}
        self._failed: CairnError | None = None

    def view(self, actor: Actor, study: str, purpose: str, reason: str | None = None) -> Viewing:
        """The actor's viewing session of a study, opened durably at its first use. Raises AccessNotRecordable."""
        key = ("study.access", actor, study, purpose, reason)
        session = self._session(key, lambda: self._open_viewing(actor, study, purpose, reason))
        return Viewing(self, session, study)

    def query(self, actor: Actor, what: str) -> None:
        """A search by `actor` at the level `what`; durable within a second. Raises AccessNotRecordable."""
        session = self._session(("study.query", actor), lambda: self._open("study.query", actor, 0))
        self.note(session, (what,))

    def audited(self, actor: Actor, what: str) -> None:
        """A reading of the ledger by `actor`; durable within a second. Raises AccessNotRecordable."""
        session = self._session(("audit.view", actor), lambda: self._open("audit.view", actor, 0))
        self.note(session, (what,))

    def refused(self, actor: Actor | None, address: str, why: str) -> None:
        """A failed authentication (no actor) or a forbidden request; never raises, for the answer refuses anyway."""
        kind = "access.refused" if actor else "auth.fail"
        who = actor or Actor(ActorKind.USER, "unknown", None, address, "http")
        try:
            self.note(self._session((kind, who), lambda: self._open(kind, who, 4)), (why,))
        except CairnError as error:
            log.error("a refusal could not be recorded", extra={"slug": error.slug})

    def administered(self, kind: str, actor: Actor, body: Mapping[str, object]) -> None:
        """One administrative fact, durable and closed on return. Raises StorageFull, StorageFault, Busy."""
        open_batch = self._batches.open(kind, actor, None, "HOPERAT")
        self._batches.append(open_batch, [self._seal(kind, {"actor": by(actor), **body}, self._audit_key)])
        self._batches.close(open_batch)

    def about_study(self, kind: str, actor: Actor, study: StudyKey, purpose: str, body: Mapping[str, object]) -> None:
        """One fact about a study (an export, a damage), durable and closed on return. Errors as `administered`."""
        open_batch = self._batches.open(kind, actor, study, purpose)
        self._batches.append(open_batch, [self._seal(kind, {"actor": by(actor), **body}, derive.record_key(study))])
        self._batches.close(open_batch)

    def note(self, session: Session, item: tuple[str, ...]) -> None:
        """Count one detail of a session, to be recorded by the next `flush`. Raises AccessNotRecordable."""
        if self._failed is not None:
            raise AccessNotRecordable(f"access cannot be recorded: {self._failed.detail}")
        with session.lock:
            session.touched = self._now()
            if len(session.pending) >= PENDING_LIMIT:
                raise AccessNotRecordable("too much access waits to be recorded")
            session.pending[item] += 1

    def flush(self) -> None:
        """Record what waits and close the sessions that are over; called twice a second by the process's clock."""
        with self._lock:
            sessions = list(self._sessions.items())
        for key, session in sessions:
            try:
                self._flush_session(session)
                if session.over:
                    with self._lock:
                        self._sessions.pop(key, None)
                        self._opening.pop(key, None)
                    self._flush_session(session)
                    self._batches.close(session.batch)
                self._failed = None
            except CairnError as error:
                self._failed = error
                log.error("access cannot be recorded; nothing is served until it can", extra={"slug": error.slug})
                return

    def close_all(self) -> None:
        """Record everything and close every session, at the end of the process."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            try:
                self._flush_session(session)
                self._batches.close(session.batch)
            except CairnError as error:
                log.error("a session was left for the next start to close", extra={"slug": error.slug})

    def _session(self, key: tuple[object, ...], make: Callable[[], Session]) -> Session:
        session = self._sessions.get(key)
        if session is not None and not session.over and self._failed is None:
            return session
        with self._lock:
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:  # so that 25 first requests at once open one session
            session = self._sessions.get(key)
            if session is not None and not session.over:
                return session
            try:
                fresh = make()
            except CairnError as error:
                raise AccessNotRecordable(f"access cannot be recorded: {error.detail}") from error
            with self._lock:
                if session is not None:
                    self._sessions[(*key, id(session))] = session  # over: the next flush records and closes it
                self._sessions[key] = fresh
            return fresh

    def _open_viewing(self, actor: Actor, study: str, purpose: str, reason: str | None) -> Session:
        key = self._keys.study_key(study)
        body = {"actor": by(actor), "study": study, "purpose": purpose, "reason": reason or "", "opens": True}
        open_batch = self._batches.open("study.access", actor, key, purpose)
        secret = derive.record_key(key)
        self._batches.append(open_batch, [self._seal("study.access", body, secret)])
        return Session("study.access", open_batch, secret)

    def _open(self, kind: str, actor: Actor, outcome: int) -> Session:
        return Session(kind, self._batches.open(kind, actor, None, "HOPERAT", outcome), self._audit_key)

    def _flush_session(self, session: Session) -> None:
        with session.lock:
            pending, session.pending = session.pending, Counter()
        if not pending:
            return
        items = [[*item, count] for item, count in pending.items()]
        actor = by(session.batch.batch.actor)
        records = [
            self._seal(session.type, {"actor": actor, "items": items[i : i + DETAILS_PER_RECORD]}, session.secret)
            for i in range(0, len(items), DETAILS_PER_RECORD)
        ]
        try:
            self._batches.append(session.batch, records)
        except CairnError:
            with session.lock:
                session.pending += pending
            raise

    def _seal(self, kind: str, body: Mapping[str, object], secret: bytes) -> SealedRecord:
        return self._provenance.seal(kind, body, secret)
