"""A member's study kept without its key: what is fetched, what is refused, and that nothing of it is found here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.config import Content, Settings
from bridge.content import manifest
from bridge.content.car_transfer import export_car
from bridge.content.manifest import StudyRoot
from bridge.crypto.keystore import open_keystore
from bridge.errors import CarInvalid, ContentMissing, NotFound, RequestError, StorageFull
from bridge.node import Node
from bridge.services.keep_replica import Asked, Holder, keep_replica
from tests.bridge.services.conftest import CHEAP, SENDER, instance, part10

STUDY = "1.2.826.0.1.3680043.8.498.78"


class Origin:
    """The gateway of a node in this process; counts what it was asked for."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.blocks: list[bytes] = []
        self.trees: list[bytes] = []

    def __call__(self, cid: bytes) -> bytes:
        self.blocks.append(cid)
        return bytes(self.node.content.get(cid))

    def tree(self, root, file, most):  # type: ignore[no-untyped-def]
        self.trees.append(root)
        size = sum(file.write(piece) for piece in export_car(self.node.content, root))
        if size > most:
            raise CarInvalid("more than announced")
        return size


def opened(home: Path) -> Node:
    return Node(Settings(home=home, content=Content(reserve_bytes=0)), open_keystore(home, cost=CHEAP), "command")


def store(node: Node, numbers: range) -> bytes:
    """Store instances of the study; its newest root."""
    with node.store.reception(SENDER) as reception:
        for number in numbers:
            incoming = reception.begin()
            incoming.write(part10(instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.1.{number}", fill=number)))
            incoming.commit()
    (tree,) = node.index.trees.of_study(STUDY)
    assert tree.root is not None
    return tree.root


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    node = opened(tmp_path / "origin")
    store(node, range(3))
    yield Origin(node)
    node.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Node]:
    node = opened(tmp_path / "other")
    yield node
    node.close()


def holder_of(node: Node, require_room: Callable[[int], None] | None = None) -> Holder:
    return Holder(
        node.content,
        lambda tree, blocks: node.index.adopt(tree, (), blocks),
        node.index.trees.by_tag,
        node.index.add_blocks,
        require_room or node.packs.require_room,
        node.settings.home / "replicas",
    )


def asked(origin: Origin, former: bytes | None = None, octets: int = 1 << 20) -> Asked:
    (tree,) = origin.node.index.trees.of_study(STUDY)
    assert tree.root is not None
    return Asked(tree.tag, tree.root, octets, former)


def test_a_study_is_kept_whole_and_pinned_and_nothing_of_it_is_found(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    kept = keep_replica(holder_of(other), origin, wanted)
    assert origin.trees == [wanted.root] and origin.blocks == []
    assert kept.new == kept.blocks > 6
    assert other.index.pins.of(wanted.root) is not None
    assert not list((other.settings.home / "replicas").iterdir())
    assert b"".join(export_car(other.content, wanted.root)) == b"".join(export_car(origin.node.content, wanted.root))
    assert other.index.counts()["instances"] == 0
    with pytest.raises(NotFound):
        other.index.locate(STUDY)
    tree = other.index.trees.by_tag(wanted.tag)
    assert tree is not None and (tree.study, tree.origin, tree.root) == (None, b"", wanted.root)


def test_of_a_study_that_grew_only_what_is_new_is_fetched(origin: Origin, other: Node) -> None:
    first = asked(origin)
    keep_replica(holder_of(other), origin, first)
    store(origin.node, range(3, 5))
    second = asked(origin, former=first.root)
    kept = keep_replica(holder_of(other), origin, second)
    assert origin.trees == [first.root]
    assert len(origin.blocks) == kept.new == 2 + 3 * 2  # root and page; of each instance its block, object, metadata
    assert b"".join(export_car(other.content, second.root)) == b"".join(export_car(origin.node.content, second.root))
    assert other.index.pins.of(first.root) is None and other.index.pins.of(second.root) is not None


def test_keeping_again_what_is_kept_fetches_nothing(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    keep_replica(holder_of(other), origin, wanted)
    assert keep_replica(holder_of(other), origin, wanted._replace(former=wanted.root)) == (0, 0, 0)
    assert origin.blocks == []
    assert other.index.pins.of(wanted.root) is not None


def test_a_block_that_was_damaged_here_is_fetched_anew(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    keep_replica(holder_of(other), origin, wanted)
    position = other.packs.position(wanted.root)
    assert position is not None
    with (other.settings.home / "packs" / f"{position.pack:08d}.car").open("r+b") as pack:
        pack.seek(position.offset)
        pack.write(b"damage")
    keep_replica(holder_of(other), origin, wanted._replace(former=wanted.root))
    assert origin.blocks == [wanted.root]
    assert other.content.get(wanted.root) == origin.node.content.get(wanted.root)


def test_the_tag_of_an_own_study_is_refused_before_anything_is_asked(origin: Origin, other: Node) -> None:
    store(other, range(1))
    (own,) = other.index.trees.of_study(STUDY)
    with pytest.raises(RequestError):
        keep_replica(holder_of(other), origin, asked(origin)._replace(tag=own.tag))
    assert origin.trees == []


def test_a_tree_of_another_study_is_refused_and_leaves_nothing(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    with pytest.raises(CarInvalid, match="another study"):
        keep_replica(holder_of(other), origin, wanted._replace(tag=os.urandom(16)))
    assert other.index.counts()["blocks"] == 0 and other.index.trees.by_tag(wanted.tag) is None


def test_what_is_no_manifest_is_refused(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    (page,) = manifest.decode_root(origin.node.content.get(wanted.root)).pages
    with pytest.raises(CarInvalid):
        keep_replica(holder_of(other), origin, wanted._replace(root=page))
    twice = manifest.encode_root(StudyRoot(wanted.tag, (page, page), None))
    assert twice
    assert other.index.counts()["blocks"] == 0


def test_what_the_origin_lacks_cannot_be_kept(origin: Origin, other: Node) -> None:
    wanted = asked(origin)
    keep_replica(holder_of(other), origin, wanted)
    store(origin.node, range(3, 4))
    newer = asked(origin, former=wanted.root)

    class Silent(Origin):
        def __call__(self, cid: bytes) -> bytes:
            raise ContentMissing("gone")

    with pytest.raises(ContentMissing):
        keep_replica(holder_of(other), Silent(origin.node), newer)
    tree = other.index.trees.by_tag(wanted.tag)
    assert tree is not None and tree.root == wanted.root
    assert other.index.pins.of(wanted.root) is not None


def test_more_than_was_announced_is_refused(origin: Origin, other: Node) -> None:
    for number in range(10, 12):
        with origin.node.store.reception(SENDER) as reception:
            incoming = reception.begin()
            incoming.write(part10(instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.2.{number}", rows=1200)))
            incoming.commit()
    with pytest.raises((CarInvalid, StorageFull)):
        keep_replica(holder_of(other), origin, asked(origin, octets=1000))
    assert other.index.counts()["blocks"] == 0


def test_without_room_nothing_is_kept(origin: Origin, other: Node) -> None:
    def none(octets: int) -> None:
        raise StorageFull("no room")

    with pytest.raises(StorageFull):
        keep_replica(holder_of(other, none), origin, asked(origin))
    assert other.index.counts()["blocks"] == 0
