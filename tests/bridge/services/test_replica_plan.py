"""Which members keep a study: what must hold of every plan, whatever members come, go, refuse or are silent."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.services.replica_plan import REFUSED_FOR_US, Holding, Move, Peer, is_lost, plan, ranked, to_ask, usable

HOUR = 3600 * 1_000_000
LOST = 24 * HOUR
NOW = 1_000 * HOUR

nodes = st.binary(min_size=16, max_size=16)
tags = st.binary(min_size=16, max_size=16)
peers = st.builds(
    Peer,
    nodes,
    active=st.booleans(),
    accepts=st.booleans(),
    silent=st.none() | st.integers(NOW - 2 * LOST, NOW),
    fresh=st.booleans(),
)
consortia = st.lists(peers, max_size=7, unique_by=lambda peer: peer.node)


@st.composite
def situations(draw):
    """Members, and assignments to some of them and to some that are no members any more."""
    members = draw(consortia)
    holders = draw(
        st.lists(st.sampled_from([peer.node for peer in members]) | nodes, max_size=5, unique=True)
        if members
        else st.lists(nodes, max_size=2, unique=True)
    )
    refused = st.none() | st.integers(NOW - 2 * REFUSED_FOR_US, NOW)
    held = [Holding(node, draw(st.booleans()), draw(refused)) for node in holders]
    return draw(tags), draw(st.integers(0, 4)), members, held


def after(held, steps):
    """The assignments once the steps were done: what is assigned is not confirmed yet."""
    gone = {step.node for step in steps if step.move is Move.RELEASE}
    kept = [holding for holding in held if holding.node not in gone]
    return kept + [Holding(step.node) for step in steps if step.move is Move.ASSIGN]


def settled(tag, copies, members, held):
    """The assignments when there is nothing left to do or to ask and every holder has stated its receipt."""
    members = list(members)
    for _ in range(40):
        steps = plan(tag, copies, members, held, NOW, LOST)
        asked = set(to_ask(tag, copies, members, held, NOW, LOST))
        stale = [peer for peer in members if peer.node in asked and not peer.fresh]
        if not steps and not stale:
            return held
        members = [peer._replace(fresh=True) if peer in stale else peer for peer in members]
        held = [holding._replace(confirmed=holding.refused is None) for holding in after(held, steps)]
    raise AssertionError("the plan never settles")


@given(situations())
def test_a_copy_is_given_only_to_members_that_take_it_and_to_none_twice(situation):
    tag, copies, members, held = situation
    steps = plan(tag, copies, members, held, NOW, LOST)
    assert len({step.node for step in steps}) == len(steps)
    able = {peer.node for peer in usable(members)}
    given_to = [step.node for step in steps if step.move is Move.ASSIGN]
    assert set(given_to) <= able - {holding.node for holding in held}
    assert {step.node for step in steps if step.move is Move.RELEASE} <= {holding.node for holding in held}
    assert given_to == [node for node in ranked(tag, able) if node in given_to]


@given(situations(), st.randoms())
def test_the_order_in_which_members_and_assignments_are_told_decides_nothing(situation, random):
    tag, copies, members, held = situation
    before = plan(tag, copies, members, held, NOW, LOST)
    random.shuffle(members)
    random.shuffle(held)
    assert sorted(plan(tag, copies, members, held, NOW, LOST)) == sorted(before)


@given(situations())
def test_it_settles_with_as_many_copies_as_are_wanted_or_can_be_had(situation):
    tag, copies, members, held = situation
    final = settled(tag, copies, members, held)
    known = {peer.node: peer for peer in members}
    good = [one for one in final if one.refused is None and not is_lost(known[one.node], NOW, LOST)]
    free = {peer.node for peer in usable(members)} - {one.node for one in final}
    assert len(good) == copies or (len(good) < copies and not free)
    assert all(known[one.node].active for one in final)


@given(situations())
def test_no_confirmed_copy_is_let_go_before_others_suffice(situation):
    tag, copies, members, held = situation
    steps = plan(tag, copies, members, held, NOW, LOST)
    known = {peer.node: peer for peer in members}
    for step in steps:
        peer = known.get(step.node)
        holding = next((one for one in held if one.node == step.node), None)
        if (
            step.move is Move.ASSIGN
            or peer is None
            or not peer.active
            or holding is None
            or holding.refused is not None
        ):
            continue
        left = [
            one
            for one in after(held, steps)
            if one.confirmed and one.refused is None and not is_lost(known[one.node], NOW, LOST)
        ]
        assert len(left) >= copies


@given(situations(), nodes)
def test_a_new_member_moves_no_copy_that_is_good_where_it_is(situation, newcomer):
    tag, copies, members, held = situation
    final = settled(tag, copies, members, held)
    good = sum(one.refused is None for one in final)
    members = [peer._replace(fresh=True) for peer in members]
    grown = plan(tag, copies, [*members, Peer(newcomer)], final, NOW, LOST)
    if newcomer in {peer.node for peer in members} or good >= copies:
        return
    assert all(step.move is Move.ASSIGN and step.node == newcomer for step in grown)


@given(situations())
def test_nothing_is_given_to_who_was_not_asked_lately(situation):
    tag, copies, members, held = situation
    fresh = {peer.node for peer in members if peer.fresh}
    given_to = {step.node for step in plan(tag, copies, members, held, NOW, LOST) if step.move is Move.ASSIGN}
    assert given_to <= fresh
    asked = to_ask(tag, copies, members, held, NOW, LOST)
    assert len(asked) <= copies + 1 and not set(asked) & {holding.node for holding in held}
    assert given_to <= set(asked)


def test_of_very_many_members_few_are_asked_and_none_when_a_study_has_its_copies():
    tag, members = bytes(16), [Peer(number.to_bytes(16, "big"), fresh=False) for number in range(1_000)]
    asked = to_ask(tag, 2, members, [], NOW, LOST)
    assert asked == ranked(tag, [peer.node for peer in members])[:3]
    assert to_ask(tag, 2, members, [Holding(node) for node in asked[:2]], NOW, LOST) == []
    assert plan(tag, 2, members, [], NOW, LOST) == []
    silent = [peer._replace(silent=NOW) if peer.node in asked else peer for peer in members]
    assert not set(to_ask(tag, 2, silent, [], NOW, LOST)) & set(asked)


def test_who_refused_or_was_silent_is_asked_again_where_there_is_nobody_else():
    members = [Peer(bytes([1]) * 16, accepts=False), Peer(bytes([2]) * 16, silent=NOW), Peer(bytes([3]) * 16)]
    asked = to_ask(bytes(16), 2, members, [], NOW, LOST)
    assert asked[0] == members[2].node and set(asked) == {peer.node for peer in members}


@given(tags, st.lists(nodes, min_size=2, max_size=9, unique=True))
def test_without_one_member_the_others_keep_their_order(tag, members):
    order = ranked(tag, members)
    for left_out in members:
        assert ranked(tag, [node for node in members if node != left_out]) == [
            node for node in order if node != left_out
        ]


def test_studies_spread_evenly_over_members():
    members = [bytes([number]) * 16 for number in range(5)]
    first = Counter(ranked(number.to_bytes(16, "big"), members)[0] for number in range(5_000))
    assert all(850 < count < 1_150 for count in first.values())


def test_a_lost_member_is_replaced_at_once_and_let_go_when_the_other_has_the_study():
    tag, members = bytes(16), [Peer(bytes([number]) * 16) for number in range(3)]
    first, second = ranked(tag, [peer.node for peer in members])[:2]
    silent = [peer._replace(silent=NOW - LOST) if peer.node == first else peer for peer in members]
    held = [Holding(first, confirmed=True)]
    (step,) = plan(tag, 1, silent, held, NOW, LOST)
    assert (step.move, step.node) == (Move.ASSIGN, second)
    both = [*held, Holding(second)]
    assert plan(tag, 1, silent, both, NOW, LOST) == []
    (step,) = plan(tag, 1, silent, [*held, Holding(second, confirmed=True)], NOW, LOST)
    assert (step.move, step.node) == (Move.RELEASE, first)


def test_a_member_that_is_silent_for_less_keeps_what_it_has_and_gets_nothing_new():
    tag, quiet = bytes(16), Peer(bytes(16), silent=NOW - LOST + 1)
    assert plan(tag, 1, [quiet], [Holding(quiet.node, confirmed=True)], NOW, LOST) == []
    assert plan(tag, 1, [quiet], [], NOW, LOST) == []


def test_one_that_refuses_is_asked_again_after_an_hour_if_nobody_else_keeps_the_study():
    tag, only = bytes(16), Peer(bytes(16))
    refused = Holding(only.node, refused=NOW)
    assert plan(tag, 1, [only], [refused], NOW, LOST) == []
    later = NOW + REFUSED_FOR_US
    (step,) = plan(tag, 1, [only], [refused], later, LOST)
    assert step.move is Move.RELEASE
    (step,) = plan(tag, 1, [only], [], later, LOST)
    assert step.move is Move.ASSIGN


def test_with_no_copies_wanted_all_are_let_go():
    members = [Peer(bytes([number]) * 16) for number in range(3)]
    held = [Holding(peer.node, confirmed=True) for peer in members]
    assert {step.move for step in plan(bytes(16), 0, members, held, NOW, LOST)} == {Move.RELEASE}
    assert len(plan(bytes(16), 0, members, held, NOW, LOST)) == 3
