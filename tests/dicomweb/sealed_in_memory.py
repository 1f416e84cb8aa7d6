"""Two studies' sealed blocks in memory behind the real gateway, for the tests of its door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import cbor2
from node_in_memory import FakeNode

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.content.car import section_head
from bridge.errors import ContentMissing, Unauthenticated
from bridge.model import Action, Actor, ActorKind, BlockPosition, Role
from bridge.services.gateway import Gateway

STUDY, OTHER, GONE = "1.2.3", "1.2.4", "1.2.5"
MEMBER = "St. Elsewhere"


class SealedBlocks:
    """A ContentStore that is read only, as far as the gateway asks; and what the index would say of its studies."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.trees: dict[str, bytes] = {}

    def get(self, cid: bytes) -> bytes:
        if cid not in self.held:
            raise ContentMissing("not held")
        return self.held[cid]

    def has(self, cid: bytes) -> bool:
        return cid in self.held

    def tree_of_block(self, cid: bytes) -> None:
        return None

    def may(self, member: str, tag: bytes, now: int) -> bool:
        return False

    def is_held(self, study: str) -> bool:
        return study in self.trees

    def roots_of(self, study: str) -> Sequence[tuple[str, bytes]]:
        return [(study, self.trees[study])] if study in self.trees else []

    def roots_for(self, member: str, now: int) -> Sequence[tuple[str, bytes]]:
        return self.roots_of(STUDY) if member == MEMBER else []

    def kept_for(self, member: str) -> Sequence[tuple[bytes, bytes]]:
        return []

    def positions(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        return {cid: BlockPosition(cid, 0, 0, len(self.held[cid])) for cid in blocks if cid in self.held}

    def at(self, position: BlockPosition) -> bytes:
        return self.get(position.cid)

    def section(self, position: BlockPosition) -> bytes:
        return section_head(position.cid, position.length) + self.get(position.cid)

    def put(self, codec: int, data: bytes) -> bytes:
        cid = cids.make(codec, data)
        self.held[cid] = data
        return cid

    def add(self, study: str, file: bytes) -> tuple[bytes, bytes, list[bytes]]:
        """A study of one file: the CIDs of its root, of the file, and of its leaves."""
        builder = unixfs.TreeBuilder()
        made = [builder.leaf(file[at : at + unixfs.LEAF_SIZE]) for at in range(0, len(file), unixfs.LEAF_SIZE)]
        top, rest = builder.finish()
        self.held |= {block.cid: bytes(block.data) for block in (*chain(*made), *rest)}
        link = cbor2.CBORTag(42, b"\0" + top)
        root = self.put(cids.DAG_CBOR, cbor2.dumps({"p": [link, link], "s": study}, canonical=True))
        self.trees[study] = root
        return root, top, [blocks[0].cid for blocks in made]


class GatewayNode(FakeNode):
    """Tokens `study-UID` are good for that study alone; viewings count what was seen in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = SealedBlocks()
        store: Any = self.blocks
        self.gateway = Gateway(store, store, store)
        self.seen: list[str] = []

    def identify(self, credential: str, address: str) -> Actor:
        if credential.startswith("study-"):
            return Actor(ActorKind.USER, "partner", Role.VIEWER, address, "http", credential.removeprefix("study-"))
        return super().identify(credential, address)

    def allow(self, actor: Actor, action: Action) -> None:
        if actor.kind is ActorKind.PEER or action is Action.FETCH:
            if action is not Action.FETCH:
                raise Unauthenticated("not for members")
            return
        super().allow(actor, action)

    def view(self, actor: Actor, study: str, purpose: str, reason: str | None = None) -> Any:
        super().view(actor, study, purpose, reason)
        return self

    def saw(self, what: str, sop: str = "", frame: str = "") -> None:
        self.seen.append(what)
