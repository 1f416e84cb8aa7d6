"""The index on a PostgreSQL that is killed, paused or cut off: what was acknowledged is there, and it goes on."""

from __future__ import annotations

import importlib
import pkgutil
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import types

import bridge.index
from bridge.dicom.attributes import Level, key
from bridge.dicom.matching import Query, arrange, match_for
from bridge.errors import CairnError, ConfigError, StorageFault
from bridge.index import database
from bridge.index import postgresql_connection as connections
from bridge.index.database import PostgresqlPlace, open_database
from bridge.index.index import SqlIndex
from bridge.index.postgresql_connection import StatementRefused
from bridge.index.postgresql_statements import compiled
from bridge.index.record_source import SqlRecordSource
from bridge.model import BatchClosing
from tests.bridge.index.postgresql_relay import PostgresqlRelay
from tests.contract.index import asked, batch, unit
from tests.postgresql_server import PostgresqlServer

STUDY = "1.2.3"


def sop(number: int) -> tuple[str, str, str]:
    return STUDY, "1.2.3.1", f"1.{number}"


def held(index: SqlIndex) -> set[str]:
    return {stored.key.sop for stored in index.locate(STUDY)}


@pytest.fixture
def broken(fresh_postgresql: PostgresqlServer, tmp_path: Path) -> Iterator[SqlIndex]:
    """An index on a server that is to be broken, with one instance."""
    index = SqlIndex(PostgresqlPlace(fresh_postgresql.fresh(), tmp_path), "test", lambda: None)
    index.commit(unit(sop(0))).result()
    yield index
    index.close()


def test_a_server_that_is_killed_is_told_and_used_again_when_it_is_back(
    broken: SqlIndex, fresh_postgresql: PostgresqlServer
) -> None:
    index = broken
    fresh_postgresql.kill()
    assert index.unreachable() == ["the index database cannot be reached"]
    with pytest.raises(StorageFault):
        index.commit(unit(sop(1))).result()
    with pytest.raises(StorageFault):
        held(index)
    with pytest.raises(StorageFault):
        index.search(Query(Level.STUDY))
    fresh_postgresql.start()
    assert held(index) == {"1.0"}
    assert len(index.search(Query(Level.STUDY)).matches) == 1
    index.commit(unit(sop(1))).result()
    assert held(index) == {"1.0", "1.1"}
    while index.unreachable():  # which is not asked anew for half a second
        time.sleep(0.02)


def test_what_was_acknowledged_while_the_server_is_killed_again_and_again_is_there(
    broken: SqlIndex, fresh_postgresql: PostgresqlServer
) -> None:
    index, said, over = broken, {"1.0"}, threading.Event()
    into = batch(STUDY)

    def commit() -> None:
        number = 1
        while not over.is_set():
            try:
                index.commit(unit(sop(number), into)).result()
            except CairnError:
                time.sleep(0.01)
                continue  # as a sender does: again
            said.add(f"1.{number}")
            number += 1

    thread = threading.Thread(target=commit)
    thread.start()
    for _ in range(3):
        before = len(said)
        while len(said) < before + 25:
            time.sleep(0.01)
        fresh_postgresql.kill()
        fresh_postgresql.start()
    over.set()
    thread.join()
    assert held(index) == said
    ((_, leaves),) = [found for found in index.open_batches("test") if found[0].id == into.id]
    assert len(leaves) >= len(said) - 1
    assert index.check() == []


def test_a_server_that_answers_nothing_is_not_waited_for_without_end(
    broken: SqlIndex, fresh_postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = broken
    monkeypatch.setattr(connections.Connection, "limit", 1.0)
    monkeypatch.setattr(connections, "CONNECT_S", 1)
    index.writer._writing._connection.limit = 1.0  # type: ignore[attr-defined]
    for connection in index.database._pool._idle:  # type: ignore[attr-defined]
        connection.limit = 1.0
    with fresh_postgresql.paused():
        with pytest.raises(StorageFault):
            index.commit(unit(sop(1))).result()
        with pytest.raises(StorageFault):
            held(index)
        assert index.unreachable() != []
    index.commit(unit(sop(1))).result()
    assert held(index) == {"1.0", "1.1"}


@pytest.fixture
def relay(fresh_postgresql: PostgresqlServer) -> Iterator[PostgresqlRelay]:
    with closing(PostgresqlRelay(fresh_postgresql.folder)) as relay:
        yield relay


@pytest.mark.parametrize("delivered", [True, False])
def test_a_commit_whose_answer_is_lost_is_told_as_it_came_out(
    delivered: bool, fresh_postgresql: PostgresqlServer, relay: PostgresqlRelay, tmp_path: Path
) -> None:
    """Cut off behind COMMIT, or before it reaches the server: acknowledged when it came to pass, else refused."""
    direct = fresh_postgresql.fresh()
    through = direct.replace(str(fresh_postgresql.folder), str(relay.folder))
    index = SqlIndex(PostgresqlPlace(through, tmp_path), "test", lambda: None)
    index.commit(unit(sop(0))).result()
    relay.cut_at(b"COMMIT", delivered=delivered)
    waiting = index.commit(unit(sop(1)))
    if delivered:
        waiting.result(30)
    else:
        with pytest.raises(StorageFault):
            waiting.result(30)
    assert relay.has_cut
    assert held(index) == ({"1.0", "1.1"} if delivered else {"1.0"})
    index.commit(unit(sop(1))).result()
    index.commit(unit(sop(2))).result()
    assert held(index) == {"1.0", "1.1", "1.2"}
    index.close()


def test_while_it_is_not_known_what_became_of_a_commit_others_are_refused(
    fresh_postgresql: PostgresqlServer, relay: PostgresqlRelay, tmp_path: Path
) -> None:
    through = fresh_postgresql.fresh().replace(str(fresh_postgresql.folder), str(relay.folder))
    index = SqlIndex(PostgresqlPlace(through, tmp_path), "test", lambda: None)
    relay.cut_at(b"COMMIT", delivered=True, then_refuse=True)
    waiting = asked(index.commit(unit(sop(0))))
    assert relay.cut.wait(60)
    with pytest.raises(StorageFault):
        index.commit(unit(sop(1))).result(30)
    assert not waiting.done()
    relay.accept()
    waiting.result(30)
    assert held(index) == {"1.0"}
    index.close()


def test_closed_batches_have_numbers_without_gaps_in_the_order_in_which_they_are_seen(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    place = PostgresqlPlace(postgresql.fresh(), tmp_path)
    indexes = [SqlIndex(place, name, lambda: None) for name in ("one", "two", "three")]

    def close_many(index: SqlIndex) -> None:
        for number in range(30):
            into = batch(f"1.{number}", owner=index.owner)
            uids = f"1.{number}", f"1.{number}.1", f"1.{number}.{indexes.index(index)}"
            index.commit(unit(uids, into)).result()
            index.close_batch(into, BatchClosing(1, 1, bytes(32))).result()

    threads = [threading.Thread(target=close_many, args=(index,)) for index in indexes]
    with closing(SqlRecordSource(place, lambda what, text: bytes(16))) as source:
        for thread in threads:
            thread.start()
        seen: list[int] = []
        while len(seen) < 90:
            seen += [found.id for found in source.closed_batches(len(seen), 100)]
            assert seen == list(range(1, len(seen) + 1))
    for thread in threads:
        thread.join()
    for index in indexes:
        assert index.check() == []
        index.close()


def test_every_statement_of_the_index_is_one_that_postgresql_takes(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    for module in pkgutil.iter_modules(bridge.index.__path__):
        importlib.import_module(f"bridge.index.{module.name}")
    url = postgresql.fresh()
    open_database(PostgresqlPlace(url, tmp_path)).close()
    examples: list[tuple[type[types.TypeEngine[Any]], object]] = [
        *((types.Boolean, True), (types.BigInteger, 1 << 40), (types.Integer, 1)),
        *((types.LargeBinary, b"x"), (types.String, "x")),
    ]
    with closing(connections.connect(url)) as connection:
        for text, (construct, columns) in list(database._CONSTRUCTS.items()):
            binds = construct.compile(column_keys=None if columns is None else list(columns)).binds  # type: ignore[attr-defined]
            values = {
                name: next((value for kind, value in examples if isinstance(bind.type, kind)), None)
                for name, bind in binds.items()
            }
            connection.execute(b"EXPLAIN " + compiled(text), values)


def test_values_that_no_b_tree_would_take_are_stored_and_found(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    index = SqlIndex(PostgresqlPlace(postgresql.fresh(), tmp_path), "test", lambda: None)
    long = "".join(f"{number:x}" for number in range(9000))
    index.commit(unit(PatientID=long, AccessionNumber=long, PatientName=f"Doe^{long}")).result()
    for name, text in (("PatientID", "0123*"), ("AccessionNumber", "0123*"), ("PatientName", "Doe^0*")):
        found = index.search(Query(Level.STUDY, keys=arrange([match_for(key(name), text)]))).matches
        assert len(found) == 1, name
    index.close()


def test_a_text_with_a_nul_is_kept_without_it(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    index = SqlIndex(PostgresqlPlace(postgresql.fresh(), tmp_path), "test", lambda: None)
    index.commit(replace(unit(sop(0)), source="CT1\0\0")).result()
    assert index.database.rows("SELECT source FROM instance", {}) == [("CT1\ufffd\ufffd",)]
    index.close()


def test_a_broken_constraint_is_a_bug_and_names_no_value(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    index = SqlIndex(PostgresqlPlace(postgresql.fresh(), tmp_path), "test", lambda: None)
    twice = "INSERT INTO follow VALUES ('a secret', 1), ('a secret', 2)"
    waiting = index.run(lambda transaction: transaction.cursor.execute(twice))
    with pytest.raises(StatementRefused) as refused:
        waiting.result()
    assert "secret" not in str(refused.value) and "23505" in str(refused.value)
    index.close()


def test_a_session_writes_durably_whatever_the_database_says(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    url = postgresql.fresh()
    name = url.rpartition("/")[2] if "?" not in url else url.partition("?")[0].rpartition("/")[2]
    postgresql.ask("postgres", f"ALTER DATABASE {name} SET synchronous_commit = off")
    with closing(open_database(PostgresqlPlace(url, tmp_path))) as opened:
        assert opened.rows("SHOW synchronous_commit", {}) == [("on",)]


def test_a_server_that_does_not_sync_is_refused(fresh_postgresql: PostgresqlServer, tmp_path: Path) -> None:
    url = fresh_postgresql.fresh()

    def set_to(said: str, statement: str) -> None:
        fresh_postgresql.ask(url, statement)
        fresh_postgresql.ask(url, "SELECT pg_reload_conf()")
        while fresh_postgresql.ask(url, "SHOW fsync") != [(said,)]:
            time.sleep(0.02)

    set_to("off", "ALTER SYSTEM SET fsync = off")
    with pytest.raises(ConfigError):
        open_database(PostgresqlPlace(url, tmp_path))
    set_to("on", "ALTER SYSTEM RESET fsync")
    open_database(PostgresqlPlace(url, tmp_path)).close()


def test_tables_of_another_version_are_refused(postgresql: PostgresqlServer, tmp_path: Path) -> None:
    place = PostgresqlPlace(postgresql.fresh(), tmp_path)
    open_database(place).close()
    postgresql.ask(place.url, "UPDATE cairn.meta SET value = '2' WHERE name = 'schema version'")
    with pytest.raises(ConfigError, match="cairn backup"):
        open_database(place)


def test_neither_place_nor_error_tells_a_password(tmp_path: Path) -> None:
    word = "".join(("ses", "ame"))
    place = PostgresqlPlace(f"postgresql://cairn:{word}@127.0.0.1:1/cairn", tmp_path)
    assert word not in repr(place)
    with pytest.raises(StorageFault) as refused:
        open_database(place)
    assert word not in "".join(traceback.format_exception(refused.value))


def test_too_many_connections_are_told_as_busy(fresh_postgresql: PostgresqlServer, tmp_path: Path) -> None:
    url = fresh_postgresql.fresh()
    (limit,) = fresh_postgresql.ask(url, "SHOW max_connections")[0]
    taken = []
    try:
        with pytest.raises(psycopg.OperationalError):
            for _ in range(int(str(limit)) + 1):
                taken.append(psycopg.connect(url))
        with pytest.raises(CairnError):
            open_database(PostgresqlPlace(url, tmp_path))
    finally:
        for connection in taken:
            connection.close()
