"""The trustless gateway's recipe: sealed blocks to whom a study was granted, and to nobody else.

    (1) the door has authenticated the actor
    (2) read the CID
    (3) is it below a root that the actor was granted? by index and links alone: no key is needed
    (4) the door opens a viewing                                     services.access: durable before the first byte
    (5) choose the blocks, fetch each verified by its CID, count it  bridge.content.selection [pure], ContentStore

What is not below a granted root is not read, and refused in the words and by the steps of what is not held. Nobody else
is asked for a block: a gateway gives what its node and its engine have.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, starmap
from typing import Final, NamedTuple, Protocol

from bridge.content import car, unixfs
from bridge.content import cid as cids
from bridge.content.at_hand import at_hand_only
from bridge.content.located import Located, Packs, section
from bridge.content.membership import Membership
from bridge.content.multibase import cid_from_text
from bridge.content.selection import Place, Scope, Span, blocks, is_whole, nothing_there, order, range_of, resolve
from bridge.errors import ContentCorrupt, ContentMissing, Forbidden, Gone, RequestError
from bridge.model import Actor, ActorKind, BlockPosition
from bridge.ports import ContentStore
from bridge.services.access import Viewing

PROBE: Final = bytes((1, cids.RAW, cids.IDENTITY, 0))
"""bafkqaaa, the identity CID of nothing, by which clients find out that this is a gateway."""
FETCHED: Final = "sealed block"
_TAG: Final = "tag "
MOST_PLANNED: Final = 16_384
"""Blocks of a whole CAR looked up before its first byte, so that its length can be said: some 6 MB of CIDs."""
MOST_WALKED: Final = 32
"""Trees looked through for a CID that the index does not know, of one member."""


class Grants(Protocol):
    """What the index knows of grants. Every method may raise StorageFault."""

    def tree_of_block(self, cid: bytes) -> tuple[str, bytes] | None:
        """The study whose instance a block belongs to, and its tree's tag; None for those of no instance or unknown."""

    def may(self, member: str, tag: bytes, now: int) -> bool:
        """Whether a member may fetch this very tree at `now` (microseconds)."""

    def is_held(self, study: str) -> bool:
        """Whether there is such a study."""

    def roots_of(self, study: str) -> Sequence[tuple[str, bytes]]:
        """The study and root of each of its trees."""

    def roots_for(self, member: str, now: int) -> Sequence[tuple[str, bytes]]:
        """The study and root of each tree that a member may fetch at `now` (microseconds)."""

    def kept_for(self, member: str) -> Sequence[tuple[bytes, bytes]]:
        """The study tag and root of each tree that is kept here for a member, without the key that tells the study."""

    def positions(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        """Where those of many blocks lie that the index knows."""


class Granted(NamedTuple):
    """A CID that the actor may fetch: as bytes, as text, and of which study.

    That is None for the probe, which is of none, and where the study is kept for the actor without its key: its `tag`
    is told then.
    """

    cid: bytes
    name: str
    study: str | None
    tag: bytes | None = None


class Car(NamedTuple):
    """A CAR about to be sent: the CIDs that its path passed, as text, and its bytes: header, then block by block.

    `length` is how many bytes; None where that is not known before they are sent.
    """

    passed: tuple[str, ...]
    chunks: Iterator[bytes]
    length: int | None = None


class Gateway:
    """Serves what is granted. Thread-safe."""

    def __init__(
        self,
        content: ContentStore,
        packs: Packs,
        grants: Grants,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """The clock tells microseconds."""
        self._content = content
        self._packs = packs
        self._grants = grants
        self._clock = clock
        self._membership = Membership(self._get)
        self._lock = threading.Lock()
        self._asked: OrderedDict[tuple[str, str], None] = OrderedDict()

    def grant(self, actor: Actor, name: str) -> Granted:
        """(2), (3) What the actor may fetch under a CID's text form.

        Raises RequestError for what is no CID, Forbidden for a credential that names no study, Gone when the study
        that it names is no longer held, NotFound for everything else: in equal words, whatever the reason.
        """
        try:
            cid = cid_from_text(name)
        except ValueError:
            raise RequestError("this is not a CID") from None
        if actor.kind is not ActorKind.PEER and actor.study is None:
            raise Forbidden("sealed blocks need a token that names their study: cairn token create --study")
        if cid == PROBE:
            return Granted(cid, cids.to_text(cid), None)
        if actor.study is not None and not self._grants.is_held(actor.study):
            raise Gone("the study that this credential names is no longer held")
        study = self._study(actor, cid) if _storable(cid) else None
        tag = self._kept(actor, cid) if study is None and _storable(cid) else None
        if study is None and tag is None:
            raise nothing_there()
        return Granted(cid, cids.to_text(cid), study, tag)

    def held(self, granted: Granted) -> bool:
        """Whether the block is at hand, without asking anybody else for it."""
        return granted.cid == PROBE or self._content.has(granted.cid)

    def block(self, viewing: Viewing | None, granted: Granted) -> bytes:
        """(5) The block. Raises NotFound when it cannot be had, ContentCorrupt, AccessNotRecordable."""
        if viewing is None:
            return b""
        viewing.saw(FETCHED)
        try:
            return self._get(granted.cid)
        except ContentMissing:
            raise nothing_there() from None

    def car(
        self,
        viewing: Viewing | None,
        granted: Granted,
        path: Sequence[str],
        scope: Scope,
        span: Span | None,
        duplicates: bool,
    ) -> Car:
        """(5) The CAR of a path below the CID; its root is the CID.

        Raises NotFound when its first block cannot be had or the path leads nowhere, RequestError for a range behind
        the end, ContentCorrupt, AccessNotRecordable; while its bytes are taken, also ContentMissing.
        """
        header = car.encode_header([granted.cid])
        if viewing is None:
            return Car((granted.name,), iter((header,)), len(header))
        try:
            self._get(granted.cid)
            place = resolve(granted.cid, path, self._get)
            wanted = self._wanted(place, scope, span)
        except ContentMissing:
            raise nothing_there() from None
        passed = tuple(map(cids.to_text, place.passed))
        if not is_whole(place, scope, wanted, duplicates):
            chosen = blocks(place, scope, wanted, duplicates, self._get)
            return Car(passed, _sent(viewing, header, starmap(section, chosen)))
        located = Located(self._packs, self._grants.positions, self._get)
        ordered = order(place, located.get, located.told)
        first = [*islice(ordered, MOST_PLANNED)]
        located.learn(cid for cid, data in first if data is None)
        length = _length(header, first, located) if len(first) < MOST_PLANNED else None
        return Car(passed, _sent(viewing, header, starmap(located.section, chain(first, ordered))), length)

    def _wanted(self, place: Place, scope: Scope, span: Span | None) -> range | None:
        """The bytes of the file at a path's end; None when it is no file, where entity-bytes means nothing."""
        if span is None or scope != "entity" or cids.parse(place.end).codec == cids.DAG_CBOR:
            return None
        return range_of(span, unixfs.size_of(place.end, self._get))

    def _get(self, cid: bytes) -> bytes:
        with at_hand_only():
            return self._content.get(cid)

    def _study(self, actor: Actor, cid: bytes) -> str | None:
        """(3) The study of the tree below whose root the block lies, if the actor was granted that.

        A token names a study, with all its trees here; a member has single trees of it, and none but those.
        """
        now = self._clock()
        study, tag = self._grants.tree_of_block(cid) or ("", b"")
        if study == actor.study if actor.study is not None else self._grants.may(actor.name, tag, now):
            return self._noted(actor, study)
        roots = self._grants.roots_of(actor.study) if actor.study else self._grants.roots_for(actor.name, now)
        for study, root in roots:
            if cid == root:
                return self._noted(actor, study)
        for study, root in self._likely(actor, roots):
            if self._lies_below(root, cid):
                return self._noted(actor, study)
        return None

    def _kept(self, actor: Actor, cid: bytes) -> bytes | None:
        """(3) The tag of a study that is kept for the actor, below whose root the block lies."""
        if actor.kind is not ActorKind.PEER:
            return None
        kept = {f"{_TAG}{tag.hex()}": (tag, root) for tag, root in self._grants.kept_for(actor.name)}
        likely = self._likely(actor, [(name, root) for name, (_, root) in kept.items()])
        for name, (tag, root) in kept.items():
            if cid == root:
                self._noted(actor, name)
                return tag
        for name, root in likely:
            if self._lies_below(root, cid):
                self._noted(actor, name)
                return kept[name][0]
        return None

    def _likely(self, actor: Actor, roots: Sequence[tuple[str, bytes]]) -> Sequence[tuple[str, bytes]]:
        """Trees to be looked through: all of few, of many those that the actor asked for last."""
        if len(roots) <= MOST_WALKED:
            return roots
        with self._lock:
            asked = [study for name, study in reversed(self._asked) if name == actor.name][:MOST_WALKED]
        return [found for found in roots if found[0] in asked]

    def _noted(self, actor: Actor, study: str) -> str:
        with self._lock:
            self._asked[actor.name, study] = None
            self._asked.move_to_end((actor.name, study))
            while len(self._asked) > 16 * MOST_WALKED:
                self._asked.popitem(last=False)
        return study

    def _lies_below(self, root: bytes, cid: bytes) -> bool:
        try:
            return cid in self._membership.below(root)
        except (ContentMissing, ContentCorrupt):  # what is damaged is fsck's finding; nothing can be said of it
            return False


def _length(header: bytes, planned: Iterable[tuple[bytes, bytes | None]], located: Located) -> int | None:
    """The bytes of a CAR of these blocks; None when it is not known where all lie that were not read."""
    total = len(header)
    for cid, data in planned:
        size = located.size(cid) if data is None else len(data)
        if size is None:
            return None
        total += car.section_size(cid, size)
    return total


def _sent(viewing: Viewing, header: bytes, sections: Iterable[bytes]) -> Iterator[bytes]:
    yield header
    for one in sections:
        viewing.saw(FETCHED)
        yield one


def _storable(cid: bytes) -> bool:
    """Whether it is of a kind that is stored at all: identity CIDs, other hashes and version 0 are not."""
    try:
        return cids.parse(cid).hash != cids.IDENTITY
    except ValueError:
        return False
