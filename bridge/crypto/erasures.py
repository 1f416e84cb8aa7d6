"""What the key database knows of erasures: those that go on, and that a study was erased here.

An erasure that goes on names its study. Of one that has ended a mark is left, HMAC-SHA256 of the Study Instance UID
under a key of the node: whoever asks for a UID can be told that it was erased here, and nobody can read UIDs from it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.crypto import derive
from bridge.crypto.key_database import faults
from bridge.crypto.keyring import Keyring

__all__ = ["Asked", "Erasure", "Erasures"]

_TAGS: Final = """
SELECT tag FROM study_key WHERE study = :study UNION SELECT tag FROM former_tag WHERE study = :study ORDER BY tag
"""
_GONE: Final = """
SELECT EXISTS (SELECT 1 FROM erased_tag WHERE tag = :tag) AND NOT EXISTS (SELECT 1 FROM study_key WHERE tag = :tag)
"""
_HELD: Final = "SELECT 1 FROM study_key WHERE study = ? LIMIT 1"
_ERASED: Final = "SELECT max(coalesce(ended, begun)) FROM erasure WHERE mark = ?"
_GOING_ON: Final = "SELECT id, study, begun, asked, roots FROM erasure WHERE study IS NOT NULL ORDER BY begun"
_UNRELEASED: Final = "SELECT id, roots FROM erasure WHERE ended IS NOT NULL AND roots <> '[]' ORDER BY ended"
_ENDED: Final = """
SELECT erased_tag.tag, erasure.ended, erased_tag.entry FROM erasure JOIN erased_tag ON erased_tag.erasure = erasure.id
WHERE erasure.ended IS NOT NULL ORDER BY erasure.ended, erased_tag.tag
"""


class Asked(NamedTuple):
    """Who asked for an erasure, by `kind`, `name` and `how` of `bridge.model.Actor`, and why."""

    kind: str
    name: str
    how: str
    reason: str


class Erasure(NamedTuple):
    """One that goes on: its 16-byte id, the study, its tags, when it was begun (microseconds since the epoch).

    `roots` are those that the content engine is to let go of.
    """

    id: bytes
    study: str
    begun: int
    asked: Asked
    tags: tuple[bytes, ...]
    roots: tuple[bytes, ...]


class Erasures:
    """Over an open keyring. Thread-safe. Every method may raise StorageFault; those that write, StorageFull."""

    def __init__(self, keys: Keyring, audit_key: bytes) -> None:
        self._database = keys.database
        self._db = keys.database.connection
        self._mark_key = derive.erased_mark_key(audit_key)

    def begin(self, study: str, asked: Asked, now: int) -> Erasure | None:
        """From now on no key of the study is made; that it goes on is durable. One that goes on already is given.

        None for a study of which no key is held or was.
        """
        with self._database.lock, faults(), self._database.write():
            found = next((one for one in self._going_on() if one.study == study), None)
            tags = [bytes(tag) for (tag,) in self._db.execute(_TAGS, {"study": study})]
            if found is None and not tags:
                return None
            id = found.id if found is not None else os.urandom(16)
            if found is None:
                row = (id, self._mark(study), now, None, study, json.dumps(asked), "[]")
                self._db.execute("INSERT INTO erasure VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._db.executemany("INSERT OR IGNORE INTO erased_tag VALUES (?, ?, NULL)", [(id, tag) for tag in tags])
            return next(one for one in self._going_on() if one.id == id)

    def begin_again(self, tags: Sequence[bytes], asked: Asked, now: int) -> int:
        """Begin the erasures of the studies behind tags whose keys are held, as after a restore; how many studies."""
        with self._database.lock, faults():
            found = {
                str(row[0])
                for tag in tags
                for row in self._db.execute("SELECT study FROM study_key WHERE tag = ? LIMIT 1", (tag,))
            }
        return sum(self.begin(study, asked, now) is not None for study in sorted(found))

    def going_on(self) -> list[Erasure]:
        """Those that have not ended, the oldest first."""
        with self._database.lock, faults():
            return self._going_on()

    def stated(self, id: bytes, tag: bytes, entry: bytes) -> None:
        """The entry with this records root says that the study of a tag is erased."""
        values = (entry, id, tag)
        self._change("UPDATE erased_tag SET entry = ? WHERE erasure = ? AND tag = ?", values)

    def note_roots(self, id: bytes, roots: Sequence[bytes]) -> None:
        """The roots that the content engine is still to let go of."""
        self._change("UPDATE erasure SET roots = ? WHERE id = ?", (json.dumps([root.hex() for root in roots]), id))

    def unreleased(self) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """Those that have ended and of which roots are still to be let go of, each with them."""
        with self._database.lock, faults():
            rows = self._db.execute(_UNRELEASED).fetchall()
        return [(id, tuple(bytes.fromhex(root) for root in json.loads(roots))) for id, roots in rows]

    def end(self, id: bytes, now: int) -> None:
        """It has ended: nothing of it tells the study any more.

        Raises Busy while the database is read: end it again.
        """
        values = (now, id)
        self._change("UPDATE erasure SET ended = ?, study = NULL, asked = NULL WHERE id = ?", values)
        with self._database.lock, faults():
            self._database.empty_log()

    def erased(self, study: str) -> int | None:
        """When a study was erased last, or that was begun while it goes on (microseconds since the epoch), or None."""
        with self._database.lock, faults():
            found = self._db.execute(_ERASED, (self._mark(study),)).fetchone()[0]
        return None if found is None else int(found)

    def tags_of(self, study: str) -> list[bytes]:
        """The tags that an erased study had, by which the entries that say so are found."""
        query = "SELECT tag FROM erased_tag JOIN erasure ON erasure.id = erasure WHERE mark = ? ORDER BY tag"
        with self._database.lock, faults():
            return [bytes(tag) for (tag,) in self._db.execute(query, (self._mark(study),))]

    def knows(self, entry: bytes) -> bool:
        """Whether the entry with this records root is one of an erasure that went on, or goes on, here."""
        with self._database.lock, faults():
            return self._db.execute("SELECT 1 FROM erased_tag WHERE entry = ?", (entry,)).fetchone() is not None

    def is_gone(self, tag: bytes, study: str | None = None) -> bool:
        """Whether the keys of a tag were erased, and are not held again; with `study`, nor any other key of that."""
        with self._database.lock, faults():
            if not self._db.execute(_GONE, {"tag": tag}).fetchone()[0]:
                return False
            return study is None or self._db.execute(_HELD, (study,)).fetchone() is None

    def ended(self) -> list[tuple[bytes, int, bytes | None]]:
        """Every tag that was erased, when, and the records root of its entry; the oldest first."""
        with self._database.lock, faults():
            return [(bytes(tag), int(at), entry) for tag, at, entry in self._db.execute(_ENDED)]

    def _change(self, statement: str, values: tuple[object, ...]) -> None:
        with self._database.lock, faults(), self._database.write():
            self._db.execute(statement, values)

    def _going_on(self) -> list[Erasure]:
        found = []
        for id, study, begun, asked, roots in self._db.execute(_GOING_ON).fetchall():
            tags = self._db.execute("SELECT tag FROM erased_tag WHERE erasure = ? ORDER BY tag", (id,)).fetchall()
            said = Asked(*json.loads(asked))
            let_go = tuple(bytes.fromhex(root) for root in json.loads(roots))
            found.append(Erasure(id, study, begun, said, tuple(bytes(tag) for (tag,) in tags), let_go))
        return found

    def _mark(self, study: str) -> bytes:
        return hmac.digest(self._mark_key, study.encode(), hashlib.sha256)
