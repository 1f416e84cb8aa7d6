"""The ledger key that is to follow the one in use: kept sealed beside the keystore until the members have accepted it.

`keys/next.json` is a whole keystore that differs in the signing key alone, sealed under the same passphrase; taking it
into use is one renaming.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bridge.content.pack_format import sync_directory
from bridge.crypto.key_database import exclusive
from bridge.crypto.keystore import DEFAULT_COST, Cost, open_sealed, seal
from bridge.crypto.unlock import create_once, read_unlock
from bridge.errors import ConfigError

__all__ = ["adopt_next", "make_next", "read_next"]

NEXT: Final = "next.json"


def make_next(
    home: Path,
    passphrase_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cost: Cost = DEFAULT_COST,
) -> bytes:
    """The signing seed (32 bytes) that is to follow, made and durable unless there is one. Raises ConfigError."""
    unlock = read_unlock(home / "keys" / "unlock", passphrase_file, environ)
    if unlock is None:
        raise ConfigError(f"{home / 'keys' / 'keystore.json'} cannot be opened: no passphrase is configured")
    with exclusive(home / "keys" / "keys.db"):  # while no erasure replaces the key-encryption key
        held = read_next(home, passphrase_file, environ)
        if held is not None:
            return held
        try:
            now = open_sealed((home / "keys" / "keystore.json").read_bytes(), unlock)
            fresh = replace(now, signing_seed=os.urandom(32))
            create_once(home / "keys" / NEXT, seal(fresh, unlock.secret, cost))
        except OSError as error:
            raise ConfigError(f"{home / 'keys' / NEXT} cannot be written: {error.strerror}") from error
    return fresh.signing_seed


def read_next(home: Path, passphrase_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The signing seed that is to follow; None when there is none. Raises ConfigError."""
    path = home / "keys" / NEXT
    if not path.exists():
        return None
    unlock = read_unlock(home / "keys" / "unlock", passphrase_file, environ)
    if unlock is None:
        raise ConfigError(f"{path} exists, but no passphrase is configured")
    try:
        return open_sealed(path.read_bytes(), unlock).signing_seed
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def adopt_next(home: Path) -> None:
    """Take the next key into use: it becomes the keystore's. The former one is gone. Raises ConfigError."""
    try:
        (home / "keys" / NEXT).replace(home / "keys" / "keystore.json")
        sync_directory(home / "keys")
    except OSError as error:
        raise ConfigError(f"{home / 'keys' / NEXT}: {error.strerror}") from error
