"""The key-encryption key replaced, and every study key that is left wrapped anew: what an erasure ends with.

A copy of a deleted row that lies somewhere, on a disk's free sectors or in a snapshot, opens by the former key alone,
and that is gone then.

    (1) `keys/replacing.json`, durable: the keystore with another key-encryption key
    (2) one transaction in keys.db: all study keys wrapped under it, and which key it is
    (3) `keys/next.json` (`bridge.crypto.next_key`), when there is one, with it too
    (4) `keys/replacing.json` becomes `keys/keystore.json`; the former file's bytes are overwritten

All of it is done while holding the key database's lock. Killed before (2) has committed it did not happen; after that
(3) and (4) are done at the next start, and until then `candidates` gives the key in use.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge import crash
from bridge.content.pack_format import sync_directory
from bridge.crypto import derive
from bridge.crypto.key_database import KeyDatabase, exclusive, faults
from bridge.crypto.keyring import NONCE_SIZE, associated
from bridge.crypto.keystore import DEFAULT_COST, Cost, Keystore, open_sealed, seal
from bridge.crypto.next_key import NEXT
from bridge.crypto.unlock import Unlock, create_once, read_unlock
from bridge.errors import ConfigError, StorageFault

__all__ = ["REPLACING", "candidates", "finish_replacing", "replace_key"]

REPLACING: Final = "replacing.json"
_KEYSTORE: Final = "keystore.json"


def candidates(home: Path, passphrase_file: Path | None, environ: Mapping[str, str] = os.environ) -> Iterator[bytes]:
    """The key-encryption keys that the files of `home/keys` name now, one of which is in use. Raises ConfigError."""
    unlock = _unlock(home, passphrase_file, environ)
    for name in (REPLACING, _KEYSTORE):  # in this order: the one becomes the other
        with contextlib.suppress(FileNotFoundError):
            yield open_sealed((home / "keys" / name).read_bytes(), unlock).key_encryption_key


def replace_key(
    home: Path, passphrase_file: Path | None, environ: Mapping[str, str] = os.environ, cost: Cost = DEFAULT_COST
) -> int:
    """(1) to (4); how many study keys were wrapped anew. Raises ConfigError, StorageFull, StorageFault."""
    unlock = _unlock(home, passphrase_file, environ)
    # A connection of its own, so that the keyrings of this process see that another has written.
    with closing(KeyDatabase(home / "keys" / "keys.db")) as database, faults():
        with exclusive(home / "keys" / "keys.db"):
            _finish(home, _wrapped_under(database.connection), unlock, cost)
            former = open_sealed((home / "keys" / _KEYSTORE).read_bytes(), unlock)
            fresh = replace(former, key_encryption_key=os.urandom(32))
            create_once(home / "keys" / REPLACING, seal(fresh, unlock.secret, cost))  # (1)
            crash.step("replace_key.1")
            with database.transaction():
                count = _wrap_anew(database.connection, former, fresh)  # (2)
            crash.step("replace_key.2")
            _finish(home, derive.key_id(fresh.key_encryption_key), unlock, cost)
        database.empty_log()
    return count


def finish_replacing(
    home: Path, passphrase_file: Path | None, environ: Mapping[str, str] = os.environ, cost: Cost = DEFAULT_COST
) -> None:
    """End a replacement that was interrupted, or undo it; without effect when there is none.

    To be called at a start, before the keystore is opened. Raises ConfigError, StorageFault.
    """
    if not (home / "keys" / REPLACING).exists():
        return
    unlock = _unlock(home, passphrase_file, environ)
    with closing(KeyDatabase(home / "keys" / "keys.db")) as database, faults(), exclusive(home / "keys" / "keys.db"):
        _finish(home, _wrapped_under(database.connection), unlock, cost)


def _finish(home: Path, used: bytes | None, unlock: Unlock, cost: Cost) -> None:
    """(3), (4), when the database's keys are wrapped under the replacing key; else the file of it goes."""
    keys = home / "keys"
    try:
        replacing = open_sealed((keys / REPLACING).read_bytes(), unlock)
    except FileNotFoundError:
        return
    if derive.key_id(replacing.key_encryption_key) != used:
        (keys / REPLACING).unlink()
        sync_directory(keys)
        return
    if (keys / NEXT).exists():
        following = open_sealed((keys / NEXT).read_bytes(), unlock)
        changed = replace(following, key_encryption_key=replacing.key_encryption_key)
        _take_place(keys / NEXT, seal(changed, unlock.secret, cost))  # (3)
    crash.step("replace_key.3")
    with (keys / _KEYSTORE).open("r+b") as former:  # (4)
        (keys / REPLACING).replace(keys / _KEYSTORE)
        sync_directory(keys)
        former.write(bytes(os.fstat(former.fileno()).st_size))
        former.flush()
        os.fsync(former.fileno())


def _take_place(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.replacing")
    draft.unlink(missing_ok=True)
    create_once(draft, data)
    draft.replace(path)
    sync_directory(path.parent)


def _wrapped_under(connection: sqlite3.Connection) -> bytes | None:
    """Which key-encryption key the database's keys are wrapped under; None for the keystore's first."""
    row = connection.execute("SELECT kek FROM wrapping").fetchone()
    return None if row is None else bytes(row[0])


def _wrap_anew(connection: sqlite3.Connection, former: Keystore, fresh: Keystore) -> int:
    """(2) within a transaction. Raises StorageFault when a key does not unwrap: nothing is changed then."""
    old, new = AESGCM(former.key_encryption_key), AESGCM(fresh.key_encryption_key)
    rows = connection.execute("SELECT tag, generation, wrapped FROM study_key").fetchall()
    changed = []
    for tag, generation, wrapped in rows:
        about = associated(tag, generation)
        try:
            secret = old.decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], about)
        except (InvalidTag, ValueError):
            raise StorageFault(f"the key of study {tag.hex()}, generation {generation}, does not unwrap") from None
        nonce = os.urandom(NONCE_SIZE)
        changed.append((nonce + new.encrypt(nonce, secret, about), tag, generation))
    connection.executemany("UPDATE study_key SET wrapped = ? WHERE tag = ? AND generation = ?", changed)
    named = derive.key_id(fresh.key_encryption_key)
    connection.execute("INSERT OR REPLACE INTO wrapping VALUES (1, ?)", (named,))
    return len(changed)


def _unlock(home: Path, passphrase_file: Path | None, environ: Mapping[str, str]) -> Unlock:
    unlock = read_unlock(home / "keys" / "unlock", passphrase_file, environ)
    if unlock is None:
        raise ConfigError(f"{home / 'keys' / _KEYSTORE} cannot be opened: no passphrase is configured")
    return unlock
