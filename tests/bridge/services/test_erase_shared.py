"""Erasing a study that was given to another hospital, or that another gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.erasing import FOLLOWED, begin_what_the_log_says, carry_on_erasures, erasing_of
from bridge.errors import ContentMissing, Gone
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.erase import Erased, erase
from bridge.services.fsck import fsck
from tests.bridge.services.conftest import recorded
from tests.bridge.services.test_share import STUDY, Members, content, part10_of, studies, types
from tests.bridge.test_replication import NONE, ONE, Running


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    yield found
    found.consortium.close()


def erased(members: Members, node: Node) -> Erased:
    erasing = replace(erasing_of(node), seal=members.consortium.seal)
    return erase(erasing, OPERATOR, STUDY, "", lambda text: None)


def leaks(node: Node) -> list[str]:
    files = [path for path in node.settings.home.rglob("*") if path.is_file()]
    return [path.name for path in files if STUDY.encode() in path.read_bytes()]


def test_what_was_given_is_revoked_first_and_ends_at_the_receiver_too(members: Members) -> None:
    empty = content(members.receiver)
    members.store(range(2))
    grant = members.grant()
    done = erased(members, members.giver)
    assert done.told == ("h1",) and None not in done.entries
    members.settle()
    assert types(members, grant)[-2:] == ["consent.revoke", "share.end"]
    assert content(members.receiver) == empty and studies(members.receiver) == []
    with pytest.raises(Gone):
        members.giver.retrieve.locate(STUDY)
    (said,) = members.consortium.of_type("study.erase")
    (revoked,) = members.consortium.of_type("consent.revoke")
    assert said.entry.study == revoked.entry.study == done.tags[0] and said.index > revoked.index
    assert leaks(members.giver) == []
    assert fsck(members.giver, lambda text: None) == []


def test_of_what_was_received_ones_own_copy_and_key_go_and_the_giver_hears_of_it(members: Members) -> None:
    members.store(range(2))
    grant = members.grant()
    assert part10_of(members.receiver, 0)
    members.receiver.access.close_all()
    tree = members.receiver.index.trees.of_study(STUDY)[0]
    done = erased(members, members.receiver)
    assert done.instances == 2 and tree.tag in done.tags
    members.settle()
    with pytest.raises(Gone):
        members.receiver.retrieve.locate(STUDY)
    with pytest.raises(ContentMissing):
        members.receiver.keys.open(tree.tag, 0)
    received, given = members.received(grant), members.given(grant)
    assert (received.state, received.study, received.package) == ("ended", None, None)
    assert given.gone is not None and part10_of(members.giver, 0)
    assert [body["why"] for body in recorded(members.receiver, "share.end")] == ["the study was erased"]
    assert leaks(members.receiver) == []
    assert fsck(members.receiver, lambda text: None) == []


def test_it_does_not_come_back_by_the_grant_that_it_came_by_but_by_another(members: Members) -> None:
    members.store(range(2))
    members.grant()
    erased(members, members.receiver)
    members.settle()
    members.store(range(2, 3))
    members.settle()
    assert studies(members.receiver) == []
    grant = members.grant()
    assert studies(members.receiver) == [STUDY]
    assert part10_of(members.receiver, 2) == part10_of(members.giver, 2)
    members.revoke(grant)  # the tag's keys go a second time, not by an erasure
    members.settle()
    assert members.given(grant).gone is not None and studies(members.receiver) == []
    members.grant()
    members.receiver.access.close_all()
    assert erased(members, members.receiver).instances == 3
    members.settle()
    assert studies(members.receiver) == [] and leaks(members.receiver) == []
    assert fsck(members.receiver, lambda text: None) == []


def test_keys_that_an_older_backup_brings_back_are_destroyed_as_the_log_says(members: Members) -> None:
    members.store(range(2))
    key = members.giver.keys.study_key(STUDY)
    erased(members, members.giver)
    members.settle()
    carry_on_erasures(members.giver)
    assert members.giver.erasures.going_on() == []
    forget_erasures(members.giver)
    members.giver.keys.adopt(key, members.giver.keystore.node_id)
    begin_what_the_log_says(members.giver)
    assert members.giver.erasures.going_on() == [], "each entry is followed once"
    members.giver.index.followed.advance(FOLLOWED, -1)  # as the older index has it
    begin_what_the_log_says(members.giver)
    (again,) = members.giver.erasures.going_on()
    assert again.tags == (key.tag,)


def test_other_members_let_go_of_their_replicas(tmp_path: Path) -> None:
    running = Running(tmp_path, [ONE, NONE])
    try:
        tree = running.store("h0", range(2), STUDY)
        running.settle()
        giver, keeper = (running.hospitals[name].node for name in ("h0", "h1"))
        assert running.holders(tree.tag) == ["h1"]
        erasing = replace(erasing_of(giver), seal=running.consortium.seal)
        erase(erasing, OPERATOR, STUDY, "", lambda text: None)
        running.settle()
        assert len(running.consortium.of_type("replica.release")) == 1
        assert giver.index.replicas_out.all() == [] and keeper.index.replicas_in.all() == []
        assert keeper.index.trees.by_tag(tree.tag) is None and keeper.index.pins.all() == []
        assert leaks(giver) == [] and leaks(keeper) == []
        assert fsck(keeper, lambda text: None) == []
    finally:
        running.consortium.close()


def forget_erasures(node: Node) -> None:
    """As the key database of an older backup has it."""
    with node.keys.database.write():
        for table in ("erasure", "erased_tag"):
            node.keys.database.connection.execute(f"DELETE FROM {table}")


def test_what_the_receiver_added_itself_goes_with_it(members: Members) -> None:
    members.store(range(2))
    members.grant()
    members.store(range(2, 4), members.receiver)
    done = erased(members, members.receiver)
    assert (done.instances, len(done.tags)) == (4, 2)
    members.settle()
    assert studies(members.receiver) == [] and leaks(members.receiver) == []
    assert len(members.consortium.of_type("study.erase")) == 2
    assert fsck(members.receiver, lambda text: None) == []
