"""Opening a node's stores from a command, while no node runs and only while holding the run lock."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from bridge import lost_keys, start_stop, unfinished
from bridge.config import Settings
from bridge.consortium_rotation import open_keys
from bridge.crypto.keystore import Keystore
from bridge.erasing import carry_on_erasures
from bridge.errors import CapacityError, ConfigError, EngineFault, StorageFault
from bridge.index.aside import set_aside
from bridge.ledger_reading import index_place, ledger_is_empty
from bridge.node import COMMAND, Node
from bridge.runlock import RunLock
from bridge.services import rebuild_index
from bridge.services.access import SYSTEM

log = logging.getLogger(__name__)
KUBO_STARTS_S, KUBO_ASKED_S = 60.0, 0.1
PATIENCE_S = 0.25
REBUILD = "rebuild-index"


@contextlib.contextmanager
def opened(settings: Settings, *, create: bool, content: bool = False, seal: bool = False) -> Iterator[Node]:
    """The node's stores under the run lock; with `content`, a Kubo of the node's own runs for that long.

    With `seal`, what is recorded has its entry when this ends. Not for who only looks: a missing one would be mended.

    Raises InUse when a node runs but cannot be asked, ConfigError when there is none at CAIRN_HOME and `create` is not
    given: a mistyped home must not look like an empty archive. Raises EngineFault when that Kubo does not start.
    """
    if not create:
        _require_keystore(settings)
    with RunLock(settings.home, PATIENCE_S), managed_kubo(settings) if content else contextlib.nullcontext():
        unfinished.refuse(settings.home)
        node = Node(settings, _keystore(settings), COMMAND)
        try:
            if create and ledger_is_empty(settings):
                start_stop.record_keys(node, SYSTEM)
            if seal:
                carry_on_erasures(node)
                _seal(node, begin=create)
            yield node
        finally:
            node.close()
            if seal:
                _seal(node, begin=create)


def _seal(node: Node, *, begin: bool) -> None:
    """Make entries of what was recorded: nobody else does while no node runs, and records must not wait for one."""
    from bridge.sealing_process import seal_closed

    try:
        seal_closed(node.settings, node.keystore, begin=begin)
    except (StorageFault, CapacityError) as error:
        log.error("sealing waits for the node's next start", extra={"slug": error.slug, "reason": error.detail})


def rebuilt(settings: Settings, report: Callable[[str], None]) -> dict[str, int]:
    """Set the index aside and make it again.

    Raises InUse when a node runs, ConfigError without a keystore, EngineFault when Kubo, which may hold some of the
    archive alone, does not answer, DatabaseDamaged when the keys are lost; the index is set aside only after that.
    """
    _require_keystore(settings)
    with RunLock(settings.home), managed_kubo(settings):
        _require_kubo(settings)
        former = unfinished.begun(settings.home)
        if former is not None and former[0] != REBUILD:
            unfinished.refuse(settings.home)
        lost_keys.refuse(settings, of_readable_index=True)
        with unfinished.until_done(settings.home, REBUILD):
            old = set_aside(index_place(settings))
            if old:
                report(f"the old index is now {old}")
            node = Node(settings, _keystore(settings), COMMAND)
            try:
                return rebuild_index.rebuild_index(node, report)
            finally:
                node.close()


@contextlib.contextmanager
def managed_kubo(settings: Settings) -> Iterator[None]:
    """Run the node's own Kubo, when it has one. Raises EngineFault when it does not start, or not in a minute."""
    if settings.content.engine == "embedded" or not settings.content.kubo.managed:
        yield
        return
    from bridge.content.kubo.daemon import ManagedKubo

    kubo = ManagedKubo(settings, settings.home)
    try:
        kubo.prepare()
        kubo.start()
        until = time.monotonic() + KUBO_STARTS_S
        while not kubo.ready():
            if time.monotonic() > until:
                raise EngineFault(f"Kubo does not start: {kubo.last_words()}")
            time.sleep(KUBO_ASKED_S)
        yield
    finally:
        kubo.stop()


def _require_kubo(settings: Settings) -> None:
    if settings.content.engine == "embedded":
        return
    from bridge.content.kubo.control import Control

    control = Control(settings.content.kubo)
    try:
        control.version()
    finally:
        control.close()


def _require_keystore(settings: Settings) -> None:
    if not (settings.home / "keys" / "keystore.json").exists():
        raise ConfigError(f"{settings.home} holds no node (keys/keystore.json is missing); is CAIRN_HOME right?")


def _keystore(settings: Settings) -> Keystore:
    return open_keys(settings)
