"""Several processes on one index: none loses what it was told is committed, none stalls another, kill -9 included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.dicom.attributes import Level
from bridge.dicom.matching import Query
from bridge.errors import NotFound
from bridge.index.database import Place
from bridge.index.index import SqlIndex
from tests.contract.index import tag_of, unit

ROOT = Path(__file__).parents[3]


def start(place: Place, name: str, count: int) -> subprocess.Popen[str]:
    where = (str(place), "") if isinstance(place, Path) else (str(place.home), place.url)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bridge.index.committing", *where, name, str(count)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def located(index: SqlIndex, study: str) -> set[str]:
    try:
        return {stored.key.sop for stored in index.locate(study)}
    except NotFound:
        return set()


def test_two_processes_write_at_once(place: Place) -> None:
    processes = [start(place, name, 40) for name in ("7", "8")]
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0
        assert len(said.split()) == 40
    index = SqlIndex(place, "test", lambda: None)
    assert index.search(Query(Level.STUDY)).matches[0]["00201208"] == {"vr": "IS", "Value": [40]}
    for name in ("7", "8"):
        assert located(index, f"1.{name}") == {f"1.{name}.1.{number}" for number in range(40)}
    index.close()


@pytest.mark.parametrize("acknowledged", [1, 2, 5, 9, 14])
def test_kill_9_loses_nothing_that_was_acknowledged(place: Place, acknowledged: int) -> None:
    process = start(place, "7", 100_000)
    assert process.stdout is not None
    for _ in range(acknowledged):
        process.stdout.readline()
    process.kill()
    said = acknowledged + len(process.stdout.read().split())
    process.stdout.close()
    process.wait()
    index = SqlIndex(place, "test", lambda: None)
    found = located(index, "1.7")
    assert {f"1.7.1.{number}" for number in range(said)} <= found
    ((left, leaves),) = index.open_batches("7")
    assert (left.owner, left.type, left.study, len(leaves)) == ("7", "study.store", "1.7", len(found))
    assert len(index.study_tree(tag_of("1.7")).instances) == len(found)
    assert index.open_batches("8") == []
    index.close()


def test_one_process_sees_what_another_commits_and_forgets_nothing_it_knew(place: Place) -> None:
    one = SqlIndex(place, "one", lambda: None)
    other = SqlIndex(place, "other", lambda: None)
    for number in range(6):
        index = (one, other)[number % 2]
        index.commit(unit(("1.2", "1.2.1", f"1.{number}"))).result()
        assert len(one.locate("1.2")) == len(other.locate("1.2")) == number + 1
    one.close()
    other.close()
