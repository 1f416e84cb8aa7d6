"""The Consortium port over the shared log's database: members, proposals and final entries, as this node holds them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bridge.config import Settings
from bridge.crypto.keystore import Keystore
from bridge.errors import ConfigError
from bridge.ledger_reading import public_key, unreadable
from bridge.model import FinalEntry
from ledger import genesis as ledger_genesis
from ledger import keys, members
from ledger.block_store import Proved
from ledger.errors import LedgerError, NotMadeYet
from ledger.genesis import Genesis
from ledger.members import Member, Proposal, State
from ledger.shared_log import SharedLog

FOLDER: Final = "consortium"
GENESIS: Final = "genesis.json"
CARD: Final = "card"
DATABASE: Final = Path("ledger") / "ledger.db"
AT_ONCE: Final = 500
"""Entries that `follow` gives at once."""


def folder(home: Path) -> Path:
    """Where a node keeps what belongs to its consortium."""
    return home / FOLDER


def read_genesis(home: Path) -> Genesis:
    """The genesis that this node was set up with. Raises ConfigError when it is missing or is none."""
    path = folder(home) / GENESIS
    try:
        return ledger_genesis.from_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing: cairn consortium init or join makes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})") from error
    except LedgerError as error:
        raise ConfigError(f"{path}: {error.detail}") from error


class SharedConsortium:
    """`bridge.ports.Consortium` of the node at `home`, whose ledger keys these are (32 bytes each, the first in use).

    The database is opened when it is there, and what was read of the state is kept until it has changed. Thread-safe.
    Raises ConfigError when there is no genesis.
    """

    def __init__(self, home: Path, own_keys: Sequence[bytes]) -> None:
        self.genesis = read_genesis(home)
        self._path = folder(home) / DATABASE
        self._own = tuple(own_keys)
        self._lock = threading.Lock()
        self._log: SharedLog | None = None
        self._state = members.initial(self.genesis)
        self._height = 0
        self._looked: dict[tuple[str, ...], tuple[int, int]] = {}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._log is not None:
                self._log.close()
            self._log = None

    def own(self) -> Member | None:
        """As the port."""
        state = self.state()
        return next((found for key in self._own if (found := state.of_key(key)) is not None), None)

    def members(self) -> Sequence[Member]:
        """As the port."""
        return sorted(self.state().members.values(), key=lambda member: (not member.active, member.name))

    def entry(self, id: bytes) -> FinalEntry | None:
        """As the port."""
        with self._reading() as log:
            return None if log is None else log.entry(id)

    def follow(self, after: int, types: Sequence[str]) -> Sequence[FinalEntry]:
        """As the port. What was looked through for these types before is not read again."""
        asked = tuple(sorted(types))
        with self._reading() as log:
            if log is None or not asked:
                return ()
            of, seen = self._looked.get(asked, (after, after))
            found, upto = log.follow(seen if of == after else after, asked, AT_ONCE)
            self._looked[asked] = (found[-1].index, max(upto, found[-1].index)) if found else (after, upto)
            return found

    def proposals(self) -> Sequence[Proposal]:
        """As the port."""
        return self.state().proposals

    def state(self) -> State:
        """As the port."""
        with self._reading() as log:
            if log is not None and log.changed():
                self._height, state = log.state()
                self._state = members.initial(self.genesis) if state is None else state
            return self._state

    def height(self) -> int:
        """CometBFT's height of the last block that left something; 0 before the first."""
        self.state()
        return self._height

    def evidence(self) -> Sequence[Proved]:
        """All that was proved against members, in order."""
        with self._reading() as log:
            return () if log is None else log.evidence()

    def made(self, root: bytes, final: bool) -> bytes | None:
        """As the port."""
        own = self.own()
        with self._reading() as log:
            return None if log is None or own is None else log.made(own.node, root, final)

    @contextmanager
    def _reading(self) -> Iterator[SharedLog | None]:
        """The log, opened when it is there; what goes wrong is a StorageFault, and it is opened again next time."""
        with self._lock:
            try:
                if self._log is None and self._path.exists():
                    with suppress(NotMadeYet):
                        self._log = SharedLog(self._path)
                    self._looked.clear()
                yield self._log
            except (LedgerError, OSError) as error:
                if self._log is not None:
                    self._log.close()
                self._log = None
                raise unreadable("the shared log", error) from error


def own_consortium(settings: Settings, keystore: Keystore) -> SharedConsortium | None:
    """The consortium of a node; None when its ledger is its own alone. Raises ConfigError when there is no genesis."""
    if settings.ledger.engine == "solo":
        return None
    return SharedConsortium(settings.home, [keys.raw(public_key(keystore))])
