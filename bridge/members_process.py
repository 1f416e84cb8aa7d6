"""The process that deals with the other members of a consortium: "members-0".

    main         waits
    follow       writes down what the shared log says of sharing, and gives up what has ended
    deliver      brings what this node granted to the members
    take-in      pulls and takes in what they granted
    replication  keeps sealed copies for members, and has them keep this node's      bridge.replication
    emergencies  tells and answers who broke the glass, and ends what is over         bridge.emergencies

Ingest and viewing never wait for it. A work that waits for a member keeps no other waiting, and what is brought to one
member, or fetched from it, waits for no other member.
Everything that it does is written in the index before and after: killed at any step, it goes on from there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from bridge.config import Settings
from bridge.crypto.keystore import Keystore
from bridge.errors import CairnError, ConfigError
from bridge.member_lanes import MemberLanes
from bridge.node import Node
from bridge.replication import Replication
from bridge.services.deliver_share import deliver
from bridge.services.end_share import end_shares
from bridge.services.follow_shares import follow
from bridge.services.receive_share import take_in
from bridge.sharing import ending_of, receiver_of

__all__ = ["run"]

log = logging.getLogger(__name__)
IDLE_S: Final = 0.15
REPLICATION_S: Final = 0.5
AFTER_FAULT_S: Final = 2.0
LEFT_S: Final = 5.0
Work = Callable[[], object]


def run(settings: Settings, keystore: Keystore, name: str, ended: threading.Event, beat: Callable[[], None]) -> None:
    """Work as process `name` until `ended` is set. Raises ConfigError for a node that is in no consortium."""
    node = Node(settings, keystore, name, beat=beat)
    try:
        _Process(node).run(ended)
    finally:
        node.close()


class _Process:
    def __init__(self, node: Node) -> None:
        if node.sharing is None or node.glass is None:
            raise ConfigError("this node is in no consortium, or has no certificate to show to its members")
        sharing, followed = node.sharing, node.index.followed
        receiver = receiver_of(node, sharing)
        ending, glass = ending_of(node, receiver), node.glass
        self._stopped, self._broken = threading.Event(), threading.Event()
        bringing, fetching, asking, keeping, telling = (
            MemberLanes(name, self._fail) for name in ("deliver", "take-in", "replication", "keep", "emergencies")
        )
        replication = Replication(node, asking=asking, fetching=keeping)
        self._works: list[tuple[str, float, Work]] = [
            ("follow", IDLE_S, lambda: follow(sharing, followed) + end_shares(ending)),
            ("deliver", IDLE_S, lambda: deliver(sharing, bringing)),
            ("take-in", IDLE_S, lambda: take_in(receiver, fetching)),
            ("replication", REPLICATION_S, replication.step),
            ("emergencies", IDLE_S, lambda: glass.step(telling)),
        ]

    def run(self, ended: threading.Event) -> None:
        """Start the works, wait, and stop them; what waits for a member is left: it holds nothing."""
        threads = [threading.Thread(target=self._guarded, args=work, name=work[0], daemon=True) for work in self._works]
        for thread in threads:
            thread.start()
        while not ended.wait(0.2) and not self._broken.is_set():
            pass
        self._stopped.set()
        for thread in threads:
            thread.join(LEFT_S)
        if self._broken.is_set():
            raise SystemExit(1)  # to be started afresh

    def _fail(self) -> None:
        """Work of ours failed for no reason that is known: the process ends, unless it does already."""
        if not self._stopped.is_set():
            self._broken.set()

    def _guarded(self, name: str, pause: float, work: Work) -> None:
        """A work that fails for a reason of ours ends the process, which is started afresh: none ends unseen."""
        try:
            while True:
                if self._stopped.wait(self._step(name, pause, work)):
                    return
        except Exception:
            if not self._stopped.is_set():  # else what it worked with is being closed
                log.exception("a work of the members' process failed")
                self._broken.set()

    @staticmethod
    def _step(name: str, pause: float, work: Work) -> float:
        try:
            return 0.0 if work() else pause
        except CairnError as error:
            log.error("a work of the members' process is tried again", extra={"slug": error.slug, "worker": name})
            return AFTER_FAULT_S
