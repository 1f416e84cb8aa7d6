"""Study keys, wrapped under the node's key-encryption key in `keys.db`; patient tags beside them.

Wrapped form: 12-byte random nonce, then AES-256-GCM of the 32-byte key; associated data is a label, the study tag and
the generation. Rows deleted here (`secure_delete`) are what makes an erased study unreadable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.content.pack_format import sync_directory
from bridge.crypto.keystore import Keystore
from bridge.errors import ContentMissing, DatabaseDamaged, KeyFileInvalid, StorageFault, StorageFull
from bridge.model import StudyKey

__all__ = ["Keyring"]

_LABEL: Final = b"cairn/1 study key\0"
_NONCE_SIZE: Final = 12
_KEY_SIZE: Final = 32
_TAG_SIZE: Final = 16
_CACHED: Final = 4096
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
K = TypeVar("K")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS study_key (
    study TEXT NOT NULL,          -- Study Instance UID
    origin BLOB NOT NULL,         -- node id of the member whose key it is
    generation INTEGER NOT NULL,
    tag BLOB NOT NULL,            -- the study's random tag, the same in every generation of one origin
    wrapped BLOB NOT NULL,
    PRIMARY KEY (study, origin, generation),
    UNIQUE (tag, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS former_tag (
    tag BLOB PRIMARY KEY,         -- of another node's keys that were given up: what was done with them stays told
    study TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS patient_tag (
    patient TEXT PRIMARY KEY,
    tag BLOB NOT NULL UNIQUE
) WITHOUT ROWID;
"""


_STUDY_OF: Final = """
SELECT study FROM study_key WHERE tag = :tag UNION ALL SELECT study FROM former_tag WHERE tag = :tag LIMIT 1
"""
_TAGS_OF: Final = """
SELECT tag FROM study_key WHERE study = :study UNION SELECT tag FROM former_tag WHERE study = :study
"""
# What holds a key's place already, or contradicts it; contradictions first.
_IN_THE_WAY: Final = """
SELECT study, origin, generation, tag, wrapped FROM study_key
WHERE (study = :study AND origin = :origin AND generation = :generation) OR (tag = :tag AND generation = :generation)
   OR (study = :study AND origin = :origin AND tag <> :tag) OR (tag = :tag AND (study <> :study OR origin <> :origin))
ORDER BY study <> :study OR origin <> :origin OR tag <> :tag DESC LIMIT 1
"""


class Keyring:
    """The key database, as `bridge.ports.KeyStore`; safe to use from many threads and processes.

    Parameters
    ----------
    path
        The database file; created with mode 0600.
    keystore
        The node's keys: its key-encryption key and its id.

    Keys are cached (at most 4,096); every use first asks the database whether another process has changed it
    (`PRAGMA data_version`), so that a key deleted there is not used here any more. Raises StorageFault when the
    database cannot be opened.
    """

    def __init__(self, path: Path, keystore: Keystore) -> None:
        self._origin = keystore.node_id
        self._kek = AESGCM(keystore.key_encryption_key)
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock = threading.Lock()  # one connection, one user at a time
        self._current: OrderedDict[str, StudyKey] = OrderedDict()
        self._by_tag: OrderedDict[tuple[bytes, int], StudyKey] = OrderedDict()
        self._version = -1
        with _faults():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                with self._exclusive():
                    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                        self._db.execute(f"PRAGMA {pragma}").fetchall()
                    self._db.executescript(_SCHEMA)
                sync_directory(path.parent)
            except BaseException:
                self._db.close()
                raise

    def study_key(self, study: str) -> StudyKey:
        """The current key of a study, created and durable at its first use. Raises StorageFault."""
        with self._lock, _faults():
            self._check_version()
            key = self._current.get(study)
            if key is None:
                key = self._newest(study) or self._create(study, None)
                _remember(self._current, study, key)
            return key

    def open(self, study_tag: bytes, generation: int) -> StudyKey:
        """The key that a sealed object names. Raises ContentMissing when it is not (any longer) held, StorageFault."""
        with self._lock, _faults():
            self._check_version()
            key = self._by_tag.get((study_tag, generation))
            if key is None:
                row = self._db.execute(
                    "SELECT study, wrapped FROM study_key WHERE tag = ? AND generation = ?", (study_tag, generation)
                ).fetchone()
                if row is None:
                    raise ContentMissing(f"the key of study {study_tag.hex()}, generation {generation}, is not held")
                key = self._unwrap(row[0], generation, study_tag, row[1])
                _remember(self._by_tag, (study_tag, generation), key)
            return key

    def held(self, study: str) -> list[StudyKey]:
        """Every key of a study that is held, newest first; none is created. Raises StorageFault."""
        with self._lock, _faults():
            rows = self._db.execute(
                "SELECT generation, tag, wrapped FROM study_key WHERE study = ? ORDER BY generation DESC", (study,)
            ).fetchall()
            return [self._unwrap(study, *row) for row in rows]

    def study_of(self, tag: bytes) -> str | None:
        """The Study Instance UID behind a study tag, also of keys that were disowned; None when its key is gone.

        Raises StorageFault.
        """
        with self._lock, _faults():
            row = self._db.execute(_STUDY_OF, {"tag": tag}).fetchone()
            return None if row is None else str(row[0])

    def tags_of(self, study: str) -> list[bytes]:
        """The tags of a study whose keys are held, one for each origin, or were disowned. Raises StorageFault."""
        with self._lock, _faults():
            rows = self._db.execute(_TAGS_OF, {"study": study}).fetchall()
            return [bytes(tag) for (tag,) in rows]

    def origin_of(self, tag: bytes) -> bytes | None:
        """Whose key a study tag is of: a member's node id, None for this node. Raises ContentMissing, StorageFault."""
        with self._lock, _faults():
            row = self._db.execute("SELECT origin FROM study_key WHERE tag = ? LIMIT 1", (tag,)).fetchone()
            if row is None:
                raise ContentMissing(f"the key of study {tag.hex()} is not held")
            return None if row[0] == self._origin else bytes(row[0])

    def adopt(self, key: StudyKey, origin: bytes) -> None:
        """Hold another node's key of a study, durably; holding it already changes nothing.

        Parameters
        ----------
        key
            The key as its node has it: study, generation, tag, 32 secret bytes.
        origin
            The node id of the member whose key it is; this node's own when it comes back.

        Raises KeyFileInvalid when another key is held in its place, or tag, study and origin contradict what is held;
        ValueError for a tag or secret of another length; StorageFault.
        """
        if len(key.tag) != _TAG_SIZE or len(key.secret) != _KEY_SIZE:
            raise ValueError("a study tag has 16 bytes, a study key 32")
        named = {"study": key.study, "origin": origin, "generation": key.generation, "tag": key.tag}
        with self._lock, _faults():
            with self._write():
                held = self._db.execute(_IN_THE_WAY, named).fetchone()
                if held is None:
                    self._insert(key, origin)
            if held is not None:
                same = held[:4] == tuple(named.values())
                if not same or self._unwrap(key.study, key.generation, key.tag, held[4]) != key:
                    raise KeyFileInvalid(f"another key of study {key.tag.hex()}, generation {key.generation}, is held")
            self._forget()

    def next_generation(self, study: str) -> StudyKey:
        """Begin a new generation of a study's key, for what comes after; the tag stays. Raises StorageFault."""
        with self._lock, _faults():
            self._check_version()
            key = self._create(study, self._newest(study))
            _remember(self._current, study, key)
            return key

    def delete(self, study: str) -> int:
        """Delete every key of a study, of whatever origin; how many there were. Raises StorageFault.

        The rows' bytes are overwritten and the write-ahead log emptied; a copy of the file made before still has them.
        """
        forget = ("DELETE FROM former_tag WHERE study = ?", (study,))
        return self._delete(forget, ("DELETE FROM study_key WHERE study = ?", (study,)))

    def disown(self, tag: bytes) -> int:
        """Delete the keys of a study tag that another node made, as `delete` does; how many there were.

        This node's own keys stay, whatever the tag; and of which study it was stays known, for the audit trail. Raises
        StorageFault.
        """
        which = (tag, self._origin)
        remember = "INSERT OR REPLACE INTO former_tag SELECT tag, study FROM study_key WHERE tag = ? AND origin <> ?"
        return self._delete((remember, which), ("DELETE FROM study_key WHERE tag = ? AND origin <> ?", which))

    def _delete(self, *statements: tuple[str, tuple[object, ...]]) -> int:
        """Run statements at once, and empty the log of what was deleted; how many rows the last of them changed."""
        with self._lock, _faults():
            with self._write():
                count = [self._db.execute(*statement).rowcount for statement in statements][-1]
            self._forget()
            with self._exclusive():
                busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageFault("the key database is being read; its log could not be emptied: delete again")
        return count

    def patient_tag(self, patient: str) -> bytes:
        """The random 16-byte tag of a patient, created and durable at its first use. Raises StorageFault."""
        select = "SELECT tag FROM patient_tag WHERE patient = ?"
        with self._lock, _faults():
            row = self._db.execute(select, (patient,)).fetchone()
            if row is None:
                with self._write():
                    self._db.execute(
                        "INSERT INTO patient_tag VALUES (?, ?) ON CONFLICT DO NOTHING", (patient, os.urandom(_TAG_SIZE))
                    )
                    row = self._db.execute(select, (patient,)).fetchone()
            return bytes(row[0])

    def close(self) -> None:
        """Forget the cached keys and close the database."""
        with self._lock:
            self._forget()
            self._db.close()

    def _newest(self, study: str) -> StudyKey | None:
        row = self._db.execute(
            "SELECT generation, tag, wrapped FROM study_key WHERE study = ? AND origin = ?"
            " ORDER BY generation DESC LIMIT 1",
            (study, self._origin),
        ).fetchone()
        return None if row is None else self._unwrap(study, *row)

    def _create(self, study: str, former: StudyKey | None) -> StudyKey:
        """Insert the generation after `former` unless another process did meanwhile; then theirs holds."""
        with self._write():
            newest = self._newest(study)
            if newest is not None and (former is None or newest.generation > former.generation):
                return newest
            tag = former.tag if former is not None and newest is not None else os.urandom(_TAG_SIZE)
            generation = 0 if newest is None else newest.generation + 1
            key = StudyKey(study, generation, tag, os.urandom(_KEY_SIZE))
            self._insert(key, self._origin)
            return key

    def _insert(self, key: StudyKey, origin: bytes) -> None:
        nonce = os.urandom(_NONCE_SIZE)
        wrapped = nonce + self._kek.encrypt(nonce, key.secret, _associated(key.tag, key.generation))
        row = (key.study, origin, key.generation, key.tag, wrapped)
        self._db.execute("INSERT INTO study_key VALUES (?, ?, ?, ?, ?)", row)

    def _unwrap(self, study: str, generation: int, tag: bytes, wrapped: bytes) -> StudyKey:
        try:
            secret = self._kek.decrypt(wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:], _associated(tag, generation))
        except (InvalidTag, ValueError):
            raise StorageFault(f"the key of study {tag.hex()}, generation {generation}, does not unwrap") from None
        return StudyKey(study, generation, tag, secret)

    def _check_version(self) -> None:
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._forget()
            self._version = version

    def _forget(self) -> None:
        self._current.clear()
        self._by_tag.clear()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """The lock that writers of every process wait for in turn, instead of SQLite's busy handler (DESIGN 7)."""
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        with self._exclusive():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def _associated(tag: bytes, generation: int) -> bytes:
    return _LABEL + tag + struct.pack(">I", generation)


def _remember(cache: OrderedDict[K, StudyKey], name: K, key: StudyKey) -> None:
    cache[name] = key
    while len(cache) > _CACHED:
        cache.popitem(last=False)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or getattr(error, "errno", None) in _NO_SPACE:
            raise StorageFull("the key database cannot grow") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DatabaseDamaged(f"the key database is damaged ({name})") from error
        raise StorageFault(f"key database: {error}") from error
