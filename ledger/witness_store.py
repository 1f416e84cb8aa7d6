"""What a witness has cosigned, and what witnesses have cosigned of this node's log: `witness.db`, SQLite.

What was cosigned last is looked up, judged and written under one lock and in one transaction, durable before anything
is answered: two submissions at once cannot roll it back (C2SP tlog-witness). Thread-safe; any number of processes.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ledger import cosignature, keys, witness
from ledger.checkpoint import Checkpoint, Verifier, split_note
from ledger.errors import LedgerError, StoreFault
from ledger.store import lock
from ledger.witness import Answer, Asked, Conflict, Cosigned, Judged

DATABASE: Final = "witness.db"
APPLICATION_ID: Final = 0x43615749  # "CaWI", in the header of the file
SCHEMA_VERSION: Final = 1
MOST_LINES: Final = 1000
"""Cosignatures that are kept of each witness, the newest."""
MOST_CONFLICTS: Final = 100
_BUSY_MS: Final = 10_000
_SCHEMA: Final = (
    """CREATE TABLE cosigned (
        origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL,
        time_us INTEGER NOT NULL)""",
    """CREATE TABLE conflict (
        id INTEGER PRIMARY KEY, origin TEXT NOT NULL, witness TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL,
        note TEXT NOT NULL, cosigned INTEGER NOT NULL, kept TEXT NOT NULL, why TEXT NOT NULL, time_us INTEGER NOT NULL,
        UNIQUE (origin, witness, size, root))""",
    """CREATE TABLE line (
        witness TEXT NOT NULL, size INTEGER NOT NULL, line TEXT NOT NULL, time_us INTEGER NOT NULL,
        PRIMARY KEY (witness, size))""",
    """CREATE TABLE asked (
        witness TEXT PRIMARY KEY, size INTEGER NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL,
        since_us INTEGER NOT NULL)""",
)


class WitnessStore:
    """The database at `path`, created when it is not there. Raises StoreFault, and LedgerError when it is another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_thread = threading.Lock()
        with lock(path), self._faults():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the database."""
        with self._one_thread:
            self._connection.close()

    def add_checkpoint(
        self, body: bytes, logs: Sequence[Verifier], name: str, signer: keys.Signer, now_us: int, owned: bool = True
    ) -> tuple[Answer, Judged]:
        """Cosign a submission under `name`, or refuse it; what is answered is durable before this returns.

        A refused checkpoint is kept as evidence when it has another root than one of its size that was cosigned, or
        does not continue that and is `owned`, submitted by whose log it is: others could send a wrong proof with it.
        Raises StoreFault.
        """
        with self._writing():
            judged = witness.judge(body, logs, self._last)
            if judged.status == 200 and judged.head is not None:
                text, _ = split_note(judged.note)
                line = cosignature.line(text, name, signer, now_us // 1_000_000)
                values = (judged.head.origin, judged.head.size, judged.head.root, judged.note, now_us)
                self._run("INSERT OR REPLACE INTO cosigned VALUES (?, ?, ?, ?, ?)", *values)
                return Answer(200, witness.TEXT, line), judged
            if judged.head is not None and (judged.contradicts or (judged.status == 422 and owned)):
                kept = self._cosigned(judged.head.origin)
                self._keep(judged.head, "", judged.note, judged.cosigned, kept.note if kept else "", judged.why, now_us)
            return judged.refusal(), judged

    def cosigned(self) -> Sequence[Cosigned]:
        """The last checkpoint of each log that was cosigned here, by origin."""
        rows = self._rows("SELECT origin, size, root, note, time_us FROM cosigned ORDER BY origin")
        return [Cosigned(Checkpoint(*row[:3]), *row[3:]) for row in rows]

    def conflicts(self, after: int = 0) -> Sequence[Conflict]:
        """Every conflict with an id above `after`, oldest first."""
        return [Conflict(*row) for row in self._rows("SELECT * FROM conflict WHERE id > ? ORDER BY id", after)]

    def refused(
        self, by: Verifier, head: Checkpoint, note: str, cosigned: int, kept: str, why: str, now_us: int
    ) -> None:
        """Keep that a witness refused a checkpoint of this node's own log because it does not continue what it saw."""
        with self._writing():
            self._keep(head, by.vkey(), note, cosigned, kept, why, now_us)

    def add_line(self, by: Verifier, size: int, line: str, now_us: int) -> None:
        """Keep a witness's verified cosignature line of this node's checkpoint of that size; the oldest are dropped."""
        with self._writing():
            key = by.vkey()
            self._run("INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?)", key, size, line, now_us)
            self._run(
                "DELETE FROM line WHERE witness = ? AND size <="
                " (SELECT size FROM line WHERE witness = ? ORDER BY size DESC LIMIT 1 OFFSET ?)",
                *(key, key, MOST_LINES),
            )

    def lines(self, size: int, of: Sequence[Verifier]) -> Sequence[str]:
        """The cosignature lines of the checkpoint of that size, in the order of the witnesses."""
        found = dict(self._rows("SELECT witness, line FROM line WHERE size = ?", size))
        return [found[each.vkey()] for each in of if each.vkey() in found]

    def witnessed(self, threshold: int, of: Sequence[Verifier], least: int = 0) -> int | None:
        """The largest size, of at least `least`, that so many of the witnesses have cosigned; None when there is none.

        With a threshold of 0 nothing has to be witnessed, and nothing is.
        """
        if not 0 < threshold <= len(of):
            return None
        marks = ", ".join("?" * len(of))
        found = self._rows(
            f"SELECT size FROM line WHERE witness IN ({marks}) AND size >= ? GROUP BY size HAVING count(*) >= ?"
            " ORDER BY size DESC LIMIT 1",
            *(*(each.vkey() for each in of), least, threshold),
        )
        return int(found[0][0]) if found else None

    def cosigned_at(self, by: Verifier) -> tuple[int, int] | None:
        """Size and time (microseconds) of the newest cosignature that is kept of a witness; None when there is none."""
        found = self._rows("SELECT size, time_us FROM line WHERE witness = ? ORDER BY size DESC LIMIT 1", by.vkey())
        return (int(found[0][0]), int(found[0][1])) if found else None

    def asked(self, by: Verifier) -> Asked | None:
        """How it stands with a witness; None when it was not asked yet."""
        found = self._rows("SELECT * FROM asked WHERE witness = ?", by.vkey())
        return Asked(*found[0]) if found else None

    def tell(self, by: Verifier, size: int, state: str, detail: str, now_us: int) -> None:
        """Write down how it stands with a witness; since when is kept while the state is the same."""
        before = self.asked(by)
        since = before.since_us if before is not None and before.state == state else now_us
        if before != Asked(by.vkey(), size, state, detail, since):
            with self._writing():
                self._run("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?)", by.vkey(), size, state, detail, since)

    def _last(self, origin: str) -> Checkpoint | None:
        found = self._cosigned(origin)
        return found.head if found is not None else None

    def _cosigned(self, origin: str) -> Cosigned | None:
        found = self._run("SELECT origin, size, root, note, time_us FROM cosigned WHERE origin = ?", origin)
        return Cosigned(Checkpoint(*found[0][:3]), *found[0][3:]) if found else None

    def _keep(self, head: Checkpoint, by: str, note: str, cosigned: int, kept: str, why: str, now_us: int) -> None:
        """At most so many conflicts of an origin: the first tell all that there is to know."""
        self._run(
            "INSERT INTO conflict SELECT NULL, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE"
            " (SELECT count(*) FROM conflict WHERE origin = ?) < ?"
            " AND NOT EXISTS (SELECT 1 FROM conflict WHERE origin = ? AND witness = ? AND size = ? AND root = ?)",
            *(head.origin, by, head.size, head.root, note, cosigned, kept, why, now_us),
            *(head.origin, MOST_CONFLICTS, head.origin, by, head.size, head.root),
        )

    def _open(self) -> None:
        self._run(f"PRAGMA busy_timeout = {_BUSY_MS}")
        self._run("PRAGMA synchronous = FULL")
        if not self._run("SELECT count(*) FROM sqlite_schema")[0][0]:
            self._run("PRAGMA journal_mode = WAL")
            self._run("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                self._run(statement)
            self._run(f"PRAGMA application_id = {APPLICATION_ID}")
            self._run(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._run("COMMIT")
        found = self._run("PRAGMA application_id")[0][0], self._run("PRAGMA user_version")[0][0]
        if found != (APPLICATION_ID, SCHEMA_VERSION):
            raise LedgerError("not a witness's database of this version", self._path.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which nobody else's writing can come between."""
        with self._one_thread, lock(self._path), self._faults():
            self._run("BEGIN IMMEDIATE")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._run("ROLLBACK")
                raise

    def _run(self, sql: str, *values: object) -> list[Any]:
        return self._connection.execute(sql, values).fetchall()

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with self._one_thread, self._faults():
            return self._run(sql, *values)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFault(str(error), self._path.name) from error
