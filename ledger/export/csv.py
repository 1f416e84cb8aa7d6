"""Events as CSV (RFC 4180): a header line, one line for each event, CRLF, UTF-8.

A cell that a spreadsheet would take for a formula is written with an apostrophe before it, since names and reasons are
chosen by those whom the log watches: a cell that begins with = + - @, a tab, a carriage return, a full-width form of
these, or an apostrophe. Whoever reads the file by program takes one leading apostrophe away.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ledger.event import OUTCOMES, Event
from ledger.export.atna import clean, date_time
from ledger.types import ENTRY_TYPES

COLUMNS: Final = (
    "time",
    "index",
    "entry",
    "node",
    "sequence",
    "type",
    "action",
    "outcome",
    "actor kind",
    "actor",
    "role",
    "address",
    "how",
    "purpose",
    "reason",
    "patient id",
    "patient id issuer",
    "patient name",
    "study",
    "records",
    "hospital",
    "log index",
    "block time",
)
_FORMULA: Final = tuple("=+-@\t\r'＝＋－＠")  # OWASP "CSV Injection", and our own mark


def lines(events: Iterable[Event]) -> Iterator[str]:
    """The header, then each event's line, with their CRLF; made one at a time, so that any number can be written."""
    yield line(COLUMNS)
    for event in events:
        yield line(cells(event))


def line(values: Sequence[str]) -> str:
    """One record: quoted where RFC 4180 section 2 asks for it, guarded against formulas, ending in CRLF."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow([guarded(value) for value in values])
    return text.getvalue()


def guarded(value: str) -> str:
    """The value with an apostrophe before it when a spreadsheet might compute it; control characters as U+FFFD."""
    safe = f"'{value}" if value.startswith(_FORMULA) else value
    return clean(safe)


def cells(event: Event) -> Sequence[str]:
    """An event's values in the order of `COLUMNS`; a study whose keys are gone reads "erased"."""
    actor, patient = event.actor, event.patient
    return (
        date_time(event.time_us),
        str(event.index),
        event.id.hex(),
        event.node.hex(),
        str(event.sequence),
        event.type,
        ENTRY_TYPES[event.type].action,
        OUTCOMES.get(event.outcome, str(event.outcome)),
        actor.kind,
        actor.name,
        actor.role,
        actor.address,
        actor.how,
        event.purpose,
        event.reason,
        patient.id if patient else "",
        patient.issuer if patient else "",
        patient.name if patient else "",
        "erased" if event.erased else event.study or "",
        str(event.records),
        event.hospital,
        str(event.place),
        "" if event.block_time_us is None else date_time(event.block_time_us),
    )
