"""One study in several trees: a member is given the tree that was granted to it, and none beside it.

At a hospital a study may have its own tree, trees that members lent it, and trees that it keeps for others. They bear
one Study Instance UID; a grant, an assignment to keep and a copy kept here are each of one tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.manifest import decode_instance
from bridge.errors import ContentCorrupt, ContentMissing, NotFound
from bridge.index.replicas import OutRow
from bridge.index.replicas_kept import Wanted
from bridge.model import OPERATOR, Actor, ActorKind
from bridge.node import Node
from bridge.services import share
from bridge.services.metadata import open_metadata
from bridge.services.received_study import Keys
from tests.bridge.services.test_share import STUDY, Members, part10_of, studies

NOBODYS = cids.make(cids.RAW, b"nobody has this")


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    yield found
    found.consortium.close()


def give(members: Members, by: str, to: str) -> bytes:
    """A grant of any hospital, followed by all."""
    node = members.desks[by].node

    def sealed(root: bytes, final: bool) -> bytes | None:
        members.consortium.seal()
        return members.consortium.hospitals[by].made(root, final)

    node.statements._made = sealed
    grant = share.grant(members.desks[by].sharing, OPERATOR, STUDY, to, "TREAT", None)
    members.settle()
    return grant


def tree(node: Node, *, own: bool = True) -> list[bytes]:
    """The CIDs of this node's own tree of the study, or of the one that it has besides."""
    (found,) = [one for one in node.index.trees.of_study(STUDY) if (one.origin is None) == own]
    assert found.root is not None
    return [cid for cid, _ in dag.order(found.root, node.content.get)]


def refused(node: Node, member: str, cid: bytes) -> str | None:
    """In which words a member is refused a block; None when it may have it."""
    try:
        node.gateway.grant(Actor(ActorKind.PEER, member, None, "192.0.2.7", "members"), cids.to_text(cid))
    except NotFound as error:
        return error.detail
    return None


def has_all(node: Node, member: str, blocks: list[bytes]) -> bool:
    return all(refused(node, member, cid) is None for cid in blocks)


def has_none(node: Node, member: str, blocks: list[bytes]) -> bool:
    """Whether each is refused, in the words of what nobody holds."""
    return {refused(node, member, cid) for cid in blocks} == {refused(node, member, NOBODYS)}


def test_what_a_hospital_adds_is_given_without_what_it_was_lent(members: Members) -> None:
    members.store(range(2))
    members.grant("h1")
    members.store(range(8, 9), members.receiver)
    give(members, "h1", "h2")
    assert has_all(members.receiver, "h2", tree(members.receiver))
    assert has_none(members.receiver, "h2", tree(members.receiver, own=False))
    assert [one.key.sop for one in members.other.retrieve.locate(STUDY)] == [f"{STUDY}.1.8"]


def test_what_others_added_is_not_given_with_what_this_hospital_gives(members: Members) -> None:
    members.store(range(2))
    members.store(range(8, 9), members.receiver)
    give(members, "h1", "h0")
    members.grant("h2")
    assert has_all(members.giver, "h2", tree(members.giver))
    assert has_none(members.giver, "h2", tree(members.giver, own=False))
    assert len(members.other.retrieve.locate(STUDY)) == 2
    members.store(range(2, 4))  # grown: the own tree alone follows
    members.settle()
    assert has_none(members.giver, "h2", tree(members.giver, own=False))
    assert len(members.other.retrieve.locate(STUDY)) == 4


def test_an_instance_of_both_trees_is_given_by_the_tree_that_was_granted(members: Members) -> None:
    members.store(range(2))
    members.store(range(2), members.receiver)  # the very same bytes, in a tree of its own
    give(members, "h1", "h0")
    members.grant("h2")
    own, lent = tree(members.giver), tree(members.giver, own=False)
    assert not set(own) & set(lent)
    assert has_all(members.giver, "h2", own) and has_none(members.giver, "h2", lent)


def test_who_keeps_one_tree_of_a_study_is_given_no_other(members: Members) -> None:
    members.store(range(2))
    members.store(range(8, 9), members.receiver)
    give(members, "h1", "h0")
    own, keeper = members.giver.index.trees.of_study(STUDY)[0], members.consortium.members["h2"]
    assert own.root is not None
    row = OutRow(own.tag, keeper.node, "h2", 0, 1_000, b"statement", b"entry", bytes(16), own.root, 1)
    members.giver.index.replicas_out.assign(row)
    assert has_all(members.giver, "h2", tree(members.giver))
    assert has_none(members.giver, "h2", tree(members.giver, own=False))


def test_whose_tree_is_kept_here_gets_that_back_and_nobody_else_does(members: Members) -> None:
    """h1 keeps what h0 lent it also as a copy for h0, and has a tree of its own, granted to h2."""
    members.store(range(2))
    members.grant("h1")
    members.store(range(8, 9), members.receiver)
    kept, origin = members.receiver.index.trees.of_study(STUDY)[1], members.consortium.members["h0"]
    assert kept.root is not None
    wanted = Wanted(kept.tag, b"entry", bytes(16), kept.root, 1)
    members.receiver.index.replicas_in.ask(origin.node, "h0", [wanted], 1_000)
    (row,) = members.receiver.index.replicas_in.all()
    members.receiver.index.replicas_in.took(row, kept.root, 2_000)
    give(members, "h1", "h2")
    lent, own = tree(members.receiver, own=False), tree(members.receiver)
    assert has_all(members.receiver, "h0", lent) and has_none(members.receiver, "h0", own)
    assert has_all(members.receiver, "h2", own) and has_none(members.receiver, "h2", lent)


def test_after_a_revocation_nothing_is_given_neither_former_nor_newer(members: Members) -> None:
    members.store(range(2))
    grant = members.grant()
    former = tree(members.giver)
    assert has_all(members.giver, "h1", former)
    members.revoke(grant)
    assert has_none(members.giver, "h1", former)
    members.settle()
    members.store(range(2, 4))
    assert has_none(members.giver, "h1", [*former, *tree(members.giver)])
    members.grant("h2")  # the same study to another: nothing comes back to the first
    assert has_all(members.giver, "h2", tree(members.giver))
    assert has_none(members.giver, "h1", [*former, *tree(members.giver)])


def test_a_key_from_before_the_end_opens_no_image_from_after_it(members: Members) -> None:
    members.store(range(2))
    grant = members.grant()
    (tag,) = {one.tag for one in members.giver.index.trees.of_study(STUDY)}
    copied = members.receiver.keys.open(tag, 0)  # by a node that was changed to keep it
    members.revoke(grant)
    members.settle()
    members.store(range(2, 3))
    members.grant("h2")
    blocks = {cid: members.giver.content.get(cid) for cid in tree(members.giver)}  # by whatever way it got them
    source = type("Blocks", (), {"get": staticmethod(blocks.__getitem__)})()
    links = members.giver.index.trees.manifest(tag).instances
    generations = [decode_instance(blocks[link]).generation for link in links]
    assert generations == [0, 0, 1]
    assert [open_metadata(source, Keys([copied]), link).sop for link in links[:2]] == [
        f"{STUDY}.1.{number}" for number in range(2)
    ]
    with pytest.raises(ContentMissing):
        open_metadata(source, Keys([copied]), links[2])
    with pytest.raises(ContentCorrupt):
        open_metadata(source, Keys([copied._replace(generation=1)]), links[2])
    assert studies(members.receiver) == [] and part10_of(members.other, 2) == part10_of(members.giver, 2)
