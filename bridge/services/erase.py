"""A study erased (crypto-shredding): its keys are destroyed, and nothing here tells of it any more.

    (1) that it goes on, durably: from here on no key of the study is made or taken in, so that nothing new of it begins
    (2) what this node granted of it is revoked: while its keys are there, for the entries to name its tag
    (3) the entries `study.erase`, one for each of its tags: durable, and sealed by the ledger, before a key goes
    (4) the keys deleted, and their bytes overwritten
    (5) the key-encryption key replaced, every other study key wrapped anew: no copy of a deleted row opens any more
    (6) the grants it was held by end: `share.end` attests that the keys are gone
    (7) the index forgets it, and its log is cut
    (8) it has ended: a mark is left, by which whoever asks for the study is told that it was erased
    (9) the content engine lets go of its roots

Killed between any two, it is carried on from (2) at the next start, or by asking again; each step done twice is done
once. Sealed blocks lie in packs and elsewhere as before: without the key they are noise. It cannot reach whoever was
given the study, what was exported, or an older backup; those who ask for it are told so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from bridge import crash
from bridge.content.pins import Pin
from bridge.crypto import derive
from bridge.crypto.erasures import Asked, Erasure, Erasures
from bridge.crypto.keyring import Keyring
from bridge.errors import Busy, CairnError, Gone, NotFound
from bridge.model import Actor, ActorKind, Batch, BatchClosing
from bridge.ports import ContentStore, Index
from bridge.services import share
from bridge.services.access import SYSTEM
from bridge.services.close_batch import Batches, OpenBatch
from bridge.services.provenance import Clock, Provenance, by, iso
from bridge.services.share import Sharing, Trees
from bridge.services.statement import Statements
from bridge.share_model import Given, GivenState, Received
from ledger import merkle

__all__ = ["Erased", "Erasing", "Forgetting", "carry_on", "erase", "let_go", "refuse_erased"]

log = logging.getLogger(__name__)
Report = Callable[[str], None]
SEALED_S: Final = 20.0
TIMES: Final = 20
"""How often a database's log is cut again while somebody reads it; each time it has waited for a second or more."""


class Forgetting(Protocol):
    """What the index does, as `bridge.index.erasures.Erasures`."""

    def fact(self, batch: bytes) -> tuple[bytes, bool] | None:
        """Of a batch of one record, by its id: the record's leaf hash, and whether it is closed; None without it."""

    def forget(self, study: str, tags: Sequence[bytes], kept_for_others: Callable[[bytes], bool], now: int) -> int:
        """Forget all trees of a study, and its name wherever else it stands; how many instances went."""

    def empty_log(self) -> None:
        """Cut the log of what was deleted. Raises Busy: do it again."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """What the recipe works with.

    `sharing` is None where the node is in no consortium. `replace_key` does (5); `require_unlocked` raises ConfigError
    when it could not. `seal` has the ledger seal what is recorded where no process of its own does; `sealed_elsewhere`
    is whether one does. `alone` keeps others from erasing at once; `end_viewings` ends what this process has open of a
    study.
    """

    keys: Keyring
    erasures: Erasures
    index: Index
    forgetting: Forgetting
    batches: Batches
    provenance: Provenance
    statements: Statements
    trees: Trees
    pins: Callable[[int], Sequence[Pin]]
    content: ContentStore
    audit_key: bytes
    owner: str
    sharing: Sharing | None
    kept_for_others: Callable[[bytes], bool]
    require_unlocked: Callable[[], object]
    replace_key: Callable[[], int]
    seal: Callable[[], None]
    sealed_elsewhere: bool
    alone: Callable[[], AbstractContextManager[None]]
    end_viewings: Callable[[str], None]
    clock: Clock


class Erased(NamedTuple):
    """What was done: instances forgotten, keys destroyed, how many other keys were wrapped anew, the entries' ids.

    An id is None while its entry is not sealed. `told`: the members who were given the study, and had it when it was
    erased, as far as they have said. `released`: whether the content engine has let go of it.
    """

    instances: int
    keys: int
    wrapped_anew: int
    tags: tuple[bytes, ...]
    entries: tuple[bytes | None, ...]
    told: tuple[str, ...]
    released: bool


def erase(erasing: Erasing, actor: Actor, study: str, reason: str, report: Report) -> Erased:
    """(1) to (9). Raises NotFound for a study that is not held, Gone for one that was erased, ConfigError when the
    keystore cannot be unlocked, which (5) needs; Busy, StorageFault when it waits for something: it is carried on at
    the next start, or when it is asked for again.
    """
    asked = Asked(actor.kind.value, actor.name, actor.how, reason)
    erasing.require_unlocked()
    with erasing.alone():
        begun = erasing.erasures.begin(study, asked, erasing.clock())  # (1)
        if begun is None:
            refuse_erased(erasing.erasures, study)
            raise NotFound("no such study is held")
        crash.step("erase.1")
        return _carry_out(erasing, begun, report)


def carry_on(erasing: Erasing, report: Report) -> int:
    """End what was begun and has not ended, and have the engine let go; how many erasures ended. Errors as `erase`."""
    with erasing.alone():
        going_on = erasing.erasures.going_on()
        for one in going_on:
            report("an erasure that was interrupted is carried on")
            _carry_out(erasing, one, report)
        let_go(erasing)
        return len(going_on)


def refuse_erased(erasures: Erasures, study: str, tag: bytes | None = None) -> None:
    """Raise Gone when a study was erased here, or is being (PS3.18 8.5: 410 rather than 404); of a tag, if that was.

    Raises StorageFault.
    """
    at = erasures.erased(study) if tag is None or erasures.is_gone(tag) else None
    if at is not None:
        raise Gone(f"The study was erased here on {iso(at)}")


def _carry_out(erasing: Erasing, one: Erasure, report: Report) -> Erased:
    """(2) to (9)"""
    actor = _actor(one.asked)
    erasing.end_viewings(one.study)
    told = _revoke(erasing, actor, one, report)  # (2)
    crash.step("erase.2")
    roots = [_state(erasing, actor, one, tag) for tag in one.tags]  # (3)
    erasing.seal()
    entries = tuple(_entry(erasing, root) for root in roots)
    crash.step("erase.3")
    held = len(erasing.keys.held(one.study))
    _again(lambda: erasing.keys.delete(one.study))  # (4)
    crash.step("erase.4")
    report("its keys are destroyed; the others are wrapped anew")
    wrapped = erasing.replace_key()  # (5)
    crash.step("erase.5")
    for received in _held_by(erasing, one):
        _state_end(erasing, one, received)  # (6)
    erasing.erasures.note_roots(one.id, _roots(erasing, one))
    crash.step("erase.6")
    keep = erasing.kept_for_others
    instances = erasing.forgetting.forget(one.study, one.tags, keep, erasing.clock())  # (7)
    _again(erasing.forgetting.empty_log)
    erasing.end_viewings(one.study)
    crash.step("erase.7")
    _again(lambda: erasing.erasures.end(one.id, erasing.clock()))  # (8)
    crash.step("erase.8")
    released = let_go(erasing)  # (9)
    crash.step("erase.9")
    return Erased(instances, held, wrapped, one.tags, entries, told, released)


def _again(work: Callable[[], object]) -> None:
    """Do what waits for readers of a database, who end soon. Raises Busy when they do not."""
    for left in reversed(range(TIMES)):
        try:
            work()
            return
        except Busy:
            if not left:
                raise


def _revoke(erasing: Erasing, actor: Actor, one: Erasure, report: Report) -> tuple[str, ...]:
    """(2) Every grant that lives; who was given the study, and has not said that its keys are gone."""
    sharing = erasing.sharing
    if sharing is None:
        return ()
    given: Sequence[Given] = sharing.shares.all_given(one.study)
    if erasing.keys.held(one.study):
        for grant in given:
            if grant.live:
                report(f"the grant to {grant.member} is revoked")
                share.revoke(sharing, actor, grant.grant)
            elif grant.state == GivenState.REVOKING:
                share.complete(sharing, grant)
    return tuple(sorted({grant.member for grant in given if grant.delivered is not None and grant.gone is None}))


def _state(erasing: Erasing, actor: Actor, one: Erasure, tag: bytes) -> bytes:
    """(3) The record that the study of a tag is erased, durable and closed once; its root.

    Sealed under this node's own key, so that it outlives the study's; it names the study by no more than its tag.
    """
    body = {"reason": one.asked.reason, "begun": one.begun}
    root = _fact(erasing, one, "study.erase", actor, tag, (), body)
    erasing.erasures.stated(one.id, tag, root)
    return root


def _state_end(erasing: Erasing, one: Erasure, received: Received) -> None:
    """(6) As `services.end_share`, whose records are sealed under a key that is gone here."""
    body = {"member": received.member, "why": "the study was erased"}
    _fact(erasing, one, "share.end", SYSTEM, received.tag, (received.grant,), body)


def _fact(
    erasing: Erasing,
    one: Erasure,
    kind: str,
    actor: Actor,
    tag: bytes,
    refs: tuple[bytes, ...],
    body: Mapping[str, object],
) -> bytes:
    """One batch of one record, whose id follows from the erasure: made once. Its root."""
    id = hashlib.sha256(one.id + kind.encode() + tag + b"".join(refs)).digest()[:16]
    batch = Batch(id, erasing.owner, kind, actor, None, tag, "HOPERAT", erasing.clock(), refs=refs)
    made = erasing.forgetting.fact(id)
    if made is None:
        told = {"actor": by(actor), **body, **({"refs": list(refs)} if refs else {})}
        record = erasing.provenance.seal(kind, told, derive.node_record_key(erasing.audit_key))
        open_batch = OpenBatch(batch)
        erasing.batches.append(open_batch, [record])
        erasing.batches.close(open_batch)
        return merkle.root([record.leaf])
    root = merkle.root([made[0]])
    if not made[1]:
        erasing.index.close_batch(batch, BatchClosing(erasing.clock(), 1, root)).result()
    return root


def _entry(erasing: Erasing, root: bytes) -> bytes | None:
    """(3) The id of the sealed entry over a record. Raises Busy when the ledger's process does not seal it.

    Where no such process runs, a log that a consortium orders gets it at the next start: its record is durable.
    """
    waits = SEALED_S if erasing.sealed_elsewhere else 0.0
    entry = erasing.statements.entry_id(root, waits, final=False)
    if entry is None and erasing.sealed_elsewhere:
        raise Busy("the ledger has not sealed the erasure yet: nothing was destroyed so far; it is tried again")
    return entry


def _held_by(erasing: Erasing, one: Erasure) -> list[Received]:
    """The grants of members that brought this node keys of the study, and were not ended."""
    if erasing.sharing is None:
        return []
    shares = erasing.sharing.shares
    found = [received for tag in one.tags for received in shares.received_of(tag)]
    return [received for received in found if received.received is not None and received.ended is None]


def _roots(erasing: Erasing, one: Erasure) -> list[bytes]:
    """(6) The roots that the content engine is to let go of: all that is pinned of the study, but for others."""
    found = dict.fromkeys(one.roots)
    for tag in one.tags:
        tree = erasing.trees.by_tag(tag)
        if tree is not None and not erasing.kept_for_others(tag):
            found.update(dict.fromkeys(pin.root for pin in erasing.pins(tree.id)))
            found.update({} if tree.root is None else {tree.root: None})
    return list(found)


def let_go(erasing: Erasing) -> bool:
    """(9) Have the content engine let go of the roots of what was erased; whether it has, of all. Raises StorageFault.

    What it does not do now is asked of it again.
    """
    for id, roots in erasing.erasures.unreleased():
        left = list(roots)
        try:
            for root in roots:
                erasing.content.unpin(root)
                left.remove(root)
        except CairnError as error:
            log.warning("the content engine has not let go of an erased study yet", extra={"slug": error.slug})
            return False
        finally:
            erasing.erasures.note_roots(id, left)
    return True


def _actor(asked: Asked) -> Actor:
    return Actor(ActorKind(asked.kind), asked.name, None, "", asked.how)
