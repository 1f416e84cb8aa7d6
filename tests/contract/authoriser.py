"""What every Authoriser must do: subclass `AuthoriserContract` in a test file and give it one.

`make(home, clock)` opens one on a home; `credential(authoriser, role, name, expires)` makes a credential it knows.
"""

import pytest

from bridge.errors import Forbidden, Unauthenticated
from bridge.model import Action, Actor, ActorKind, Role

MAY = {
    Role.VIEWER: {Action.SEARCH, Action.RETRIEVE, Action.FETCH},
    Role.CLINICIAN: {Action.SEARCH, Action.RETRIEVE, Action.FETCH, Action.STORE},
    Role.DEVICE: {Action.STORE},
    Role.AUDITOR: {Action.AUDIT},
    Role.ADMIN: {Action.SEARCH, Action.RETRIEVE, Action.FETCH, Action.STORE, Action.AUDIT, Action.ADMINISTER},
}


class Clock:
    """Microseconds, moved by the test."""

    def __init__(self):
        self.now = 1_000_000

    def __call__(self):
        return self.now


class AuthoriserContract:
    """The suite; `make` and `credential` belong to the implementation."""

    def make(self, home, clock):
        raise NotImplementedError

    def credential(self, authoriser, role, name, expires=None):
        raise NotImplementedError

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def authoriser(self, tmp_path, clock):
        yield from self.make(tmp_path, clock)

    def test_a_credential_names_its_bearer(self, authoriser):
        secret = self.credential(authoriser, Role.VIEWER, "ward 3")
        actor = authoriser.identify(secret, "192.0.2.1")
        assert actor == Actor(ActorKind.USER, "ward 3", Role.VIEWER, "192.0.2.1", "http")
        assert authoriser.identify(self.credential(authoriser, Role.DEVICE, "CT1"), "").kind is ActorKind.DEVICE

    @pytest.mark.parametrize("wrong", ["", "x", "cairn_", "cairn_" + "A" * 43, "cairn_é" + "A" * 42, "\0", "Bearer x"])
    def test_an_unknown_credential_is_nobody(self, authoriser, wrong):
        self.credential(authoriser, Role.ADMIN, "someone")
        with pytest.raises(Unauthenticated):
            authoriser.identify(wrong, "192.0.2.1")

    def test_a_credential_ends_when_it_expires(self, authoriser, clock):
        secret = self.credential(authoriser, Role.VIEWER, "guest", clock.now + 10)
        clock.now += 9
        assert authoriser.identify(secret, "").name == "guest"
        clock.now += 1
        with pytest.raises(Unauthenticated):
            authoriser.identify(secret, "")

    @pytest.mark.parametrize("role", list(Role))
    @pytest.mark.parametrize("action", list(Action))
    def test_a_role_may_do_what_design_section_8_says_and_no_more(self, authoriser, role, action):
        actor = Actor(ActorKind.USER, "someone", role, "", "http")
        if action in MAY[role]:
            authoriser.allow(actor, action)
        else:
            with pytest.raises(Forbidden):
                authoriser.allow(actor, action)

    @pytest.mark.parametrize("role", list(Role))
    def test_a_credential_for_one_study_may_fetch_as_far_as_its_role_goes_and_nothing_else(self, authoriser, role):
        actor = Actor(ActorKind.USER, "someone", role, "", "http", "1.2.3")
        for action in Action:
            if action is Action.FETCH and action in MAY[role]:
                authoriser.allow(actor, action)
            else:
                with pytest.raises(Forbidden):
                    authoriser.allow(actor, action)

    def test_another_member_may_fetch_and_nothing_else(self, authoriser):
        member = Actor(ActorKind.PEER, "St. Elsewhere", None, "", "members")
        for action in set(Action) - {Action.FETCH}:
            with pytest.raises(Forbidden):
                authoriser.allow(member, action)
        authoriser.allow(member, Action.FETCH)

    def test_an_actor_without_a_role_may_nothing(self, authoriser):
        for action in Action:
            with pytest.raises(Forbidden):
                authoriser.allow(Actor(ActorKind.USER, "someone", None, "", "http"), action)
