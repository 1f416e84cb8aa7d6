"""Replication among members: who is asked, what the ledger says, what becomes of it when members go and come."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.config import Replication as Policy
from bridge.content import cid as cids
from bridge.content.car_transfer import export_car
from bridge.content.incoming import Source
from bridge.content.manifest import decode_root
from bridge.content.tree_read import reading
from bridge.errors import ContentMissing, EngineFault
from bridge.index.replica_places import ReplicaPlaces
from bridge.model import Tree
from bridge.replicating import commitment
from bridge.replication import Replication
from tests.bridge.consortium_in_memory import Consortium, Hospital, Listener
from tests.bridge.services.conftest import SENDER, instance, part10, recorded

STUDY = "1.2.826.0.1.3680043.8.498.79"
ONE, NONE = Policy(copies=1), Policy()


class Running:
    """A consortium and the replication of each of its hospitals."""

    def __init__(self, folder: Path, policies: Sequence[Policy]) -> None:
        self.consortium = Consortium(folder, policies)
        self.clock = self.consortium.clock
        self.steps = {name: Replication(one.node, self.clock) for name, one in self.hospitals.items()}

    @property
    def hospitals(self) -> dict[str, Hospital]:
        return self.consortium.hospitals

    def settle(self, rounds: int = 12) -> None:
        """Steps of all that are up, a few seconds apart, each followed by consensus."""
        for _ in range(rounds):
            for name, replication in self.steps.items():
                if not self.hospitals[name].down:
                    replication.step()
            self.consortium.seal()
            self.clock.pass_by(6)

    def store(self, name: str, numbers: range, study: str = STUDY) -> Tree:
        node = self.hospitals[name].node
        with node.store.reception(SENDER) as reception:
            for number in numbers:
                incoming = reception.begin()
                made = instance(study=study, series=f"{study}.1", sop=f"{study}.1.{number}", fill=number)
                incoming.write(part10(made))
                incoming.commit()
        (tree,) = node.index.trees.of_study(study)
        return tree

    def holders(self, tag: bytes) -> list[str]:
        """Who holds the newest root of h0's study whole, pinned, and has signed for it."""
        rows = self.hospitals["h0"].node.index.replicas_out.held(tag)
        tree = self.hospitals["h0"].node.index.trees.by_tag(tag)
        assert tree is not None and tree.root is not None
        found = []
        for row in rows:
            node = self.hospitals[row.member].node
            whole = node.index.pins.of(tree.root) is not None and car(node, tree.root) == car(
                self.hospitals["h0"].node, tree.root
            )
            assert whole == (row.kept == tree.root)
            found += [row.member] if whole else []
        return sorted(found)


def car(node, root):  # type: ignore[no-untyped-def]
    return b"".join(export_car(node.content, root))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def run(*policies: Policy) -> Running:
        made.append(Running(tmp_path, policies))
        return made[-1]

    yield run
    for one in made:
        one.consortium.close()


def test_as_many_members_as_are_wanted_keep_a_study_and_sign_for_it(running: Callable[..., Running]) -> None:
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(3))
    four.settle()
    holders = four.holders(tree.tag)
    assert len(holders) == 2
    assigned, receipts = (four.consortium.of_type(kind) for kind in ("replica.assign", "replica.receipt"))
    assert len(assigned) == len(receipts) == 2
    rows = four.hospitals["h0"].node.index.replicas_out.held(tree.tag)
    for row in rows:
        (receipt,) = [one for one in receipts if one.entry.refs == (row.entry,)]
        assert receipt.entry.node == row.node
        assert receipt.entry.terms["c"] == commitment(row.salt, row.root)
    for name in holders:
        index = four.hospitals[name].node.index
        held = index.trees.by_tag(tree.tag)
        assert held is not None and held.study is None
        assert index.counts()["instances"] == 0
        with pytest.raises(ContentMissing):
            four.hospitals[name].node.keys.open(tree.tag, 0)
    before = len(four.consortium.entries)
    four.settle(3)
    assert [one.entry.type for one in four.consortium.entries[before:] if one.entry.type.startswith("replica")] == []


def test_the_ledger_names_no_root_and_no_study(running: Callable[..., Running]) -> None:
    two = running(ONE, NONE)
    tree = two.store("h0", range(2))
    two.settle()
    assert tree.root is not None
    for one in two.consortium.entries:
        assert tree.root not in one.envelope and STUDY.encode() not in one.envelope


def assigned(two: Running) -> Tree:
    """A study of h0's that h1 is to keep: so says the ledger, and h0 has not looked there yet."""
    tree = two.store("h0", range(2))
    while not two.consortium.of_type("replica.assign"):
        two.steps["h0"].step()
        two.consortium.seal()
        two.clock.pass_by(6)
    return tree


def test_an_assignment_that_is_final_before_its_member_knows_it_is_asked_for_until_it_is_told(
    running: Callable[..., Running],
) -> None:
    two = running(ONE, NONE)
    tree = assigned(two)
    two.steps["h1"].step()
    assert two.hospitals["h1"].node.index.replicas_in.of_tag(tree.tag) == []  # it was asked, and told nothing
    two.settle()
    assert two.holders(tree.tag) == ["h1"]


def test_an_assignment_of_a_member_that_is_away_is_asked_for_when_it_is_back_and_after_a_restart(
    running: Callable[..., Running],
) -> None:
    two = running(ONE, NONE)
    tree = assigned(two)
    two.hospitals["h0"].down = True
    two.settle(3)
    two.steps["h1"] = Replication(two.hospitals["h1"].node, two.clock)
    two.settle(3)
    two.hospitals["h0"].down = False
    two.settle()
    assert two.holders(tree.tag) == ["h1"]
    followed = two.hospitals["h1"].node.index.followed.position("replication")
    assert followed == max(one.index for one in two.consortium.entries if one.entry.type.startswith("replica"))


def test_copies_follow_a_study_that_grows(running: Callable[..., Running]) -> None:
    two = running(ONE, NONE)
    two.store("h0", range(2))
    two.settle()
    tree = two.store("h0", range(2, 5))
    assert two.holders(tree.tag) == []
    two.settle()
    assert two.holders(tree.tag) == ["h1"]
    assert len(two.consortium.of_type("replica.assign")) == 1
    assert len(two.consortium.of_type("replica.receipt")) == 2


def test_another_member_takes_the_place_of_one_that_is_lost(running: Callable[..., Running]) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (lost,) = three.holders(tree.tag)
    (other,) = {"h1", "h2"} - {lost}
    three.hospitals[lost].down = True
    three.settle()
    assert len(three.hospitals["h0"].node.index.replicas_out.held(tree.tag)) == 1  # not lost yet
    three.clock.pass_by(24 * 3600)
    three.settle()
    assert [row.member for row in three.hospitals["h0"].node.index.replicas_out.held(tree.tag)] == [other]
    assert three.holders(tree.tag) == [other]
    assert len(three.consortium.of_type("replica.release")) == 1
    three.hospitals[lost].down = False
    three.settle()
    node = three.hospitals[lost].node
    assert node.index.trees.by_tag(tree.tag) is None and node.index.replicas_in.all() == []


def test_one_that_comes_back_before_it_counts_as_lost_keeps_what_it_has(running: Callable[..., Running]) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (holder,) = three.holders(tree.tag)
    three.hospitals[holder].down = True
    three.settle()
    three.clock.pass_by(20 * 3600)
    three.hospitals[holder].down = False
    three.settle()
    assert three.holders(tree.tag) == [holder]
    assert len(three.consortium.of_type("replica.assign")) == 1


def test_another_member_takes_the_place_of_one_that_is_retired(running: Callable[..., Running]) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (gone,) = three.holders(tree.tag)
    three.consortium.retire(gone)
    three.clock.pass_by(3601)
    three.settle()
    (row,) = three.hospitals["h0"].node.index.replicas_out.held(tree.tag)
    assert row.member != gone and three.holders(tree.tag) == [row.member]


def test_a_member_that_keeps_nothing_for_others_is_not_asked(running: Callable[..., Running]) -> None:
    three = running(Policy(copies=2), Policy(accept="off"), NONE)
    tree = three.store("h0", range(2))
    three.settle()
    assert three.holders(tree.tag) == ["h2"]
    assert len(three.consortium.of_type("replica.assign")) == 1


def test_one_without_room_says_so_and_another_is_asked(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.errors import StorageFull

    def full(octets: int) -> None:
        raise StorageFull("the disk is full")

    three = running(ONE, NONE, NONE)
    for name in ("h1", "h2"):
        monkeypatch.setattr(three.steps[name]._in.holder.content, "sync", lambda: full(0))
    tree = three.store("h0", range(2))
    three.settle()
    rows = three.hospitals["h0"].node.index.replicas_out.held(tree.tag)
    assert {row.member for row in rows} == {"h1", "h2"} and all(row.refused for row in rows)
    assert {row.why for row in rows} == {"the disk is full"}
    monkeypatch.undo()
    three.clock.pass_by(3600)
    three.settle()
    assert len(three.holders(tree.tag)) == 1


def test_blocks_that_the_origin_lost_come_back_from_who_keeps_them(running: Callable[..., Running]) -> None:
    two = running(ONE, NONE)
    tree = two.store("h0", range(3))
    two.settle()
    assert tree.root is not None
    node, listener = two.hospitals["h0"].node, two.hospitals["h0"].node.gateways.of(two.hospitals["h1"].member.node)
    whole = car(node, tree.root)
    shutil.rmtree(node.settings.home / "packs")
    listened = b"".join(export_car(type("Elsewhere", (), {"get": staticmethod(listener)})(), tree.root))
    assert listened == whole


def test_an_assignment_that_the_ledger_does_not_have_is_not_kept(running: Callable[..., Running]) -> None:
    two = running(ONE, NONE)
    two.store("h0", range(2))
    two.settle()
    (row,) = two.hospitals["h1"].node.index.replicas_in.all()
    forged = two.hospitals["h1"].node.index.replicas_in
    other = next(one for one in two.consortium.entries if one.entry.type == "replica.receipt")
    from bridge.index.replicas_kept import Wanted

    forged.ask(row.node, "h0", [Wanted(bytes(16), other.id, bytes(16), row.root, 1)], two.clock())
    forged.ask(row.node, "h0", [Wanted(b"\1" * 16, b"\1" * 32, bytes(16), row.root, 1)], two.clock())
    two.settle(2)
    found = {one.tag: one for one in forged.all()}
    assert found[bytes(16)].refused and found[bytes(16)].kept is None
    assert found[b"\1" * 16].kept is None and not found[b"\1" * 16].refused


def test_an_index_that_was_lost_learns_from_the_ledger_who_keeps_what(running: Callable[..., Running]) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (holder,) = three.holders(tree.tag)
    node = three.hospitals["h0"].node
    with node.index.database.engine.begin() as connection:
        for table in ("replica_out", "replica_peer", "follow"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    three.settle()
    assert three.holders(tree.tag) == [holder]
    assert len(three.consortium.of_type("replica.assign")) == 1
    assert three.consortium.of_type("replica.release") == []


def test_members_at_rest_hardly_ask_each_other(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over an hour. When each asked each every five seconds it was 8,640 questions, 2.4 a second."""
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(2))
    four.settle()
    assert len(four.holders(tree.tag)) == 2
    asked: list[tuple[str, str]] = []
    ask = Listener.ask

    def counted(listener: Listener, method: str, path: str, body: object = None) -> object:
        asked.append((listener.asking.name, listener.asked.name))
        return ask(listener, method, path, body)

    monkeypatch.setattr(Listener, "ask", counted)
    four.settle(600)  # an hour, six seconds each
    pairs = {frozenset(pair) for pair in asked}
    assert pairs == {frozenset(("h0", name)) for name in four.holders(tree.tag)}  # who has nothing with whom is silent
    assert len(asked) <= 4 * 12
    # and still what happens is seen at once
    before, grown = len(asked), four.store("h0", range(2, 4))
    four.settle(3)
    assert len(four.holders(tree.tag)) == 2 and grown.tag == tree.tag
    assert len(asked) - before <= 4 * 4


def test_a_holder_gets_from_another_what_the_origin_cannot_give(running: Callable[..., Running]) -> None:
    """h0 goes down when one of its two holders has the newest state of a study and the other has heard of it."""
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(2))
    four.settle()
    first, second = four.holders(tree.tag)
    grown = four.store("h0", range(2, 5))
    late = four.steps[second]
    whole, late._in = late._in, replace(late._in, gateway=unreachable)  # it hears of the growth and cannot fetch it
    four.settle(4)
    assert four.holders(tree.tag) == [first]
    four.hospitals["h0"].down, late._in = True, whole
    four.clock.pass_by(600)
    four.settle(4)
    node = four.hospitals[second].node
    assert grown.root is not None and car(node, grown.root) == car(four.hospitals["h0"].node, grown.root)
    (row,) = node.index.replicas_in.all()
    assert row.kept == grown.root and node.index.pins.of(grown.root) is not None
    four.hospitals["h0"].down = False
    four.clock.pass_by(600)
    four.settle()
    assert four.holders(tree.tag) == sorted([first, second])


def test_a_holder_is_given_blocks_by_another_only_while_both_are_to_keep_them(running: Callable[..., Running]) -> None:
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(2))
    four.settle()
    first, second = four.holders(tree.tag)
    (third,) = {"h1", "h2", "h3"} - {first, second}
    assert tree.root is not None

    def may(name: str) -> bool:
        asking = four.hospitals[name].node.gateways.of(four.hospitals[first].member.node)
        try:
            return bool(asking(tree.root))
        except ContentMissing:
            return False

    assert may("h0") and may(second) and not may(third)
    four.steps["h0"]._out.settings = ONE
    four.settle()
    kept = four.holders(tree.tag)
    assert kept == [first] or kept == [second]
    assert not may(second if kept == [first] else third)


def test_blocks_that_a_holder_lost_come_from_the_other_while_the_origin_is_down(
    running: Callable[..., Running],
) -> None:
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(3))
    four.settle()
    first, second = four.holders(tree.tag)
    assert tree.root is not None
    whole = car(four.hospitals[first].node, tree.root)
    four.hospitals["h0"].down = True
    node = four.hospitals[first].node
    likely = ReplicaPlaces(node.index).likely(tree.root)
    assert [one.node for one in likely] == [four.hospitals[name].member.node for name in ("h0", second)]
    places, (page, *_) = ReplicaPlaces(node.index), decode_root(node.content.get(tree.root)).pages
    assert places.likely(page) == []  # of a block that no key opens nothing tells whose it is, but who reads the tree
    with reading(tree.tag):
        assert places.likely(page) == likely
    (row,) = node.index.replicas_in.all()
    shutil.rmtree(node.settings.home / "packs")
    (node.settings.home / "packs").mkdir()
    node.packs.release_removed()
    node.index.replicas_in.lost(row)
    four.settle(3)
    (row,) = node.index.replicas_in.all()
    assert row.kept == tree.root and car(node, tree.root) == whole


def test_while_the_origin_is_down_nothing_is_let_go_and_then_the_lost_one_is_replaced(
    running: Callable[..., Running],
) -> None:
    four = running(Policy(copies=2), NONE, NONE, NONE)
    tree = four.store("h0", range(2))
    four.settle()
    first, second = four.holders(tree.tag)
    (third,) = {"h1", "h2", "h3"} - {first, second}
    four.hospitals["h0"].down = four.hospitals[first].down = True
    four.settle()
    four.clock.pass_by(30 * 24 * 3600)
    four.settle()
    assert tree.root is not None
    assert car(four.hospitals[second].node, tree.root) == car(four.hospitals["h0"].node, tree.root)
    assert four.consortium.of_type("replica.release") == []
    four.hospitals["h0"].down = False
    four.settle()
    four.clock.pass_by(24 * 3600)
    four.settle()
    assert four.holders(tree.tag) == sorted([second, third])


def test_what_a_retired_member_had_kept_stays_for_some_days_and_goes_with_an_entry(
    running: Callable[..., Running],
) -> None:
    two = running(ONE, Policy(retired_days=30))
    tree = two.store("h0", range(2))
    two.settle()
    assert tree.root is not None and two.holders(tree.tag) == ["h1"]
    whole = car(two.hospitals["h0"].node, tree.root)
    two.consortium.retire("h0")
    two.hospitals["h0"].down = True
    two.settle()
    two.clock.pass_by(29 * 24 * 3600)
    two.settle()
    node = two.hospitals["h1"].node
    assert car(node, tree.root) == whole and len(two.consortium.of_type("replica.receipt")) == 1
    two.clock.pass_by(2 * 24 * 3600)
    two.settle()
    assert node.index.replicas_in.all() == [] and node.index.trees.by_tag(tree.tag) is None
    _, gone = two.consortium.of_type("replica.receipt")
    (assigned,) = two.consortium.of_type("replica.assign")
    assert (gone.entry.outcome, gone.entry.refs, gone.entry.node) == (
        8,
        (assigned.id,),
        two.hospitals["h1"].member.node,
    )


class Liar:
    """A member's listener that answers what it likes."""

    def __init__(self, answers: Callable[[int], object]) -> None:
        self.answers, self.asked = answers, 0

    def ask(self, method: str, path: str, body: object = None) -> object:
        self.asked += 1
        return self.answers(self.asked)


def offers(number: int, **changes: object) -> dict[str, object]:
    """One part of a list that never ends, of assignments that nobody made."""
    wanted = {
        "entry": bytes([number % 256] * 32).hex(),
        "tag": bytes([number % 256] * 16).hex(),
        "salt": bytes(16).hex(),
        "root": cids.to_text(cids.make(cids.DAG_CBOR, b"%d" % number)),
        "bytes": 1 << 60,
        "beside": [],
    }
    return {"accepts": True, "refused": [], "replicas": [wanted] * 600, "next": number, "more": True, **changes}


@pytest.mark.parametrize(
    "answers",
    [
        offers,
        lambda number: offers(number, replicas=[]),
        lambda number: offers(number, next=1 << 63),
        lambda number: offers(number, replicas=[{"entry": "zz"}]),
        lambda number: offers(number, replicas=[{**offers(1)["replicas"][0], "beside": "x"}]),  # type: ignore[index]
        lambda number: [],
        lambda number: {"accepts": True},
    ],
)
def test_a_list_that_lies_or_never_ends_leaves_nothing_and_holds_nobody_up(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, answers: Callable[[int], object]
) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (holder,) = three.holders(tree.tag)
    node = three.hospitals[holder].node
    rows, liar = node.index.replicas_in.all(), Liar(answers)
    monkeypatch.setattr(three.steps[holder]._gateways, "of", lambda member: liar)
    three.clock.pass_by(3601)
    three.steps[holder].step()
    assert liar.asked <= 20
    assert node.index.replicas_in.all() == rows


def test_an_offer_under_another_members_assignment_is_refused_and_on_record(
    running: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    three = running(ONE, NONE, NONE)
    tree = three.store("h0", range(2))
    three.settle()
    (holder,) = three.holders(tree.tag)
    (other,) = {"h1", "h2"} - {holder}
    node, (assigned,) = three.hospitals[holder].node, three.consortium.of_type("replica.assign")
    rows = node.index.replicas_in.all()
    stolen = {**offers(1)["replicas"][0], "entry": assigned.id.hex(), "tag": tree.tag.hex()}  # type: ignore[index]
    liar = Liar(lambda number: offers(number, replicas=[stolen], more=False))
    monkeypatch.setattr(three.steps[holder]._gateways, "of", lambda member: liar)
    monkeypatch.setattr(three.steps[holder], "_business", {three.hospitals[other].member.node})
    monkeypatch.setattr(three.steps[holder], "_looked", three.clock() + (1 << 60))
    three.steps[holder].step()
    assert liar.asked == 1 and node.index.replicas_in.all() == rows
    node.access.flush()
    (body,) = [body for body in recorded(node, "access.refused") if body["items"]]
    assert body["actor"]["name"] == other and "assigns nothing of that member" in str(body["items"])


def unreachable(node: bytes) -> Source:
    raise EngineFault("it cannot be reached")


def test_with_no_copies_wanted_any_more_all_are_released(running: Callable[..., Running]) -> None:
    two = running(ONE, NONE)
    tree = two.store("h0", range(2))
    two.settle()
    assert two.holders(tree.tag) == ["h1"]
    two.steps["h0"]._out.settings = NONE
    two.settle()
    assert two.hospitals["h0"].node.index.replicas_out.all() == []
    index = two.hospitals["h1"].node.index
    assert index.trees.by_tag(tree.tag) is None and index.pins.all() == []
    with pytest.raises(ContentMissing):
        two.hospitals["h1"].node.gateways.of(two.hospitals["h0"].member.node)(tree.root)
