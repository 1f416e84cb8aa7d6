"""Where the secret that opens the keystore comes from: a passphrase file, a systemd credential, or a generated file."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from bridge.content.pack_format import sync_directory
from bridge.errors import ConfigError

__all__ = ["CREDENTIAL", "Protection", "Unlock", "create_once", "generate_unlock", "read_unlock"]

CREDENTIAL: Final = "cairn-passphrase"
_MAX_SECRET: Final = 4096


class Protection(StrEnum):
    """What stands between a copy of CAIRN_HOME and its keys."""

    PASSPHRASE = "passphrase file"
    CREDENTIAL = "systemd credential"
    UNPROTECTED = "unprotected"


class Unlock(NamedTuple):
    """The secret bytes, and how they were kept."""

    secret: bytes
    protection: Protection

    def __repr__(self) -> str:
        return f"Unlock(secret=..., protection={self.protection!r})"


def read_unlock(default: Path, passphrase_file: Path | None, environ: Mapping[str, str]) -> Unlock | None:
    """The configured secret: `passphrase_file`, else $CREDENTIALS_DIRECTORY/cairn-passphrase, else the file `default`.

    None when nothing is configured and `default` does not exist. Line ends at the end are not part of a secret.
    Raises ConfigError for a file that is missing, empty, beyond 4 KiB, or that others than its owner may read (a
    systemd credential may show group bits: they are the mask of its ACL, systemd.exec(5)).
    """
    if passphrase_file is not None:
        return Unlock(_read_secret(passphrase_file, 0o077), Protection.PASSPHRASE)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and (Path(directory) / CREDENTIAL).exists():
        return Unlock(_read_secret(Path(directory) / CREDENTIAL, 0o027), Protection.CREDENTIAL)
    if default.exists():
        return Unlock(_read_secret(default, 0o077), Protection.UNPROTECTED)
    return None


def generate_unlock(path: Path) -> Unlock:
    """Make the default secret (256 random bits, text) if no other process just did, and read it."""
    create_once(path, base64.b64encode(os.urandom(32)) + b"\n")
    return Unlock(_read_secret(path, 0o077), Protection.UNPROTECTED)


def create_once(path: Path, data: bytes) -> bool:
    """Create a file of mode 0600 with these contents, durable and atomic; False when it exists, which is left as is."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_directory(path.parent)
    return True


def _read_secret(path: Path, forbidden: int) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise ConfigError(f"passphrase file {path}: {error.strerror}") from None
    if mode & forbidden:
        raise ConfigError(f"passphrase file {path} may be read by others (mode {mode:o}); chmod it to 600")
    secret = data.rstrip(b"\r\n")
    if not secret or len(data) > _MAX_SECRET:
        raise ConfigError(f"passphrase file {path} is empty or beyond 4 KiB")
    return secret
