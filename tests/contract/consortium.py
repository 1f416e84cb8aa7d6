"""What every Consortium must do: subclass `ConsortiumContract` and give it one over a log that the suite can write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.ports import Consortium

State = Callable[..., bytes]


class ConsortiumContract:
    """The suite.

    Subclasses have the fixtures `consortium`, as seen by the first of at least three hospitals, all joined, and
    `state`: `state(hospital number, type, body, refs)` has a hospital state something, final when it returns; its id.
    """

    @pytest.fixture
    def consortium(self) -> Consortium:
        raise NotImplementedError

    @pytest.fixture
    def state(self) -> State:
        raise NotImplementedError

    def test_the_node_is_one_of_the_members_by_name(self, consortium: Consortium) -> None:
        names = [member.name for member in consortium.members()]
        own = consortium.own()
        assert own is not None and own.name == names[0] and names == sorted(names)
        assert all(member.active for member in consortium.members())

    def test_an_entry_is_found_by_its_id_when_it_is_final(self, consortium: Consortium, state: State) -> None:
        node = consortium.members()[1].node
        id = state(0, "consent.grant", {"to": node, "x": 7})
        found = consortium.entry(id)
        assert found is not None and found.id == id and found.entry.terms == {"to": node, "x": 7}
        assert found.entry.node == consortium.members()[0].node and found.time_us > 0
        assert consortium.entry(bytes(32)) is None

    def test_entries_of_some_types_are_followed_in_order_from_where_one_stopped(
        self, consortium: Consortium, state: State
    ) -> None:
        before = [*consortium.follow(-1, ["consent.grant", "consent.revoke"])]
        node = consortium.members()[1].node
        ids = []
        for _ in range(3):
            ids.append(state(0, "consent.grant", {"to": node}))
            state(1, "app.start", None)
            ids.append(state(0, "consent.revoke", None, [ids[-1]]))
        after = before[-1].index if before else -1
        followed = consortium.follow(after, ["consent.revoke", "consent.grant"])
        assert [one.id for one in followed] == ids
        assert [one.index for one in followed] == sorted(one.index for one in followed)
        assert [one.id for one in consortium.follow(followed[2].index, ["consent.grant", "consent.revoke"])] == ids[3:]
        assert list(consortium.follow(followed[-1].index, ["consent.grant", "consent.revoke"])) == []
        last = state(0, "consent.grant", {"to": node})
        assert [one.id for one in consortium.follow(followed[-1].index, ["consent.grant", "consent.revoke"])] == [last]
        assert [one.id for one in consortium.follow(-1, ["consent.revoke"])][-3:] == ids[1::2]
        assert list(consortium.follow(-1, ["share.end"])) == [] and list(consortium.follow(-1, [])) == []

    def test_own_entries_are_found_by_their_records_root_and_those_of_others_are_not(
        self, consortium: Consortium, state: State
    ) -> None:
        for hospital, expected in ((0, True), (1, False)):
            found = consortium.entry(state(hospital, "app.start", None))
            assert found is not None
            assert (consortium.made(found.entry.records_root, True) == found.id) is expected
            assert (consortium.made(found.entry.records_root, False) == found.id) is expected
        assert consortium.made(bytes(32), False) is None
