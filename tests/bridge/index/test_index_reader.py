"""How lookups find their rows: by keys all the way down, however large the study is."""

import pytest

from bridge.index import reader
from bridge.index.sqlite import SqliteDatabase

KEY = {"study": "1.2", "series": "1.2.3", "sop": "1.2.3.4"}


@pytest.fixture
def database(tmp_path):
    database = SqliteDatabase(tmp_path / "index.db")
    yield database
    database.close()


@pytest.mark.parametrize("statement", [reader._LOCATE[2], reader._KEYS[2], reader._SERVED])
def test_one_instance_is_found_without_reading_the_others_of_its_study(database, statement):
    plan = [row[3] for row in database.rows(f"EXPLAIN QUERY PLAN {statement}", KEY)]
    assert "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (series=? AND sop=?)" in plan


@pytest.mark.parametrize("statement", [reader._LOCATE[1], reader._KEYS[1]])
def test_a_series_is_found_without_reading_the_others_of_its_study(database, statement):
    plan = [row[3] for row in database.rows(f"EXPLAIN QUERY PLAN {statement}", KEY)]
    assert "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (series=?)" in plan
