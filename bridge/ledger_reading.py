"""How the node names itself in the ledger, and how its records are opened to check them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bridge.config import Settings
from bridge.crypto import derive, records
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.errors import ContentCorrupt, DatabaseDamaged, StorageFault
from bridge.index.database import Place, PostgresqlPlace, open_database
from bridge.index.record_source import SqlRecordSource
from bridge.model import SealedRecord
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError, RecordUnreadable, StoreDamaged, StoreFault
from ledger.keys import SigningKey
from ledger.store import LedgerStore

TAG_SIZE = 16


def ledger_home(settings: Settings) -> Path:
    """Where the ledger's database, tiles and checkpoint lie."""
    return settings.home / "ledger"


def shared_ledger_home(settings: Settings) -> Path:
    """Where the consortium's log lies, as this node holds it."""
    return settings.home / "consortium" / "ledger"


def unreadable(what: str, error: Exception) -> StorageFault:
    """Why a ledger's database cannot be read: it is damaged when it holds what no ledger wrote, else disk or database
    failed."""
    failed = isinstance(error, StoreFault) and not isinstance(error, StoreDamaged)
    if isinstance(error, LedgerError) and not failed:
        return DatabaseDamaged(f"{what} is damaged: {error}")
    return StorageFault(f"{what} cannot be read ({type(error).__name__})")


def current_database(settings: Settings) -> Path:
    """The database of the log that this node's entries go to: the shared one in a consortium, else its own."""
    return (ledger_home(settings) if settings.ledger.engine == "solo" else shared_ledger_home(settings)) / DATABASE


def index_place(settings: Settings) -> Place:
    """Where the index's database is."""
    url = settings.index.url
    if url is not None and url.startswith("postgresql:"):
        return PostgresqlPlace(url, settings.home)
    return settings.home / "index.db"


def try_index(settings: Settings) -> None:
    """Open an index in PostgreSQL once, to tell at a start what is wrong with it. Errors as `open_database`."""
    place = index_place(settings)
    if not isinstance(place, Path):
        open_database(place).close()


def origin_of(settings: Settings, keystore: Keystore) -> str:
    """The log's name in its checkpoints (C2SP tlog-checkpoint origin)."""
    return settings.ledger.origin or f"cairn/{keystore.node_id.hex()}"


def public_key(keystore: Keystore) -> bytes:
    """The key that this node's entries and its log are verified with."""
    return SigningKey(keystore.signing_seed).public_key()


def actor_tags(keystore: Keystore) -> Callable[[str, str], bytes]:
    """(what, text) -> 16-byte tag: HMAC-SHA256 under the node's actor key, so that a name cannot be guessed from it."""

    def tag(what: str, text: str) -> bytes:
        return hmac.digest(keystore.actor_tag_key, f"{what}\0{text}".encode(), hashlib.sha256)[:TAG_SIZE]

    return tag


def opener(keys: Keyring, keystore: Keystore) -> Callable[[str | None, SealedRecord], bytes | None]:
    """(study, sealed record) -> the record's bytes; None when no key of the study is held. Raises RecordUnreadable."""
    node_key = derive.node_record_key(keystore.audit_key)

    def open_(study: str | None, record: SealedRecord) -> bytes | None:
        candidates = [node_key] if study is None else [derive.record_key(key) for key in keys.held(study)]
        damaged: ContentCorrupt | None = None
        for key in candidates:
            try:
                return records.open_record(key, record)
            except ContentCorrupt as error:
                damaged = error
        if damaged is not None:
            raise RecordUnreadable(damaged.detail) from damaged
        return None

    return open_


def record_source(settings: Settings, keys: Keyring, keystore: Keystore) -> SqlRecordSource:
    """The ledger's view of the index, with the records opened; to be closed by who asks."""
    return SqlRecordSource(index_place(settings), actor_tags(keystore), opener(keys, keystore))


def ledger_is_empty(settings: Settings) -> bool:
    """Whether the ledger has no entry; one that cannot be read has some. To be asked while nothing writes it."""
    path = current_database(settings)
    if not path.exists():
        return True
    try:
        with closing(LedgerStore(path, readonly=True)) as store:
            return store.size() == 0
    except LedgerError:
        return False


def renew_lost_epoch(settings: Settings) -> bool:
    """Whether the index holds less than the ledger has sealed of it, as after a rollback; it then gets a new epoch.

    Called before anything writes. Raises StorageFault; a ledger that cannot be read is left to its own process to tell.
    """
    return any(_renew_below(settings, home) for home in (ledger_home(settings), shared_ledger_home(settings)))


def _renew_below(settings: Settings, home: Path) -> bool:
    """`renew_lost_epoch` by one log of the node; a node's own is closed when it goes on in a shared one."""
    path = home / DATABASE
    if not path.exists():
        return False
    try:
        with closing(LedgerStore(path, readonly=True)) as store:
            cursor = store.state().cursor
    except LedgerError:
        return False
    with closing(open_database(index_place(settings))) as database:
        return database.epoch == cursor.epoch and database.renew_epoch_below(cursor.id)
