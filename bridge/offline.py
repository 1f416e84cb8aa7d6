"""Opening a node's stores from a command, while no node runs and only while holding the run lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from bridge import start_stop
from bridge.config import Settings
from bridge.crypto.keystore import Keystore, open_keystore
from bridge.errors import ConfigError
from bridge.ledger_reading import ledger_is_empty
from bridge.node import COMMAND, Node
from bridge.runlock import RunLock
from bridge.services import rebuild_index
from bridge.services.access import SYSTEM


@contextlib.contextmanager
def opened(settings: Settings, *, create: bool) -> Iterator[Node]:
    """The node's stores under the run lock.

    Raises InUse when a node runs but cannot be asked, ConfigError when there is none at CAIRN_HOME and `create` is not
    given: a mistyped home must not look like an empty archive.
    """
    if not create:
        _require_keystore(settings)
    with RunLock(settings.home):
        node = Node(settings, _keystore(settings), COMMAND)
        try:
            if create and ledger_is_empty(settings):
                start_stop.record_keys(node, SYSTEM)
            yield node
        finally:
            node.close()


def rebuilt(settings: Settings, report: Callable[[str], None]) -> dict[str, int]:
    """Set the index aside and make it again. Raises InUse when a node runs, ConfigError without a keystore."""
    _require_keystore(settings)
    with RunLock(settings.home):
        old = rebuild_index.set_aside(settings.home)
        if old:
            report(f"the old index is now {old}")
        node = Node(settings, _keystore(settings), COMMAND)
        try:
            return rebuild_index.rebuild_index(node, report)
        finally:
            node.close()


def _require_keystore(settings: Settings) -> None:
    if not (settings.home / "keys" / "keystore.json").exists():
        raise ConfigError(f"{settings.home} holds no node (keys/keystore.json is missing); is CAIRN_HOME right?")


def _keystore(settings: Settings) -> Keystore:
    return open_keystore(settings.home, settings.keys.passphrase_file)
