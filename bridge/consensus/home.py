"""CometBFT's home on the disk: keys that are made once, and what is written anew before every start.

config/node_key.json              who this node is among CometBFT's peers
config/priv_validator_key.json    what it signs blocks with; a key of its own, not that of its entries
data/priv_validator_state.json    what it signed last, so that it never signs two blocks for one height
config/genesis.json, config.toml  from the consortium's genesis and the settings
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bridge.config import Settings
from bridge.consensus import configuration
from bridge.consensus.configuration import StateSync
from bridge.errors import ConfigError
from ledger.genesis import Genesis

NODE_KEY: Final = Path("config/node_key.json")
VALIDATOR_KEY: Final = Path("config/priv_validator_key.json")
VALIDATOR_STATE: Final = Path("data/priv_validator_state.json")
GENESIS: Final = Path("config/genesis.json")
CONFIG: Final = Path("config/config.toml")
TAKES_OVER: Final = "cairn-takes-over"
KEPT_NODE_KEY: Final = Path("consortium/node_key.json")
"""Beside the card, which names it: without it nobody lets a CometBFT in whose home was lost and made anew."""


class Identity(NamedTuple):
    """The public halves: the Ed25519 key that blocks are signed with (32 bytes), and the id among CometBFT's peers."""

    consensus: bytes
    node_id: str


def home_of(settings: Settings) -> Path:
    """Where this node's CometBFT keeps its files."""
    return settings.ledger.cometbft.home or settings.home / "consortium" / "cometbft"


def abci_of(settings: Settings) -> str:
    """Where CometBFT finds the application, as CometBFT's `proxy_app` names it."""
    return settings.ledger.cometbft.abci or f"unix://{settings.home / 'run' / 'abci.sock'}"


def keys_of(settings: Settings) -> Identity:
    """As `make_keys` in the home of this node's CometBFT, which is who it was among peers when that home was lost."""
    home, kept = home_of(settings), settings.home / KEPT_NODE_KEY
    if not (home / NODE_KEY).exists() and kept.exists():
        write(home / NODE_KEY, _read(kept))
    own = make_keys(home)
    write(kept, _read(home / NODE_KEY))
    return own


def make_keys(home: Path) -> Identity:
    """Make the keys that are not there, 0600 and durable, and tell the public halves.

    Raises ConfigError as `identity` does: a validator's key whose state was lost is never used again by itself.
    """
    if not (home / NODE_KEY).exists():
        write(home / NODE_KEY, configuration.node_key(secrets.token_bytes(32)))
    if not (home / VALIDATOR_KEY).exists():
        # The state first: there is no moment in which a key stands there without one.
        write(home / VALIDATOR_STATE, configuration.validator_state())
        write(home / VALIDATOR_KEY, configuration.validator_key(secrets.token_bytes(32)))
    return identity(home)


def identity(home: Path) -> Identity:
    """The public halves of the keys. Raises ConfigError when a file is missing or is none."""
    node = configuration.public_key(_read(home / NODE_KEY))
    validator = configuration.public_key(_read(home / VALIDATOR_KEY))
    if not (home / VALIDATOR_STATE).exists():
        raise ConfigError(
            f"{home / VALIDATOR_STATE} is missing: what this validator signed last is not known, so it could sign two "
            "blocks for one height, which counts as an attack. It goes on by itself when all other validators tell "
            f"their newest block; else restore the file from this disk, or remove {home / VALIDATOR_KEY} and have the "
            "members vote for a new key"
        )
    return Identity(validator, configuration.node_id(node))


def forgot_votes(home: Path) -> bytes | None:
    """The address of a validator whose key is there and what it signed last is not; None where all is as it should.

    Raises ConfigError when the key cannot be read.
    """
    if not (home / VALIDATOR_KEY).exists() or (home / VALIDATOR_STATE).exists():
        return None
    return hashlib.sha256(configuration.public_key(_read(home / VALIDATOR_KEY))).digest()[:20]


def write_files(
    settings: Settings, genesis: Genesis, name: str, peers: Sequence[str], state_sync: StateSync | None = None
) -> Identity:
    """Write what CometBFT starts from, keys made where there are none: genesis.json and config.toml.

    `name` is the member's, `peers` are the members' addresses (`id@host:port`), its own among them or not.
    Raises ConfigError when the settings cannot be met, and as `make_keys` and `write_genesis`.
    """
    home = home_of(settings)
    own = keys_of(settings)
    others = [peer for peer in peers if not peer.startswith(f"{own.node_id}@")]
    cometbft, abci = settings.ledger.cometbft, abci_of(settings)
    text = configuration.config_toml(cometbft, abci, name, others, genesis.parameters, state_sync)
    write_genesis(home, configuration.genesis_of(genesis))
    write(home / CONFIG, text)
    return own


def write_genesis(home: Path, text: str) -> None:
    """Write genesis.json. Raises ConfigError when another one stands there: the blocks beside it are of that one."""
    path = home / GENESIS
    if path.exists() and path.read_text("utf-8") != text:
        raise ConfigError(f"{path} is of another consortium; CometBFT's home is never used for two")
    write(path, text)


def forget_blocks(home: Path) -> None:
    """Remove blocks and state, so that CometBFT takes over another's; what the validator signed last stays.

    CometBFT must not run. It makes empty databases before it takes anything over: until it has, `takes_over`.
    """
    write(home / TAKES_OVER, "until CometBFT has a block again\n")
    folder = home / VALIDATOR_STATE.parent
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != VALIDATOR_STATE.name:
            path.unlink()


def takes_over(home: Path) -> bool:
    """Whether blocks were forgotten, and no state was taken over since."""
    return (home / TAKES_OVER).exists()


def took_over(home: Path) -> None:
    """CometBFT has a block again."""
    (home / TAKES_OVER).unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Replace a file of CometBFT's home, 0600, durably and whole; nothing when it says this already."""
    if path.exists() and path.read_text("utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
