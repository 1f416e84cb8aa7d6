"""A node whose CometBFT has lost its blocks, while the shared log that came of them is there.

CometBFT cannot go on from where the log ends: it begins again, with a state of the others or the first block, and hands
everything over once more. So the log is set aside at the node's start, and the members give it again; nothing of it is
removed. What waits for its block, and is in nobody's log yet, is sealed again from the index.
"""

from __future__ import annotations

import logging
from contextlib import closing
from itertools import count
from pathlib import Path

from bridge.config import Settings
from bridge.consensus import home
from bridge.consensus.daemon import BLOCKS
from bridge.errors import StorageFault
from bridge.ledger_reading import shared_ledger_home
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError

__all__ = ["set_log_aside"]

log = logging.getLogger(__name__)


def set_log_aside(settings: Settings) -> Path | None:
    """Where the shared log is now, when it had to be set aside; None when all is as it should be.

    To be called while no process of the node runs. A CometBFT whose home lies elsewhere may only not be mounted, and is
    left as it is. Raises StorageFault.
    """
    cometbft, place = settings.ledger.cometbft, home.home_of(settings)
    held = shared_ledger_home(settings)
    if settings.ledger.engine == "solo" or not cometbft.managed or cometbft.home is not None:
        return None
    if (place / BLOCKS).exists() or home.takes_over(place) or not _has_blocks(held / DATABASE):
        return None
    aside = next(path for at in count(1) if not (path := held.with_name(f"{held.name}.set-aside-{at}")).exists())
    try:
        held.rename(aside)
    except OSError as error:
        raise StorageFault(f"{held} cannot be set aside: {error.strerror}") from error
    log.error(
        "CometBFT's blocks are gone: the shared log is set aside, and the other members give it again",
        extra={"where": str(aside)},
    )
    return aside


def _has_blocks(database: Path) -> bool:
    """Whether there is a log with blocks; one that is damaged is left to its own process to tell."""
    if not database.exists():
        return False
    try:
        with closing(BlockStore(database, readonly=True)) as store:
            return store.consensus().height > 0
    except LedgerError:
        return False
