"""Tokens, login links and sessions: shown once, hashed at rest, gone at once when revoked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.access.sessions import LINK_US, SESSION_US, Sessions
from bridge.access.tokens import Tokens
from bridge.errors import CredentialEnded, NotFound, Unauthenticated
from bridge.index.index import SqlIndex
from bridge.model import Role
from tests.contract.authoriser import AuthoriserContract, Clock


class TestTokens(AuthoriserContract):
    def make(self, home, clock):  # type: ignore[no-untyped-def]
        index = SqlIndex(home / "index.db", "test", lambda: None)
        yield Tokens(index, clock)
        index.close()

    def credential(self, authoriser, role, name, expires=None):  # type: ignore[no-untyped-def]
        return authoriser.create(role, name, expires).secret


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqlIndex]:
    index = SqlIndex(tmp_path / "index.db", "test", lambda: None)
    yield index
    index.close()


def test_a_revoked_token_is_refused_at_once_in_another_process_too(index: SqlIndex, tmp_path: Path) -> None:
    other = SqlIndex(tmp_path / "index.db", "other", lambda: None)
    here, there = Tokens(index), Tokens(other)
    made = here.create(Role.ADMIN, "root")
    for tokens in (here, there, there):
        assert tokens.identify(made.secret, "").role is Role.ADMIN
    here.revoke(made.id)
    for tokens in (there, here):
        with pytest.raises(Unauthenticated):
            tokens.identify(made.secret, "")
    other.close()


def test_a_token_may_name_the_one_study_that_it_is_good_for(index: SqlIndex) -> None:
    tokens = Tokens(index)
    made = tokens.create(Role.VIEWER, "partner", study="1.2.3")
    assert (tokens.identify(made.secret, "").study, tokens.identify(made.secret, "").how) == ("1.2.3", "gateway")
    assert tokens.list()[0].study == "1.2.3"
    assert tokens.identify(tokens.create(Role.VIEWER, "ward").secret, "").study is None


def test_tokens_are_listed_without_secrets_and_revoked_once(index: SqlIndex) -> None:
    clock = Clock()
    tokens = Tokens(index, clock)
    made = tokens.create(Role.VIEWER, "ward", 5_000_000)
    (row,) = tokens.list()
    assert (row.id, row.role, row.name, row.created, row.expires, row.revoked) == (
        *(made.id, "viewer", "ward", clock.now, 5_000_000, None),
    )
    tokens.revoke(made.id)
    assert tokens.list()[0].revoked == clock.now
    for gone in (made.id, "unknown"):
        with pytest.raises(NotFound):
            tokens.revoke(gone)


def test_no_secret_lies_in_the_database(index: SqlIndex, tmp_path: Path) -> None:
    tokens, sessions = Tokens(index), Sessions(index)
    link = sessions.link(Role.ADMIN, "root")
    spent = sessions.link(Role.ADMIN, "root")
    secrets = [tokens.create(Role.ADMIN, "root").secret, link, sessions.redeem(spent)]
    held = b"".join(path.read_bytes() for path in tmp_path.glob("index.db*"))
    assert len(set(secrets)) == 3
    for secret in secrets:
        assert secret.partition("_")[2].encode()[:12] not in held  # the random part, which may hold more of "_"
        assert secret.encode() not in held


def test_a_login_link_buys_one_session(index: SqlIndex) -> None:
    clock = Clock()
    sessions, tokens = Sessions(index, clock), Tokens(index, clock)
    link = sessions.link(Role.AUDITOR, "officer")
    with pytest.raises(Unauthenticated):
        tokens.identify(link, "")
    session = sessions.redeem(link)
    actor = tokens.identify(session, "192.0.2.9")
    assert (actor.name, actor.role, actor.address) == ("officer", Role.AUDITOR, "192.0.2.9")
    with pytest.raises(Unauthenticated):
        sessions.redeem(link)
    clock.now += SESSION_US
    with pytest.raises(Unauthenticated):
        tokens.identify(session, "")


def test_a_login_link_is_redeemed_once_even_by_many_at_once(index: SqlIndex) -> None:
    sessions = Sessions(index)
    link = sessions.link(Role.ADMIN, "root")

    def redeem(_: int) -> bool:
        try:
            return bool(sessions.redeem(link))
        except Unauthenticated:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, range(8))) == 1


@pytest.mark.parametrize("wrong", ["", "cairnlink_", "cairnlink_" + "A" * 43, "cairn_" + "A" * 43])
def test_a_login_link_that_is_none_buys_nothing(index: SqlIndex, wrong: str) -> None:
    with pytest.raises(Unauthenticated):
        Sessions(index).redeem(wrong)


def test_a_login_link_lasts_ten_minutes(index: SqlIndex) -> None:
    clock = Clock()
    sessions = Sessions(index, clock)
    link = sessions.link(Role.VIEWER, "late")
    clock.now += LINK_US
    with pytest.raises(Unauthenticated):
        sessions.redeem(link)


def test_a_session_ends_when_its_bearer_logs_out(index: SqlIndex) -> None:
    sessions, tokens = Sessions(index), Tokens(index)
    session = sessions.redeem(sessions.link(Role.VIEWER, "ward"))
    assert tokens.identify(session, "").name == "ward"
    sessions.end(session)
    with pytest.raises(Unauthenticated):
        tokens.identify(session, "")


def test_a_credential_that_ended_says_how_to_the_record_and_not_in_the_answer(index: SqlIndex) -> None:
    clock = Clock()
    tokens, sessions = Tokens(index, clock), Sessions(index, clock)
    revoked, expiring = tokens.create(Role.VIEWER, "leaver"), tokens.create(Role.VIEWER, "guest", clock.now + 5)
    tokens.revoke(revoked.id)
    session = sessions.redeem(sessions.link(Role.VIEWER, "browser"))
    clock.now += SESSION_US
    told = []
    for secret in (revoked.secret, expiring.secret, session):
        with pytest.raises(CredentialEnded) as ended:
            tokens.identify(secret, "")
        told.append((ended.value.how, ended.value.credential, ended.value.holder))
        with pytest.raises(Unauthenticated) as unknown:
            tokens.identify("cairn_" + "x" * 43, "")
        assert (str(ended.value), ended.value.slug) == (str(unknown.value), unknown.value.slug)
    assert told == [
        ("revoked", revoked.id, "leaver"),
        ("expired", expiring.id, "guest"),
        ("expired", "session", "browser"),
    ]
