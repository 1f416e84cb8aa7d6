"""A node's part in erasing studies: what the recipe of `services.erase` works with, and what carries it on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from bridge.config import Settings
from bridge.consortium_rotation import open_keys
from bridge.crypto import wrapping
from bridge.crypto.erasures import Asked, Erasures
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.errors import CairnError, ConfigError
from bridge.model import OPERATOR
from bridge.node import COMMAND, Node
from bridge.services.erase import Erasing, carry_on
from bridge.services.provenance import now_us

__all__ = ["begin_again", "carry_on_before_serving", "carry_on_erasures", "erasing_of", "goes_on", "tags_in"]

log = logging.getLogger(__name__)
LOCK: Final = "erase.lock"
FOLLOWED: Final = "erasures"
"""Under which name the shared log is followed."""


def erasing_of(node: Node) -> Erasing:
    """Who erases studies at a node."""
    settings, index = node.settings, node.index

    def kept_for_others(tag: bytes) -> bool:
        return any(row.kept is not None for row in index.replicas_in.of_tag(tag))

    return Erasing(
        keys=node.keys,
        erasures=node.erasures,
        index=index,
        forgetting=index.erasures,
        batches=node.batches,
        provenance=node.store.provenance,
        statements=node.statements,
        trees=index.trees,
        pins=index.pins.of_tree,
        content=node.content,
        audit_key=node.keystore.audit_key,
        owner=node.owner,
        sharing=node.sharing,
        kept_for_others=kept_for_others,
        require_unlocked=lambda: next(wrapping.candidates(settings.home, settings.keys.passphrase_file)),
        replace_key=partial(wrapping.replace_key, settings.home, settings.keys.passphrase_file),
        seal=partial(_seal, node),
        sealed_elsewhere=node.owner != COMMAND,
        alone=partial(_alone, settings.home),
        end_viewings=node.access.end_viewings,
        clock=now_us,
    )


def carry_on_erasures(node: Node) -> None:
    """End what was begun and did not end, as far as it can be done now; what fails is logged, and tried again."""
    try:
        begin_what_the_log_says(node)
        if node.erasures.going_on() or node.erasures.unreleased():
            carry_on(erasing_of(node), log.info)
    except CairnError as error:
        log.error("an erasure waits", extra={"slug": error.slug, "reason": error.detail})


def begin_what_the_log_says(node: Node) -> None:
    """Begin again what this node erased by the consortium's log and holds: its keys came back with an older backup.

    Raises StorageFault.
    """
    if node.consortium is None:
        return
    own = node.consortium.own()
    after = node.index.followed.position(FOLLOWED)
    for final in node.consortium.follow(after, ("study.erase",)) if own is not None else ():
        said = final.entry
        mine = own is not None and said.node == own.node and said.study is not None
        if mine and not node.erasures.knows(said.records_root):
            _begin_again(node.erasures, [said.study or b""])
        node.index.followed.advance(FOLLOWED, final.index)


def carry_on_before_serving(settings: Settings, keystore: Keystore) -> None:
    """The same while no process of the node runs yet, in a process of its own: nothing of the study is served again.

    To be called under the run lock, in a process without other threads, when an erasure goes on.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:  # what it was is told below, unless the process was killed
            log.error("an erasure waits: it could not be carried on before the start")
        return
    status = 1
    try:
        node = Node(settings, keystore, COMMAND)
        try:
            carry_on_erasures(node)
        finally:
            node.close()
        status = 0
    except Exception:  # the process's outermost frame: the node serves without it, and tries again
        log.exception("an erasure could not be carried on before the start")
    finally:
        os._exit(status)


def begin_again(settings: Settings, tags: Sequence[bytes]) -> None:
    """After a restore: begin the erasures of what was erased since the backup and is held again.

    To be called under the run lock. They are carried on by whoever opens the node next. Raises ConfigError,
    StorageFault.
    """
    keystore = open_keys(settings)
    newer = partial(wrapping.candidates, settings.home, settings.keys.passphrase_file)
    with closing(Keyring(settings.home / "keys" / "keys.db", keystore, newer)) as keys:
        _begin_again(Erasures(keys, keystore.audit_key), tags)


def _begin_again(erasures: Erasures, tags: Sequence[bytes]) -> None:
    why = "erased before; held again by a restored backup"
    erasures.begin_again(tags, Asked(OPERATOR.kind.value, OPERATOR.name, OPERATOR.how, why), now_us())


def tags_in(file: Path) -> list[bytes]:
    """The tags that a file names, as `cairn study erasures --json` printed it. Raises ConfigError for another file."""
    try:
        return [bytes.fromhex(row["tag"]) for row in json.loads(file.read_bytes())["erasures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is not what `cairn study erasures --json` prints") from error


def goes_on(keys: Keyring, keystore: Keystore) -> bool:
    """Whether an erasure was begun and has not ended. Raises StorageFault."""
    return bool(Erasures(keys, keystore.audit_key).going_on())


def _seal(node: Node) -> None:
    """Where no ledger's process runs: its entry is made here, unless a consortium orders it."""
    if node.owner == COMMAND:
        from bridge.sealing_process import seal_closed

        seal_closed(node.settings, node.keystore, begin=False)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One erasure at a time: a command waits for what is carried on behind it."""
    path = home / "run" / LOCK
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
