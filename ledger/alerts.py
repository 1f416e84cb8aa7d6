"""Rules over the events of a ledger: what ought to be looked at. Pure: events and the time come in, alerts go out.

Each finding has an identity made of its rule and what it is about, so that it is raised once however often the rules
are run. `Watch` takes events in the order of the log and keeps what its rules need of the last hour and of what waits.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeVar

from ledger.detail import items_of, refs_of, values_of
from ledger.event import Detail, Event
from ledger.types import EMERGENCY

RuleName = Literal[
    "many-studies",
    "failed-logins",
    "access-after-revocation",
    "revoked-credential",
    "sequence-gap",
    "unreviewed",
    "back-dated",
    "future-dated",
    "late-entry",
    "double-sign",
    "equivocation",
    "wrong-block",
    "emergency",
    "second-history",
    "witness-refused",
]
K = TypeVar("K")
_MOST_RUNS: Final = 10_000
_SECOND_US: Final = 1_000_000
HOUR_US: Final = 3600 * _SECOND_US
BURST_US: Final = 600 * 1_000_000
IDLE_US: Final = 60 * _SECOND_US
"""How long a viewing session waits for another use of the study before its entry is made."""
_ACCESSES: Final = frozenset({"study.access", "study.export"})
_BROKEN: Final = frozenset({"study.access", "emergency.start", "consent.grant"})
"""What breaks the glass when it is for an emergency: of a grant, that a member did, and was given the study."""
WHERE: Final = "review it in the console under Emergencies, or with cairn ledger review"
REVOKED: Final = "revoked"
"""The first word of a detail item of `auth.fail` when the credential was known and revoked; its id is the second."""


class Rule(NamedTuple):
    """One rule: what it means, the EventOutcomeIndicator of its alert (0 informs, 4, 8, 12 rise; PS3.15 A.5.3.11), and
    the alert's EventTypeCode (PS3.16 CID 403)."""

    name: RuleName
    meaning: str
    severity: Literal[0, 4, 8, 12]
    type_code: int


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("many-studies", "One actor viewed more studies in an hour than is usual.", 4, 110132),
            Rule("failed-logins", "Many logins or associations from one address were refused.", 4, 110126),
            Rule("access-after-revocation", "A member used a study after its access was ended.", 12, 110132),
            Rule("revoked-credential", "A credential was used after it was revoked.", 8, 110132),
            Rule("sequence-gap", "A node's entries are not numbered without a gap.", 12, 110133),
            Rule("unreviewed", "A break-glass access was not reviewed in time.", 8, 110127),
            Rule("back-dated", "An entry states a time before that of its node's entry before it.", 8, 110132),
            Rule("future-dated", "An entry states a time after that of the block that follows its own.", 8, 110132),
            Rule("late-entry", "An entry came into the shared log long after the time that it states.", 4, 110132),
            Rule("double-sign", "A validator signed two blocks at one height.", 12, 110132),
            Rule("equivocation", "A member signed two histories of the shared log.", 12, 110132),
            Rule("wrong-block", "A member offered a block that is not what its CID names; it was refused.", 8, 110132),
            Rule("emergency", "A study was taken from another hospital by breaking the glass.", 8, 110127),
            Rule("second-history", "A member's log does not continue what was cosigned of it here.", 12, 110132),
            Rule("witness-refused", "This node's log does not continue what a witness cosigned of it.", 12, 110132),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a rule raises an alert; None and False turn it off. As `[alerts]` of a node's settings."""

    studies_per_hour: int | None = 100
    failed_logins: int | None = 10
    review_hours: int | None = 72
    after_revocation: bool = True
    sequence_gap: bool = True
    clock_skew_s: int | None = 60
    late_minutes: int | None = 60


@dataclass(frozen=True, slots=True)
class Alert:
    """What a rule found: its rule's name, when (microseconds since the epoch), in words, and the entries behind it.

    `id` is 16 bytes that are the same for the same finding, at whichever member; `severity` an EventOutcomeIndicator;
    `entries` the ids (leaf hashes) of at most `MOST_ENTRIES` entries, the one that raised it last.
    """

    id: bytes
    rule: RuleName
    severity: int
    time_us: int
    what: str
    entries: tuple[bytes, ...]


class Misconduct(NamedTuple):
    """What was proved against a member: by which rule, whose node (16 bytes) and name, when, at which height or size.

    `place` names the height or size in words.
    """

    rule: Literal["double-sign", "equivocation", "second-history", "witness-refused"]
    node: bytes
    who: str
    time_us: int
    height: int
    place: str


MOST_ENTRIES: Final = 100
Details = Callable[[Event], Sequence[Detail]]


def _none(event: Event) -> Sequence[Detail]:
    return ()


@dataclass(slots=True)
class _Run:
    """What one actor or address did lately: (time, what, how often, entry), oldest first."""

    seen: deque[tuple[int, str, int, bytes]] = field(default_factory=deque)

    def add(self, time_us: int, what: str, times: int, entry: bytes, span_us: int) -> None:
        self.seen.append((time_us, what, times, entry))
        while self.seen[0][0] <= time_us - span_us:
            self.seen.popleft()


def _run_of(runs: dict[K, _Run], who: K, now_us: int) -> _Run:
    """The run of one actor or address; those that have been still for an hour are forgotten when there are many."""
    if len(runs) >= _MOST_RUNS:
        for still in [key for key, run in runs.items() if run.seen[-1][0] <= now_us - HOUR_US]:
            del runs[still]
    return runs.setdefault(who, _Run())


class Watch:
    """The rules at work on the logs of one node. One thread at a time.

    Of what another member's people do, its own node watches: here, of its entries, the numbering and the times alone;
    and what was given to it or by it, whether it was used after that was ended.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        details: Details = _none,
        own: bytes | None = None,
        refs: Callable[[Event], Sequence[bytes]] = lambda event: (),
    ) -> None:
        """
        Parameters
        ----------
        thresholds
            Which rules are on, and their numbers.
        own
            The id of the node that watches; None when all events are its own.
        details
            The records of an event; asked for failed logins, reviews, consents, emergencies and administration alone.
            Without them a failed login counts as many as it has records, and nothing is known as revoked or reviewed.
        refs
            The ids of the entries that the entry of an event names; asked for revocations and accesses alone.
        """
        self._thresholds = thresholds
        self._details = details
        self._own = own
        self._refs = refs
        self._ended: dict[bytes, Event] = {}  # grants between members, by what ended them
        self._studies: dict[tuple[str, str], _Run] = {}
        self._failures: dict[str, _Run] = {}
        self._sequences: dict[tuple[bytes, int], int] = {}
        self._clocks: dict[bytes, int] = {}
        self._ahead: list[Event] = []  # dated after their block, until the next one tells what that means
        self._revoked: dict[tuple[str, str], Event] = {}
        self._credentials: dict[str, Event] = {}
        self._unreviewed: dict[bytes, Event] = {}
        self._beside: dict[bytes, bytes] = {}
        self._others: dict[bytes, str] = {}  # the other hospital of an emergency, by entry

    def take(self, event: Event) -> Sequence[Alert]:
        """The alerts that the next event of the log raises."""
        chained = [*self._gap(event), *self._dates(event), *self._given(event)]
        if self._own not in (None, event.node):
            return chained
        return [
            *chained,
            *self._many_studies(event),
            *self._failed_logins(event),
            *self._consent(event),
            *self._review(event),
        ]

    def remember(self, event: Event) -> None:
        """An event from before the watching began: reviews, consents and break-glass accesses matter however old."""
        if event.type == "consent.revoke":
            for _ in self._given(event):
                pass
        if self._own not in (None, event.node):
            return
        for _ in (*self._consent(event), *self._review(event)):
            pass
        if event.type == "admin.token":
            self._credentials.update(dict.fromkeys(_revocations(self._details(event)), event))

    def overdue(self, now_us: int) -> Sequence[Alert]:
        """The alerts that time raises: break-glass accesses that wait for a review, entries ahead of time."""
        hours, skew_s = self._thresholds.review_hours, self._thresholds.clock_skew_s
        early = [
            _dated("future-dated", event, f"states a time that is {_span(event.time_us - now_us)} ahead of this clock")
            for event in self._ahead
            if skew_s is not None
            and event.time_us - now_us > skew_s * _SECOND_US
            and now_us >= (event.block_time_us or 0)  # else it is this clock that is wrong
        ]
        if hours is None:
            return early
        return early + [
            _alert(
                "unreviewed",
                event.id.hex(),
                event.time_us + hours * HOUR_US,
                f"{self._broke(event)} by breaking the glass, and nobody reviewed it within {hours} hours; {WHERE}",
                [event.id],
            )
            for event in self._unreviewed.values()
            if event.time_us + hours * HOUR_US <= now_us
        ]

    @property
    def unreviewed(self) -> Sequence[Event]:
        """Every break-glass access that no review names yet, overdue or not, oldest first."""
        return list(self._unreviewed.values())

    def proved(self, wrong: Misconduct) -> Alert:
        """The alert that evidence against a member raises."""
        meaning = RULES[wrong.rule].meaning.removesuffix(".")
        subject = f"{wrong.node.hex()} {wrong.height}"
        what = f"{meaning}: {wrong.who or wrong.node.hex()}, {wrong.place}"
        return _alert(wrong.rule, subject, wrong.time_us, what, [])

    def _gap(self, event: Event) -> Iterator[Alert]:
        chain = event.node, event.first  # a node that joins begins another chain in the shared log
        last = self._sequences.get(chain)
        self._sequences[chain] = event.sequence
        if not self._thresholds.sequence_gap or last is None or event.sequence == last + 1:
            return
        what = f"entry {event.sequence} of {_whose(event)} follows its entry {last}"
        yield _alert("sequence-gap", f"{event.node.hex()} {event.sequence}", event.time_us, what, [event.id])

    def _dates(self, event: Event) -> Iterator[Alert]:
        """What an entry states of its time, against its block's, and its node's entries' before.

        A block's time is that of the votes for the block before it (CometBFT, BFT time): after a quiet night it lies
        hours back. So an entry is too early only when it is so for the next block, or for the clock here (`overdue`).
        """
        block, skew_s, late = event.block_time_us, self._thresholds.clock_skew_s, self._thresholds.late_minutes
        if block is None:
            return
        if skew_s is not None:
            yield from self._ahead_of(block, skew_s)
        former = self._clocks.get(event.node, event.time_us)
        self._clocks[event.node] = max(former, event.time_us)
        back, ahead, waited = former - event.time_us, event.time_us - block, block - event.time_us
        rule: RuleName
        if skew_s is not None and ahead > skew_s * _SECOND_US:
            self._ahead.append(event)
            return
        if skew_s is not None and back > skew_s * _SECOND_US:
            rule, what = "back-dated", f"states a time {_span(back)} before that of an entry before it"
        elif late is not None and waited > late * 60 * _SECOND_US:
            rule, what = "late-entry", f"came into the shared log {_span(waited)} after the time that it states"
        else:
            return
        yield _dated(rule, event, what)

    def _ahead_of(self, block_us: int, skew_s: int) -> Iterator[Alert]:
        """Entries of former blocks, when the next is there: those that are ahead of that, too."""
        waiting, self._ahead = self._ahead, []
        for event in waiting:
            ahead = event.time_us - block_us
            if event.block_time_us == block_us:
                self._ahead.append(event)
            elif ahead > skew_s * _SECOND_US:
                what = f"states a time {_span(ahead)} after that of the next block"
                yield _dated("future-dated", event, what)

    def _many_studies(self, event: Event) -> Iterator[Alert]:
        most = self._thresholds.studies_per_hour
        if most is None or event.type not in _ACCESSES:
            return
        who = (event.actor.kind, event.actor.name)
        run = _run_of(self._studies, who, event.time_us)
        run.add(event.time_us, event.study or event.id.hex(), 1, event.id, HOUR_US)
        studies = len({what for _, what, _, _ in run.seen})
        if studies > most:
            yield _alert(
                "many-studies",
                f"{who[0]} {who[1]} {event.time_us // HOUR_US}",
                event.time_us,
                f"{event.actor.name} viewed {studies} studies within an hour; more than {most} raise an alert",
                [entry for _, _, _, entry in run.seen],
            )

    def _failed_logins(self, event: Event) -> Iterator[Alert]:
        if event.type == "admin.token":
            self._credentials.update(dict.fromkeys(_revocations(self._details(event)), event))
        if event.type != "auth.fail":
            return
        details = self._details(event)
        if self._thresholds.after_revocation:
            for credential in sorted(
                {item[1] for item, _ in items_of(details) if item[0] == REVOKED and len(item) > 1}
            ):
                ended = self._credentials.get(credential)
                what = (
                    f"the revoked credential {credential} was used from {event.actor.address or 'an unknown address'}"
                )
                entries = [ended.id, event.id] if ended is not None else [event.id]
                yield _alert("revoked-credential", f"{credential} {event.id.hex()}", event.time_us, what, entries)
        most = self._thresholds.failed_logins
        if most is None:
            return
        address = event.actor.address
        run = _run_of(self._failures, address, event.time_us)
        times = sum(count for _, count in items_of(details)) or event.records
        run.add(event.time_us, "", times, event.id, BURST_US)
        failures = sum(times for _, _, times, _ in run.seen)
        if failures > most:
            yield _alert(
                "failed-logins",
                f"{address} {event.time_us // BURST_US}",
                event.time_us,
                f"{failures} failed logins from {address or 'an unknown address'} within ten minutes;"
                f" more than {most} raise an alert",
                [entry for _, _, _, entry in run.seen],
            )

    def _consent(self, event: Event) -> Iterator[Alert]:
        if not self._thresholds.after_revocation or event.study is None:
            return
        if event.type in ("consent.grant", "consent.revoke"):
            for member in values_of(self._details(event), "member"):
                if event.type == "consent.revoke":
                    self._revoked[event.study, member] = event
                else:
                    self._revoked.pop((event.study, member), None)
        ended = self._revoked.get((event.study, event.actor.name))
        peer = event.type in _ACCESSES and event.actor.kind == "peer"
        if ended is not None and peer and self._used(event) > ended.time_us:
            what = f"member {event.actor.name} used a study after its access was ended"
            entries = [ended.id, event.id]
            yield _alert("access-after-revocation", event.id.hex(), event.time_us, what, entries)

    def _given(self, event: Event) -> Iterator[Alert]:
        """Of what one member gave to another, an access that rests on nothing but grants that were ended before it.

        Judged by the giver and by the receiver, whose access names the grants. A session's entry is made when it is
        over, so that what counts is when the study was used last.
        """
        if not self._thresholds.after_revocation or self._own is None:
            return
        if event.type == "consent.revoke":
            self._ended.update(dict.fromkeys(self._refs(event), event))
        elif event.type in _ACCESSES and self._ended:
            ended = [self._ended.get(grant) for grant in self._refs(event)]
            last = max((one for one in ended if one is not None), key=lambda one: one.index, default=None)
            if last is None or None in ended or self._own not in (event.node, last.node):
                return
            if self._used(event) > max(last.time_us, last.block_time_us or 0):
                what = f"{_whose(event)} used a study after its access was ended"
                yield _alert("access-after-revocation", event.id.hex(), event.time_us, what, [last.id, event.id])

    def _used(self, event: Event) -> int:
        """When a study was used last in a session: by its records, of another member's as late as it was at least."""
        if self._own not in (None, event.node):
            return event.time_us - IDLE_US
        times = [detail.time_us for detail in self._details(event) if detail.time_us is not None]
        return max(times, default=event.time_us)

    def _review(self, event: Event) -> Iterator[Alert]:
        if event.type in _BROKEN and event.purpose == EMERGENCY:
            self._unreviewed[event.id] = event
            details = self._details(event) if event.type != "study.access" else ()
            self._others[event.id] = next(values_of(details, "member"), "another hospital")
            for about in refs_of(details) if event.type == "consent.grant" else ():
                self._beside[about] = event.id
        elif event.type == "audit.review":
            for entry in values_of(self._details(event), "entry"):
                reviewed = bytes.fromhex(entry)
                self._unreviewed.pop(reviewed, None)
                self._unreviewed.pop(self._beside.get(reviewed, b""), None)
        return iter(())

    def _broke(self, event: Event) -> str:
        """Who took which kind of access in an emergency: the node itself states what it gave."""
        other = self._others.get(event.id, "another hospital")
        if event.type == "consent.grant":
            return f"{other} took a study of this hospital"
        if event.type == "emergency.start":
            return f"{event.actor.name} took a study of {other}"
        return f"{event.actor.name} viewed a study held here"


def find(
    events: Iterable[Event],
    thresholds: Thresholds,
    now_us: int,
    details: Details = _none,
    own: bytes | None = None,
    refs: Callable[[Event], Sequence[bytes]] = lambda event: (),
) -> tuple[Sequence[Alert], Sequence[Event]]:
    """Every alert that a stretch of the log raises, each once, and the break-glass accesses still to be reviewed.

    Parameters
    ----------
    events
        In the order of the log, without a gap when gaps are looked for.
    thresholds, details, own, refs
        As `Watch` takes them.
    now_us
        The time of asking, in microseconds since the epoch.
    """
    watch = Watch(thresholds, details, own, refs)
    found: dict[bytes, Alert] = {}
    for event in events:
        for alert in watch.take(event):
            found.setdefault(alert.id, alert)
    for alert in watch.overdue(now_us):
        found.setdefault(alert.id, alert)
    return sorted(found.values(), key=lambda alert: (alert.time_us, alert.id)), watch.unreviewed


def glass_broken(entry: bytes, member: str, own: bool, time_us: int) -> Alert:
    """The alert of an emergency access across hospitals: of this hospital to a study of `member`, or the other way."""
    who, whose = ("somebody here", member) if own else (member, "this hospital")
    what = f"{who} broke the glass for a study of {whose}: an emergency access without a grant; {WHERE}"
    return _alert("emergency", entry.hex(), time_us, what, [entry])


def offered_wrong(member: str, cid: str, now_us: int) -> Alert:
    """The alert of a member that offered another block than was asked for; one an hour for each member."""
    what = f"member {member} offered another block than {cid}; it was refused"
    return _alert("wrong-block", f"{member} {now_us // HOUR_US}", now_us, what, [])


def _alert(rule: RuleName, subject: str, time_us: int, what: str, entries: Sequence[bytes]) -> Alert:
    identity = hashlib.sha256(f"{rule}\0{subject}".encode()).digest()[:16]
    return Alert(identity, rule, RULES[rule].severity, time_us, what, tuple(entries[-MOST_ENTRIES:]))


def _whose(event: Event) -> str:
    return event.hospital or f"node {event.node.hex()}"


def _dated(rule: RuleName, event: Event, what: str) -> Alert:
    """An alert about an entry's time: one an hour of each node."""
    block = event.block_time_us or 0
    what = f"entry {event.sequence} of {_whose(event)} {what}"
    return _alert(rule, f"{event.node.hex()} {block // HOUR_US}", event.time_us, what, [event.id])


def _span(span_us: int) -> str:
    """A span of time in its largest whole unit."""
    seconds = span_us / _SECOND_US
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _revocations(details: Sequence[Detail]) -> Iterator[str]:
    """The ids of the credentials that an administrative event revoked."""
    for detail in details:
        if detail.body is not None and detail.body.get("did") == REVOKED and isinstance(detail.body.get("id"), str):
            yield str(detail.body["id"])
