"""fsck finds what the index has lost or says wrongly, and nothing where nothing is wrong."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bridge.node import Node
from bridge.services.fsck import Finding, fsck
from bridge.services.rebuild_index import set_aside
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_store import store


def findings(node: Node) -> list[Finding]:
    return fsck(node, lambda _: None)


def test_an_index_that_is_gone_does_not_look_like_an_empty_archive(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    store(node, part10(instance()))
    assert findings(node) == []
    node.close()
    set_aside(home)
    (found,) = findings(open_node())
    assert "rebuild-index" in found.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE instance SET data_set = data_set + 2", "data set"),
        ("UPDATE instance SET transfer_syntax = '1.2.840.10008.1.2'", "transfer syntax"),
        ("UPDATE instance_data SET frames = x'00'", "frames"),
        ("UPDATE instance_data SET json = ?", "JSON"),
        ("UPDATE instance SET served = 0", "served"),
    ],
)
def test_a_row_that_was_changed_is_told_apart_from_what_was_sealed(
    open_node: Callable[[], Node], home: Path, change: str, said: str
) -> None:
    node = open_node()
    store(node, part10(instance()))
    node.close()
    values = (zlib.compress(b'{"00100010":{"vr":"PN"}}'),) if "?" in change else ()
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        connection.execute(change, values)
    (found,) = findings(open_node())
    assert said in found.what
