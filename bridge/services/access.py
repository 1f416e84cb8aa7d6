"""Who saw what: recorded before it is served (DESIGN section 6).

A viewing session is (actor, study, purpose): it slides by 60 s and lasts at most 10 minutes. Its opening record, which
covers the study, is durable before the first byte; instances and frames follow as detail records within a second, off
the request's path. Queries, refusals and administration are recorded likewise. If that cannot be done, nothing is
served: `view`, `query`, `audited` and `saw` raise AccessNotRecordable until recording works again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from bridge.crypto import derive
from bridge.errors import AccessError, AccessNotRecordable, CairnError, CredentialEnded
from bridge.model import Actor, ActorKind, StudyKey
from bridge.ports import KeyStore
from bridge.services.close_batch import Batches, OpenBatch
from bridge.services.provenance import Provenance, by

log = logging.getLogger(__name__)
SLIDING_S, LONGEST_S, PENDING_LIMIT = 60.0, 600.0, 100_000
REFUSAL_SLIDING_S, REFUSAL_LONGEST_S = 10.0, 60.0
"""Runs of refusals are short, so that an alert about them is not late by minutes."""
MOST_REFUSED = 1000
"""Runs of refusals kept apart by who and whence; beyond, as under attack, they share one."""
RECORD_BYTES, LONGEST_TEXT = 10_000, 500
"""What the items of one record may come to, well below a record's 16 KiB, and one text of them in characters."""
SYSTEM = Actor(ActorKind.SYSTEM, "cairn", None, "", "node")
MANY = Actor(ActorKind.USER, "unknown", None, "", "")
Item = tuple[str, ...]


class Session:
    """A run of records by one actor about one study (a viewing) or none (queries, refusals)."""

    __slots__ = ("batch", "began", "ended", "lock", "pending", "secret", "touched", "type")

    def __init__(self, kind: str, batch: OpenBatch, secret: bytes) -> None:
        self.type = kind
        self.batch = batch
        self.secret = secret
        self.began = self.touched = time.monotonic()
        self.ended = False
        self.pending: Counter[Item] = Counter()
        self.lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether the session has ended by time."""
        now = time.monotonic()
        refusal = self.type in ("auth.fail", "access.refused")
        sliding, longest = (REFUSAL_SLIDING_S, REFUSAL_LONGEST_S) if refusal else (SLIDING_S, LONGEST_S)
        return now - self.touched > sliding or now - self.began > longest

    def end(self) -> None:
        """Take no more details; those counted so far are still to be recorded."""
        with self.lock:
            self.ended = True


class Viewing:
    """The right to be served one study, proved recorded. `saw` adds what was served to the session's details."""

    __slots__ = ("_access", "_again", "_session", "study")

    def __init__(self, access: Access, session: Session, study: str, again: Callable[[], Session]) -> None:
        self._access = access
        self._session = session
        self._again = again
        self.study = study

    def saw(self, what: str, sop: str = "", frame: str = "") -> None:
        """Count one thing about to be served: `what` is "instance", "frame", "metadata" or "bulk".

        A download that outlasts its session opens the next one. Raises AccessNotRecordable.
        """
        while not self._access.count(self._session, (what, sop, frame)):
            self._session = self._again()


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
        rests_on: Callable[[str], tuple[bytes | None, tuple[bytes, ...]]] = lambda study: (None, ()),
    ) -> None:
        """`rests_on`: of a study that members gave, its tag there and their grants: an access to it names them."""
        self._batches = batches
        self._rests_on = rests_on
        self._keys = keys
        self._provenance = provenance
        self._audit_key = derive.node_record_key(audit_key)
        self._now = now
        self._lock = threading.Lock()
        self._opening: dict[tuple[object, ...], threading.Lock] = {}
        self._sessions: dict[tuple[object, ...], Session] = {}
        self._ending: list[Session] = []
        self._failed: CairnError | None = None

    def view(self, actor: Actor, study: str, purpose: str, reason: str | None = None) -> Viewing:
        """The actor's viewing session of a study, opened durably at its first use. Raises AccessNotRecordable."""
        key = ("study.access", actor, study, purpose, reason)

        def session() -> Session:
            return self._session(key, lambda: self._open_viewing(actor, study, purpose, reason))

        return Viewing(self, session(), study, session)

    def view_kept(self, actor: Actor, tag: bytes, purpose: str) -> Viewing:
        """As `view`, of a study that is kept here for the actor without its key: it is known by its tag alone.

        Raises AccessNotRecordable.
        """
        key = ("study.access", actor, tag, purpose)

        def session() -> Session:
            return self._session(key, lambda: self._open_kept(actor, tag, purpose))

        return Viewing(self, session(), tag.hex(), session)

    def query(self, actor: Actor, level: str, keys: Sequence[str], found: int) -> None:
        """A search at a level, by which keys (names, never values), and how many matches it is about to be given.

        Durable within a second. Raises AccessNotRecordable.
        """
        self._note("study.query", actor, (level, " ".join(keys), str(found)))

    def audited(self, actor: Actor, what: str) -> None:
        """A reading of the ledger by `actor`; durable within a second. Raises AccessNotRecordable."""
        self._note("audit.view", actor, (what,))

    def refused(self, actor: Actor | None, address: str, why: str) -> None:
        """A request that the actor's role forbids, or of nobody known; never raises, for the answer refuses anyway."""
        who = actor or Actor(ActorKind.USER, "unknown", None, address, "http")
        self._note_refusal("access.refused" if actor else "auth.fail", who, ("unknown" if not actor else "role", why))

    def unrecognised(self, error: AccessError, address: str, *, title: str | None = None) -> None:
        """A failed authentication: of a credential over HTTP, or of a calling AE title (`title`); never raises.

        A credential that once held is named by its id and its holder's name.
        """
        if title is not None:
            who = Actor(ActorKind.DEVICE, title or "unknown", None, address, "dimse")
            self._note_refusal("auth.fail", who, ("unknown AE title", error.detail))
        elif isinstance(error, CredentialEnded):
            who = Actor(ActorKind.USER, error.holder, None, address, "http")
            self._note_refusal("auth.fail", who, (error.how, error.credential))
        else:
            self.refused(None, address, error.detail)

    def administered(self, kind: str, actor: Actor, body: Mapping[str, object], *, outcome: int = 0) -> None:
        """One administrative fact, durable and closed on return. Raises StorageFull, StorageFault, Busy."""
        self._fact(self._batches.open(kind, actor, None, "HOPERAT", outcome), body, self._audit_key)

    def about_study(
        self, kind: str, actor: Actor, study: StudyKey, purpose: str, body: Mapping[str, object], *, outcome: int = 0
    ) -> None:
        """One fact about a study (an export, a damage), durable and closed on return. Errors as `administered`."""
        self._fact(self._batches.open(kind, actor, study, purpose, outcome), body, derive.record_key(study))

    def count(self, session: Session, item: Item) -> bool:
        """Count one detail of a session, to be recorded by the next `flush`; False when the session has ended.

        Raises AccessNotRecordable.
        """
        if self._failed is not None:
            raise AccessNotRecordable(f"access cannot be recorded: {self._failed.detail}")
        with session.lock:
            if session.ended:
                return False
            session.touched = self._now()
            if len(session.pending) >= PENDING_LIMIT:
                raise AccessNotRecordable("too much access waits to be recorded")
            session.pending[item] += 1
            return True

    def end_viewings(self, study: str) -> None:
        """End the sessions about a study, whose key is about to go; what comes after opens new ones."""
        with self._lock:
            for key in [key for key in self._sessions if len(key) > 2 and key[2] == study]:
                session = self._sessions.pop(key)
                session.end()
                self._ending.append(session)

    def flush(self) -> None:
        """Record what waits and close the sessions that are over; called by the process's clock."""
        with self._lock:
            for key in [key for key, session in self._sessions.items() if session.over]:
                self._ending.append(self._sessions.pop(key))
                self._opening.pop(key, None)
            sessions, ending = list(self._sessions.values()), list(self._ending)
        try:
            for session in sessions:
                self._flush_session(session)
            for session in ending:
                self._end(session)
                with self._lock:
                    self._ending.remove(session)
        except CairnError as error:
            self._failed = error
            log.error("access cannot be recorded; nothing is served until it can", extra={"slug": error.slug})
        else:
            self._failed = None

    def close_all(self) -> None:
        """Record everything and close every session, at the end of the process."""
        with self._lock:
            sessions, self._sessions = [*self._sessions.values(), *self._ending], {}
            self._ending = []
        for session in sessions:
            try:
                self._end(session)
            except CairnError as error:
                log.error("a session was left for the next start to close", extra={"slug": error.slug})

    def _note(self, kind: str, actor: Actor, item: Item, outcome: int = 0) -> None:
        while not self.count(self._session((kind, actor), lambda: self._open(kind, actor, outcome)), item):
            pass  # it ended between the two calls: the next call opens another

    def _note_refusal(self, kind: str, actor: Actor, item: Item) -> None:
        if len(self._sessions) > MOST_REFUSED and (kind, actor) not in self._sessions:
            actor, item = MANY, (*item, actor.name, actor.address)
        try:
            self._note(kind, actor, item, 4)
        except CairnError as error:
            log.error("a refusal could not be recorded", extra={"slug": error.slug})

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
                over = self._sessions.get(key)
                if over is not None:
                    self._ending.append(over)  # the next flush records and closes it
                self._sessions[key] = fresh
            return fresh

    def _open_viewing(self, actor: Actor, study: str, purpose: str, reason: str | None) -> Session:
        key = self._keys.study_key(study)
        body = {"actor": by(actor), "study": study, "purpose": purpose, "reason": reason or "", "opens": True}
        tag, grants = self._rests_on(study)
        named = key if tag is None else key._replace(tag=tag)
        open_batch = self._batches.open("study.access", actor, named, purpose, refs=grants)
        secret = derive.record_key(key)
        self._batches.append(open_batch, [self._provenance.seal("study.access", body, secret)])
        return Session("study.access", open_batch, secret)

    def _open_kept(self, actor: Actor, tag: bytes, purpose: str) -> Session:
        open_batch = self._batches.open("study.access", actor, None, purpose)
        body = {"actor": by(actor), "tag": tag, "purpose": purpose, "reason": "", "opens": True}
        self._batches.append(open_batch, [self._provenance.seal("study.access", body, self._audit_key)])
        return Session("study.access", open_batch, self._audit_key)

    def _open(self, kind: str, actor: Actor, outcome: int) -> Session:
        return Session(kind, self._batches.open(kind, actor, None, "HOPERAT", outcome), self._audit_key)

    def _fact(self, open_batch: OpenBatch, body: Mapping[str, object], secret: bytes) -> None:
        batch = open_batch.batch
        record = self._provenance.seal(batch.type, {"actor": by(batch.actor), **body}, secret)
        self._batches.append(open_batch, [record])
        self._batches.close(open_batch)

    def _end(self, session: Session) -> None:
        session.end()
        self._flush_session(session)
        self._batches.close(session.batch)

    def _flush_session(self, session: Session) -> None:
        with session.lock:
            pending, session.pending = session.pending, Counter()
        if not pending:
            return
        actor = by(session.batch.batch.actor)
        records = [
            self._provenance.seal(session.type, {"actor": actor, "items": items}, session.secret)
            for items in _records(pending)
        ]
        try:
            self._batches.append(session.batch, records)
        except CairnError:
            with session.lock:
                session.pending += pending
            raise


def _records(pending: Mapping[Item, int]) -> Iterator[list[list[str | int]]]:
    """The items, each with how often at its end, in portions that fit a record."""
    portion: list[list[str | int]] = []
    size = 0
    for item, count in pending.items():
        texts = [text[:LONGEST_TEXT] for text in item]
        item_size = 16 + sum(len(text.encode()) + 3 for text in texts)
        if portion and size + item_size > RECORD_BYTES:
            yield portion
            portion, size = [], 0
        portion.append([*texts, count])
        size += item_size
    if portion:
        yield portion
