"""Study keys, wrapped under the node's key-encryption key in `keys.db`; patient tags beside them.

Wrapped form: 12-byte random nonce, then AES-256-GCM of the 32-byte key; associated data is a label, the study tag and
the generation. Rows deleted here (`secure_delete`) are what makes an erased study unreadable.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.crypto import derive
from bridge.crypto.key_database import KeyDatabase, faults
from bridge.crypto.keystore import Keystore
from bridge.errors import Busy, ContentMissing, KeyFileInvalid, StorageFault
from bridge.model import StudyKey

__all__ = ["NONCE_SIZE", "Keyring", "associated"]

_LABEL: Final = b"cairn/1 study key\0"
NONCE_SIZE: Final = 12
"""A wrapped key's first bytes."""
_KEY_SIZE: Final = 32
_TAG_SIZE: Final = 16
_CACHED: Final = 4096
K = TypeVar("K")


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


_BEING_ERASED: Final = "SELECT 1 FROM erasure WHERE study = ?"


class Keyring:
    """The key database, as `bridge.ports.KeyStore`; safe to use from many threads and processes.

    Parameters
    ----------
    path
        The database file; created with mode 0600.
    keystore
        The node's keys: its key-encryption key and its id.
    newer
        The key-encryption keys (32 bytes) that the keystore's file names now: asked when another process has replaced
        the one in use (`bridge.crypto.wrapping`).

    Keys are cached (at most 4,096); every use first asks the database whether another process has changed it
    (`PRAGMA data_version`), so that a key deleted there is not used here any more. Raises StorageFault when the
    database cannot be opened.
    """

    def __init__(self, path: Path, keystore: Keystore, newer: Callable[[], Iterable[bytes]] = tuple) -> None:
        self._origin = keystore.node_id
        self._use(keystore.key_encryption_key)
        self._newer = newer
        self._current: OrderedDict[str, StudyKey] = OrderedDict()
        self._by_tag: OrderedDict[tuple[bytes, int], StudyKey] = OrderedDict()
        self._version = -1
        self.database = KeyDatabase(path)
        self._db = self.database.connection
        self._lock = self.database.lock
        try:
            with faults():
                self._check_wrapping()
        except BaseException:
            self.database.close()
            raise

    def study_key(self, study: str) -> StudyKey:
        """The current key of a study, created and durable at its first use. Raises StorageFault, Busy."""
        with self._lock, faults():
            self._check_version()
            key = self._current.get(study)
            if key is None:
                key = self._newest(study) or self._create(study, None)
                _remember(self._current, study, key)
            return key

    def open(self, study_tag: bytes, generation: int) -> StudyKey:
        """The key that a sealed object names. Raises ContentMissing when it is not (any longer) held, StorageFault."""
        with self._lock, faults():
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
        with self._lock, faults():
            self._check_version()
            rows = self._db.execute(
                "SELECT generation, tag, wrapped FROM study_key WHERE study = ? ORDER BY generation DESC", (study,)
            ).fetchall()
            return [self._unwrap(study, *row) for row in rows]

    def study_of(self, tag: bytes) -> str | None:
        """The Study Instance UID behind a study tag, also of keys that were disowned; None when its key is gone.

        Raises StorageFault.
        """
        with self._lock, faults():
            row = self._db.execute(_STUDY_OF, {"tag": tag}).fetchone()
            return None if row is None else str(row[0])

    def tags_of(self, study: str) -> list[bytes]:
        """The tags of a study whose keys are held, one for each origin, or were disowned. Raises StorageFault."""
        with self._lock, faults():
            rows = self._db.execute(_TAGS_OF, {"study": study}).fetchall()
            return [bytes(tag) for (tag,) in rows]

    def origin_of(self, tag: bytes) -> bytes | None:
        """Whose key a study tag is of: a member's node id, None for this node. Raises ContentMissing, StorageFault."""
        with self._lock, faults():
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
        with self._lock, faults():
            with self.database.write(self._check_wrapping):
                held = self._db.execute(_IN_THE_WAY, named).fetchone()
                if held is None:
                    self._refuse_erased(key.study)
                    self._insert(key, origin)
            self._check_version()
            if held is not None:
                same = held[:4] == tuple(named.values())
                if not same or self._unwrap(key.study, key.generation, key.tag, held[4]) != key:
                    raise KeyFileInvalid(f"another key of study {key.tag.hex()}, generation {key.generation}, is held")
            self._forget()

    def next_generation(self, study: str) -> StudyKey:
        """Begin a new generation of a study's key, for what comes after; the tag stays. Raises StorageFault."""
        with self._lock, faults():
            self._check_version()
            key = self._create(study, self._newest(study))
            _remember(self._current, study, key)
            return key

    def delete(self, study: str) -> int:
        """Delete every key of a study, of whatever origin; how many there were. Raises StorageFault.

        The rows' bytes are overwritten and the write-ahead log emptied; a copy of the file made before still has them.
        Raises Busy when the log could not be emptied, for the database is being read: delete again.
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
        with self._lock, faults():
            with self.database.write(self._check_wrapping):
                count = [self._db.execute(*statement).rowcount for statement in statements][-1]
            self._forget()
            self.database.empty_log()
        return count

    def patient_tag(self, patient: str) -> bytes:
        """The random 16-byte tag of a patient, created and durable at its first use. Raises StorageFault."""
        select = "SELECT tag FROM patient_tag WHERE patient = ?"
        with self._lock, faults():
            row = self._db.execute(select, (patient,)).fetchone()
            if row is None:
                with self.database.write(self._check_wrapping):
                    self._db.execute(
                        "INSERT INTO patient_tag VALUES (?, ?) ON CONFLICT DO NOTHING", (patient, os.urandom(_TAG_SIZE))
                    )
                    row = self._db.execute(select, (patient,)).fetchone()
            return bytes(row[0])

    def close(self) -> None:
        """Forget the cached keys and close the database."""
        with self._lock:
            self._forget()
            self.database.close()

    def _newest(self, study: str) -> StudyKey | None:
        row = self._db.execute(
            "SELECT generation, tag, wrapped FROM study_key WHERE study = ? AND origin = ?"
            " ORDER BY generation DESC LIMIT 1",
            (study, self._origin),
        ).fetchone()
        return None if row is None else self._unwrap(study, *row)

    def _create(self, study: str, former: StudyKey | None) -> StudyKey:
        """Insert the generation after `former` unless another process did meanwhile; then theirs holds."""
        with self.database.write(self._check_wrapping):
            newest = self._newest(study)
            if newest is not None and (former is None or newest.generation > former.generation):
                return newest
            if newest is None:
                self._refuse_erased(study)
            tag = former.tag if former is not None and newest is not None else os.urandom(_TAG_SIZE)
            generation = 0 if newest is None else newest.generation + 1
            key = StudyKey(study, generation, tag, os.urandom(_KEY_SIZE))
            self._insert(key, self._origin)
            return key

    def _refuse_erased(self, study: str) -> None:
        """Raise Busy while an erasure of the study goes on: a key made now would be of what is being deleted."""
        if self._db.execute(_BEING_ERASED, (study,)).fetchone() is not None:
            raise Busy("the study is being erased; send it again when that is done")

    def _insert(self, key: StudyKey, origin: bytes) -> None:
        nonce = os.urandom(NONCE_SIZE)
        wrapped = nonce + self._kek.encrypt(nonce, key.secret, associated(key.tag, key.generation))
        row = (key.study, origin, key.generation, key.tag, wrapped)
        self._db.execute("INSERT INTO study_key VALUES (?, ?, ?, ?, ?)", row)

    def _unwrap(self, study: str, generation: int, tag: bytes, wrapped: bytes) -> StudyKey:
        try:
            secret = self._kek.decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], associated(tag, generation))
        except (InvalidTag, ValueError):
            raise StorageFault(f"the key of study {tag.hex()}, generation {generation}, does not unwrap") from None
        return StudyKey(study, generation, tag, secret)

    def _check_version(self) -> None:
        version = self.database.version()
        if version != self._version:
            self._forget()
            self._check_wrapping()
            self._version = version

    def _forget(self) -> None:
        self._current.clear()
        self._by_tag.clear()

    def _use(self, kek: bytes) -> None:
        self._kek, self._kek_id = AESGCM(kek), derive.key_id(kek)

    def _check_wrapping(self) -> None:
        """Go on with the key-encryption key that the keys are wrapped under now. Raises StorageFault without it."""
        row = self._db.execute("SELECT kek FROM wrapping").fetchone()
        if row is None or row[0] == self._kek_id:
            return
        for kek in self._newer():
            if derive.key_id(kek) == row[0]:
                return self._use(kek)
        raise StorageFault("the study keys are wrapped under another key-encryption key than the keystore holds")


def associated(tag: bytes, generation: int) -> bytes:
    """What a wrapped study key is bound to: study tag and generation."""
    return _LABEL + tag + struct.pack(">I", generation)


def _remember(cache: OrderedDict[K, StudyKey], name: K, key: StudyKey) -> None:
    cache[name] = key
    while len(cache) > _CACHED:
        cache.popitem(last=False)
