"""Who may be given which sealed block: what lies below a granted root, told without any key; all else alike."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import commands
from bridge.config import Content, Settings
from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.car import CarReader
from bridge.content.car_transfer import export_car
from bridge.crypto.keystore import open_keystore
from bridge.errors import Forbidden, Gone, NotFound, RequestError
from bridge.index.assignments import Assignment
from bridge.index.grants import Grants
from bridge.index.replicas import OutRow
from bridge.index.replicas_kept import Wanted
from bridge.model import Actor, ActorKind, Role
from bridge.node import Node
from bridge.services import gateway
from tests.bridge.services.conftest import CHEAP, VIEWER, instance, part10, recorded
from tests.bridge.services.test_store import store

STUDY, OTHER = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
HOLDER = Actor(ActorKind.USER, "partner", Role.VIEWER, "127.0.0.1", "gateway", STUDY)
MEMBER = Actor(ActorKind.PEER, "St. Elsewhere", None, "192.0.2.7", "members")


def roots(node: Node, study: str) -> bytes:
    root = node.index.trees.of_study(study)[0].root
    assert root is not None
    return root


def tree(node: Node, study: str) -> list[bytes]:
    return [cid for cid, _ in dag.order(roots(node, study), node.content.get)]


def fill(node: Node, study: str = STUDY, **more: int) -> list[bytes]:
    """Store an instance of a study; the CIDs of the whole tree."""
    store(node, part10(instance(study=study, **more)))
    return tree(node, study)


def may(node: Node, actor: Actor, cid: bytes) -> bool:
    try:
        return bool(node.gateway.grant(actor, cids.to_text(cid)).study)
    except NotFound:
        return False


def car(node: Node, actor: Actor, cid: bytes, *path: str, **more: object) -> bytes:
    asked = {"scope": "all", "span": None, "duplicates": False, **more}
    granted = node.gateway.grant(actor, cids.to_text(cid))
    viewing = node.access.view(actor, str(granted.study), "TREAT")
    told = node.gateway.car(viewing, granted, path, **asked)  # type: ignore[arg-type]
    data = b"".join(told.chunks)
    assert told.length in (None, len(data))
    return data


def blocks(data: bytes) -> Iterator[bytes]:
    return (block.cid for block in CarReader(io.BytesIO(data).read))


def test_a_token_of_a_study_is_good_for_all_blocks_of_its_tree_and_for_no_other(node: Node) -> None:
    own, foreign = fill(node, rows=900), fill(node, OTHER)
    assert all(may(node, HOLDER, cid) for cid in own)
    assert not any(may(node, HOLDER, cid) for cid in foreign)


def test_what_is_not_granted_is_refused_in_the_words_of_what_is_not_held(node: Node) -> None:
    fill(node)
    words = set()
    for cid in (fill(node, OTHER)[-1], roots(node, OTHER), cids.make(cids.RAW, b"nobody has this")):
        with pytest.raises(NotFound) as refused:
            node.gateway.grant(HOLDER, cids.to_text(cid))
        words.add(refused.value.detail)
    assert len(words) == 1


def test_no_block_of_another_study_is_read_to_refuse_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    own, foreign = set(fill(node)), fill(node, OTHER)
    read: list[bytes] = []
    get = node.content.get
    monkeypatch.setattr(node.gateway._membership, "_get", lambda cid: read.append(cid) or get(cid))
    assert not any(may(node, HOLDER, cid) for cid in foreign)
    assert set(read) <= own


def test_blocks_that_the_index_assigns_to_nobody_are_found_below_the_root(node: Node) -> None:
    own = fill(node)
    with node.index.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE block SET instance = NULL")
    assert all(may(node, HOLDER, cid) for cid in own)


def test_a_former_state_of_the_study_can_be_fetched_while_it_grows(node: Node) -> None:
    before = fill(node)
    first = car(node, HOLDER, before[0])
    after = fill(node)
    assert before[0] not in after
    assert all(may(node, HOLDER, cid) for cid in {*before, *after})
    assert car(node, HOLDER, before[0]) == first


def test_a_credential_that_names_no_study_is_told_so(node: Node) -> None:
    own = fill(node)
    for cid in (own[0], cids.make(cids.RAW, b"nobody has this")):
        with pytest.raises(Forbidden):
            node.gateway.grant(VIEWER, cids.to_text(cid))


def test_a_study_that_is_no_longer_held_is_gone_for_its_token(node: Node) -> None:
    with pytest.raises(Gone):
        node.gateway.grant(HOLDER, cids.to_text(cids.make(cids.RAW, b"anything")))


def test_a_member_may_fetch_what_it_is_assigned_until_that_ends(node: Node) -> None:
    own, foreign = fill(node), fill(node, OTHER)
    assert not any(may(node, MEMBER, cid) for cid in (*own, *foreign))
    node.index.assignments.assign(Assignment(MEMBER.name, STUDY, None))
    assert all(may(node, MEMBER, cid) for cid in own)
    assert not any(may(node, MEMBER, cid) for cid in foreign)
    node.index.assignments.assign(Assignment(MEMBER.name, STUDY, 1))
    assert not any(may(node, MEMBER, cid) for cid in own)
    node.index.assignments.assign(Assignment(MEMBER.name, STUDY, None))
    node.index.assignments.unassign(MEMBER.name, STUDY)
    assert not any(may(node, MEMBER, cid) for cid in own)


def test_of_very_many_assigned_studies_those_asked_for_last_are_looked_through(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.services.gateway.MOST_WALKED", 1)
    trees = {study: fill(node, study) for study in (STUDY, OTHER)}
    with node.index.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE block SET instance = NULL")
    for study in trees:
        node.index.assignments.assign(Assignment(MEMBER.name, study, None))
    for study, own in trees.items():
        assert not may(node, MEMBER, own[-1]), study
        assert all(may(node, MEMBER, cid) for cid in own)  # its root first


def test_a_car_is_the_tree_block_by_block_and_each_is_counted_in_the_ledger(node: Node) -> None:
    own = fill(node, rows=900)
    assert list(blocks(car(node, HOLDER, own[0]))) == own
    node.access.close_all()
    opening, *details = recorded(node, "study.access")
    assert (opening["actor"]["name"], opening["study"]) == ("partner", STUDY)
    assert [item for detail in details for item in detail["items"]] == [["sealed block", "", "", len(own)]]


def test_the_length_of_a_whole_car_is_told_before_it_is_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fill(node, rows=900)
    granted = node.gateway.grant(HOLDER, cids.to_text(own[0]))
    viewing = node.access.view(HOLDER, STUDY, "TREAT")
    size = len(car(node, HOLDER, own[0]))

    def length() -> int | None:
        return node.gateway.car(viewing, granted, (), "all", None, duplicates=False).length

    assert length() == size
    monkeypatch.setattr(gateway, "MOST_PLANNED", len(own))  # where there may be more of them
    assert length() is None and list(blocks(car(node, HOLDER, own[0]))) == own
    monkeypatch.undo()
    monkeypatch.setattr(Grants, "positions", lambda *_: {})
    assert length() is None and len(car(node, HOLDER, own[0])) == size


def test_what_a_member_fetched_stands_in_the_ledger_under_its_name(node: Node) -> None:
    own = fill(node)
    node.index.assignments.assign(Assignment(MEMBER.name, STUDY, None))
    car(node, MEMBER, own[0])
    node.access.close_all()
    opening, _ = recorded(node, "study.access")
    assert opening["actor"] == {
        "kind": "peer",
        "name": MEMBER.name,
        "role": "",
        "address": MEMBER.address,
        "how": "members",
    }


def test_a_block_is_given_as_it_is_and_counted(node: Node) -> None:
    own = fill(node)
    viewing = node.access.view(HOLDER, STUDY, "TREAT")
    for cid in own:
        granted = node.gateway.grant(HOLDER, cids.to_text(cid))
        assert node.gateway.held(granted)
        assert cids.verify(cid, node.gateway.block(viewing, granted))


def test_a_path_leads_from_the_root_to_a_frame_s_blocks(node: Node) -> None:
    own = fill(node, rows=900)
    root, page, link = own[:3]
    found = list(blocks(car(node, HOLDER, root, "p", "0", "i", "0", "d", scope="entity", span=(0, 0))))
    assert found[:3] == [root, page, link]
    assert len(found) == 5
    with pytest.raises(NotFound):
        car(node, HOLDER, root, "p", "1")
    with pytest.raises(RequestError):
        car(node, HOLDER, root, "p", "0", "i", "0", "d", scope="entity", span=(1 << 40, None))


def test_the_probe_is_of_no_study_and_nothing_is_viewed_for_it(node: Node) -> None:
    fill(node)
    granted = node.gateway.grant(HOLDER, "bafkqaaa")
    assert granted.study is None
    assert node.gateway.held(granted)
    assert node.gateway.block(None, granted) == b""
    probe = node.gateway.car(None, granted, (), "all", None, False)
    reader = CarReader(io.BytesIO(b"".join(probe.chunks)).read)
    assert (list(map(cids.to_text, reader.roots)), list(reader)) == (["bafkqaaa"], [])


@pytest.mark.parametrize("name", ["", "b", "bafk", "bafkqaa!", "Qm", "zzz", "../../etc/passwd", "b" * 600, "bafkqaaá"])
def test_what_is_no_cid_is_refused_as_such(node: Node, name: str) -> None:
    with pytest.raises(RequestError) as refused:
        node.gateway.grant(HOLDER, name)
    assert not isinstance(refused.value, NotFound)


@pytest.mark.parametrize(
    "name",
    [
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG",
        "bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa",
        "baguqeerasords4njcts6vs7qvdjfcvgnume4hqohf65zsfguprqphs3icwea",
    ],
)
def test_cids_of_kinds_that_are_never_held_are_not_found(node: Node, name: str) -> None:
    fill(node)
    with pytest.raises(NotFound):
        node.gateway.grant(HOLDER, name)


ASSIGNMENT = OutRow(b"", bytes(16), MEMBER.name, 0, 1_000, b"statement", b"entry", bytes(16), b"root", 1)


def test_who_is_asked_to_keep_a_study_may_fetch_all_of_it_until_it_is_let_go(node: Node) -> None:
    own = fill(node, rows=900)
    fill(node, OTHER)
    tag = node.index.trees.of_study(STUDY)[0].tag
    node.index.replicas_out.assign(ASSIGNMENT._replace(tag=tag))
    assert all(may(node, MEMBER, cid) for cid in own)
    assert not any(may(node, MEMBER, cid) for cid in tree(node, OTHER))
    node.index.replicas_out.release(tag, ASSIGNMENT.node, 2_000)
    assert not any(may(node, MEMBER, cid) for cid in own)


def test_whose_study_is_kept_here_without_a_key_gets_it_back_block_by_block(node: Node, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "keeper", content=Content(reserve_bytes=0))
    keeper = Node(settings, open_keystore(tmp_path / "keeper", cost=CHEAP), "command")
    try:
        own = fill(node, rows=900)
        tag, root = node.index.trees.of_study(STUDY)[0].tag, roots(node, STUDY)
        kept = b"".join(export_car(node.content, root))
        commands.perform(keeper, "study-import", {"path": str(write(tmp_path / "a.car", kept))}, lambda text: None)
        grant = keeper.gateway.grant
        with pytest.raises(NotFound):
            grant(MEMBER, cids.to_text(root))
        keeper.index.replicas_in.ask(bytes(16), MEMBER.name, [Wanted(tag, b"entry", bytes(16), root, 1)], 1_000)
        with pytest.raises(NotFound):  # it only says so: nothing is kept for it yet
            grant(MEMBER, cids.to_text(root))
        (row,) = keeper.index.replicas_in.all()
        keeper.index.replicas_in.took(row, root, 2_000)
        assert {(granted.study, granted.tag) for granted in (grant(MEMBER, cids.to_text(cid)) for cid in own)} == {
            (None, tag)
        }
        viewing = keeper.access.view_kept(MEMBER, tag, "HOPERAT")
        for cid in own:
            assert keeper.gateway.block(viewing, grant(MEMBER, cids.to_text(cid))) == node.content.get(cid)
        with pytest.raises(NotFound):
            grant(replace(MEMBER, name="another"), cids.to_text(root))
    finally:
        keeper.close()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
