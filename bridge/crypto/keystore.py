"""The node's own keys: one small file, sealed under a passphrase by Argon2id (RFC 9106) and AES-256-GCM.

`keystore.json` holds the parameters in clear, bound as associated data, and one sealed canonical CBOR map of raw seeds.
It is not PKCS#8 encryption, whose iteration count is far too low.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from bridge.crypto.unlock import Protection, Unlock, create_once, generate_unlock, read_unlock
from bridge.errors import ConfigError

__all__ = ["DEFAULT_COST", "Cost", "Keystore", "open_keystore", "open_sealed", "seal"]

_LABEL: Final = b"cairn/1 keystore\0"
_NONCE_SIZE: Final = 12
_MAX_FILE: Final = 64 << 10
_FIELDS: Final = {
    "signing_seed": 32,
    "agreement_seed": 32,
    "key_encryption_key": 32,
    "actor_tag_key": 32,
    "audit_key": 32,
    "node_id": 16,
    "ledger_id": 16,
}


class Cost(NamedTuple):
    """Argon2id's cost: memory in KiB, passes, lanes."""

    memory: int
    passes: int
    lanes: int


# RFC 9106 section 4, second recommended option
DEFAULT_COST: Final = Cost(64 << 10, 3, 4)
_MOST: Final = Cost(1 << 20, 16, 16)
_LEAST: Final = Cost(8, 1, 1)


@dataclass(frozen=True, slots=True)
class Keystore:
    """The node's secrets, each 32 random bytes, and its two random 16-byte names.

    `signing_seed` is the Ed25519 and `agreement_seed` the X25519 private key (RFC 8032, RFC 7748, raw);
    `key_encryption_key` wraps study keys; `actor_tag_key` makes actor tags; `audit_key` seals records about no study.
    """

    signing_seed: bytes
    agreement_seed: bytes
    key_encryption_key: bytes
    actor_tag_key: bytes
    audit_key: bytes
    node_id: bytes
    ledger_id: bytes
    protection: Protection

    def __repr__(self) -> str:
        return (
            f"Keystore(node_id={self.node_id.hex()}, ledger_id={self.ledger_id.hex()}, protection={self.protection!r})"
        )


def open_keystore(
    home: Path,
    passphrase_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    cost: Cost = DEFAULT_COST,
) -> Keystore:
    """Open `home/keys/keystore.json`, creating it (and, if nothing is configured, `keys/unlock`) at the first start.

    Parameters
    ----------
    home
        CAIRN_HOME.
    passphrase_file
        The setting `keys.passphrase_file`.
    environ
        Where CREDENTIALS_DIRECTORY is looked up.
    cost
        What a new keystore costs to open; an existing one says its own.

    Two processes that create it at once agree on one. Raises ConfigError when the secret is missing, readable by
    others or wrong, or the keystore is damaged or readable by others, or it is gone and the key database beside it is
    not: other keys would open nothing of what is stored and sign another log.
    """
    keys = home / "keys"
    path, default = keys / "keystore.json", keys / "unlock"
    try:
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        used = (keys / "keys.db").exists()  # looked at first: whoever makes it has made the keystore before
        unlock = read_unlock(default, passphrase_file, environ)
        if not path.exists():
            if used:
                raise ConfigError(f"{path} is missing beside the keys that it opens; restore it from a backup")
            unlock = unlock or generate_unlock(default)
            create_once(path, seal(_new_keystore(), unlock.secret, cost))
        if unlock is None:
            raise ConfigError(f"{path} exists, but neither a passphrase is configured nor is there {default}")
        return open_sealed(_read(path), unlock)
    except OSError as error:
        raise ConfigError(f"keystore {path}: {error.strerror}") from error


def seal(keystore: Keystore, secret: bytes, cost: Cost = DEFAULT_COST) -> bytes:
    """The contents of a keystore file, sealed under a passphrase with new salt and nonce."""
    salt, nonce = os.urandom(16), os.urandom(_NONCE_SIZE)
    head: dict[str, object] = {
        "version": 1,
        "kdf": {"name": "argon2id", **cost._asdict(), "salt": _text(salt)},
        "cipher": {"name": "aes-256-gcm", "nonce": _text(nonce)},
    }
    plaintext = cbor2.dumps({name: getattr(keystore, name) for name in _FIELDS}, canonical=True)
    sealed = AESGCM(_stretch(secret, salt, cost)).encrypt(nonce, plaintext, _associated(head))
    return json.dumps({**head, "sealed": _text(sealed)}, indent=1).encode() + b"\n"


def open_sealed(data: bytes, unlock: Unlock) -> Keystore:
    """Open the contents of a keystore file. Raises ConfigError when they are damaged or the passphrase is wrong."""
    try:
        document = json.loads(data)
        sealed = base64.b64decode(document.pop("sealed"), validate=True)
        kdf, cipher = document["kdf"], document["cipher"]
        salt = base64.b64decode(kdf["salt"], validate=True)
        nonce = base64.b64decode(cipher["nonce"], validate=True)
        cost = Cost(int(kdf["memory"]), int(kdf["passes"]), int(kdf["lanes"]))
        known = (document["version"], kdf["name"], cipher["name"]) == (1, "argon2id", "aes-256-gcm")
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise ConfigError("the keystore file is damaged") from None
    bounded = all(least <= value <= most for least, value, most in zip(_LEAST, cost, _MOST, strict=True))
    if not known or not bounded or len(salt) != 16 or len(nonce) != _NONCE_SIZE or cost.memory < 8 * cost.lanes:
        raise ConfigError("the keystore file is of a form that this version does not open")
    try:
        plaintext = AESGCM(_stretch(unlock.secret, salt, cost)).decrypt(nonce, sealed, _associated(document))
    except InvalidTag:
        raise ConfigError("the passphrase does not open the keystore (or the file was altered)") from None
    fields = cbor2.loads(plaintext)
    if {name: len(value) for name, value in fields.items()} != _FIELDS:
        raise ConfigError("the keystore holds other keys than this version expects")
    return Keystore(**fields, protection=unlock.protection)


def _new_keystore() -> Keystore:
    seeds = {name: os.urandom(size) for name, size in _FIELDS.items()}
    return Keystore(**seeds, protection=Protection.UNPROTECTED)


def _stretch(secret: bytes, salt: bytes, cost: Cost) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory)
    return kdf.derive(secret)


def _associated(head: Mapping[str, object]) -> bytes:
    return _LABEL + json.dumps(head, sort_keys=True, separators=(",", ":")).encode()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigError(f"keystore {path} may be read by others (mode {mode:o}); chmod it to 600")
        return file.read(_MAX_FILE)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
