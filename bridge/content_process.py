"""The process that keeps the archive in its content engine, whatever happens to that: "content-0".

    main      watches a Kubo of ours
    health    asks the engine how it fares, writes down what is wrong (`content_fault`)
    upkeep    brings trees to the engine, reads them back, trims the spool       services.keep_content
    scrub     reads everything once in a long while                             services.scrub
    control   `cairn content repair`, on CAIRN_HOME/run/content.sock

With the embedded engine there is nothing beside the packs: only the scrub runs. Ingest and viewing never wait for this
process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from bridge import control
from bridge.config import Settings
from bridge.content.room import short_of_room
from bridge.crypto.keystore import Keystore
from bridge.errors import CairnError, ConfigError
from bridge.node import Node
from bridge.services.keep_content import ContentEngine, Upkeep
from bridge.services.provenance import now_us
from bridge.services.repair_content import repair

__all__ = ["SOCKET", "repaired", "run", "upkeep_of"]

log = logging.getLogger(__name__)
SOCKET: Final = "content.sock"
TICK_S: Final = 0.5
IDLE_S: Final = 1.0
HEALTH_S: Final = 3.0
ERASING_S: Final = 5.0
AFTER_FAULT_S: Final = 5.0
DRAIN_S: Final = 15.0
EMBEDDED: Final = "embedded"


def run(settings: Settings, keystore: Keystore, name: str, ended: threading.Event, beat: Callable[[], None]) -> None:
    """Work as process `name` until `ended` is set; a managed Kubo is the child of the thread that calls."""
    node = Node(settings, keystore, name, beat=beat)
    try:
        _Process(node).run(ended)
    finally:
        node.close()


def upkeep_of(node: Node) -> Upkeep | None:
    """What keeps the archive in the node's engine; None with the embedded one, beside which there is nothing."""
    if node.settings.content.engine == EMBEDDED:
        return None
    index, packs, settings = node.index, node.settings.home / "packs", node.settings.content
    return Upkeep(
        index.keeping,
        index.pins,
        cast(ContentEngine, node.content),
        packs,
        settings.spool_bytes,
        is_full=lambda: bool(short_of_room({"packs": packs}, settings.reserve_bytes)),
    )


def repaired(node: Node, upkeep: Upkeep, report: Callable[[str], None]) -> dict[str, object]:
    """As `services.repair_content.repair`, of a node."""

    def study_of(root: bytes) -> str | None:
        tree = node.index.trees.by_root(root)
        return tree.study if tree is not None else None

    return repair(upkeep, node.index.pins, study_of, report)


class _Process:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._upkeep = upkeep_of(node)
        self._stopped, self._broken = threading.Event(), threading.Event()
        self._watch = _watch(node.settings)
        self._not_served = self._watch.reason if self._watch is not None else None

    def run(self, ended: threading.Event) -> None:
        node = self._node
        watch = self._watch
        works = [("health", self._ask), ("scrub", self._scrub), ("erasures", self._erase)]
        works += [("upkeep", self._keep)] if self._upkeep else []
        threads = [threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True) for name, work in works]
        for thread in threads:
            thread.start()
        commander = control.ControlServer(node.settings.home / "run" / SOCKET, self._perform)
        try:
            while not ended.wait(TICK_S) and not self._broken.is_set():
                if watch is not None:
                    watch.step()
                    self._not_served = watch.reason
            if self._broken.is_set():
                raise SystemExit(1)  # to be started afresh
        finally:
            self._stopped.set()
            commander.close()
            if watch is not None:
                watch.end(DRAIN_S)
            for thread in threads:  # what waits for an engine that does not answer is left: it holds nothing
                thread.join(IDLE_S)

    def _guarded(self, work: Callable[[], None]) -> None:
        """A work that fails for a reason of ours ends the process, which is started afresh: none ends unseen."""
        try:
            work()
        except Exception:
            if not self._stopped.is_set():  # else what it worked with is being closed
                log.exception("a work of the content process failed")
                self._broken.set()

    def _ask(self) -> None:
        """Ask the engine from time to time how it fares, and write down what is wrong."""
        before: Sequence[str] = ()
        while True:
            try:
                told = self._not_served
                reasons = (told,) if told is not None else self._node.content.status().reasons
                if before and not reasons and self._upkeep is not None:
                    self._upkeep.engine_is_back()
                before = reasons
                self._record(self._upkeep.faults(reasons) if self._upkeep is not None else self._embedded(reasons))
            except CairnError as error:
                log.error("how the content engine fares cannot be written down", extra={"slug": error.slug})
            if self._stopped.wait(HEALTH_S):
                return

    def _embedded(self, reasons: Sequence[str]) -> dict[str, str]:
        trimmed = len(self._node.index.content_state.trimmed())
        wrong = {"engine": "; ".join(reasons)} if reasons else {}
        if lost := len(self._node.index.scrub.lost()):
            studies = "1 study is" if lost == 1 else f"{lost} studies are"
            wrong["blocks"] = f"{studies} not whole: cairn fsck --content says which blocks"
        if trimmed:
            wrong["spool"] = f"{trimmed} packs were trimmed, for Kubo has them, and content.engine is embedded now"
        return wrong

    def _record(self, wrong: Mapping[str, str]) -> None:
        state = self._node.index.content_state
        held = {fault.name: fault.reason for fault in state.faults()}
        state.report(wrong, now_us())
        for name in sorted(wrong.keys() - held.keys()):
            log.warning("content: %s", wrong[name], extra={"fault": name})
        for name in sorted(held.keys() - wrong.keys()):
            log.warning("content: this is over: %s", held[name], extra={"fault": name})

    def _keep(self) -> None:
        assert self._upkeep is not None
        wait = 0.0
        while not self._stopped.wait(wait):
            try:
                wait = 0.0 if self._not_served is None and self._upkeep.step() is not None else IDLE_S
            except CairnError as error:
                log.error("what is to be kept cannot be looked up", extra={"slug": error.slug})
                wait = AFTER_FAULT_S

    def _scrub(self) -> None:
        from bridge.services.scrub import Scrub

        scrub = Scrub(self._node)
        while not self._stopped.wait(scrub.step()):
            pass

    def _erase(self) -> None:
        """Carry on erasures that wait: for the ledger, for readers of a database, for the engine to let go."""
        from bridge.erasing import carry_on_erasures

        while not self._stopped.wait(ERASING_S):
            carry_on_erasures(self._node)

    def _perform(self, command: str, arguments: Mapping[str, Any], report: Callable[[str], None]) -> object:
        if command != "repair" or self._upkeep is None:
            raise ConfigError(f"the content process knows no command {command}")
        return repaired(self._node, self._upkeep, report)


def _watch(settings: Settings) -> Any:
    """The watch over a Kubo of ours, nothing started yet; None when there is none."""
    if settings.content.engine == EMBEDDED or not settings.content.kubo.managed:
        return None
    from bridge.child_watch import Watch
    from bridge.content.kubo.daemon import ManagedKubo
    from bridge.content.kubo.watch import MANNER

    return Watch(ManagedKubo(settings, settings.home), MANNER)
