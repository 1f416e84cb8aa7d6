"""A node's own log when it joins a consortium: settled, closed for good, its end stated in the shared log."""

from __future__ import annotations

from contextlib import closing, suppress

from bridge.config import Settings
from bridge.crypto.keystore import Keystore
from bridge.errors import ConfigError
from bridge.ledger_reading import ledger_home, origin_of, shared_ledger_home
from ledger.block_store import BlockStore
from ledger.engine.cometbft import Closed
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import LedgerError
from ledger.keys import SigningKey
from ledger.store import LedgerStore


def closed_log(settings: Settings, keystore: Keystore) -> tuple[Closed, LedgerStore]:
    """The node's own log at its end, settled, and its database; an empty one is made when there is none."""
    place = ledger_home(settings)
    signer = SigningKey(keystore.signing_seed)
    if not _joined(settings):
        SoloEngine(place, signer, origin_of(settings, keystore)).close()
    former = LedgerStore(place / DATABASE, readonly=True)
    try:
        return Closed.of(former), former
    except BaseException:
        former.close()
        raise


def _joined(settings: Settings) -> bool:
    """Whether this node has made its first entry in the shared log: its own log is closed for good then."""
    path = shared_ledger_home(settings) / DATABASE
    if not path.exists() or not (ledger_home(settings) / DATABASE).exists():
        return False
    with suppress(LedgerError), closing(BlockStore(path, readonly=True)) as store:
        return store.size() > 0 or store.waiting() > 0
    return False


def refuse_reopening(settings: Settings) -> None:
    """Raise ConfigError when the node's own log is to go on although it was closed by joining a consortium."""
    if settings.ledger.engine == "solo" and _joined(settings):
        raise ConfigError(
            "ledger.engine is solo, but this node's own log was closed when it joined a consortium; "
            'set it to "cometbft"'
        )
