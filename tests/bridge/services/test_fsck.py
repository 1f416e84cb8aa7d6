"""fsck finds what the index has lost or says wrongly, and nothing where nothing is wrong."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bridge.content.pack_format import pack_path
from bridge.errors import EngineFault
from bridge.index.aside import set_aside
from bridge.model import Block, BlockPosition, Tree
from bridge.node import Node
from bridge.services.check_content import check_tree
from bridge.services.fixity import copies_of
from bridge.services.fsck import Finding, fsck
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_check_content import MemoryCopy
from tests.bridge.services.test_store import store


def findings(node: Node) -> list[Finding]:
    return fsck(node, lambda _: None)


def test_an_index_that_is_gone_does_not_look_like_an_empty_archive(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    store(node, part10(instance()))
    assert findings(node) == []
    node.close()
    set_aside(home / "index.db")
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
        ("UPDATE tree SET covered = 2", "other pages"),
        ("DELETE FROM study_page", "other pages"),
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


def test_a_tree_whose_pages_name_others_than_its_instances_is_found(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    for sop in ("1.1", "1.2"):
        store(node, part10(instance(study="1.2", series="1.2.1", sop=sop)))
    node.close()
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        connection.execute("UPDATE instance SET tree = NULL WHERE sop = '1.1'")
    found = findings(open_node())
    assert "1 instances belong to no tree" in [one.what for one in found]
    assert "its pages name other instances than the index" in [
        one.what for one in found if one.place.startswith("tree")
    ]


def test_packs_that_were_trimmed_are_not_missed_and_pages_elsewhere_name_what_lay_in_them(
    open_node: Callable[[], Node], home: Path
) -> None:
    node = open_node()
    store(node, part10(instance(study="1.2")))
    node.close()
    (pack,) = (home / "packs").glob("*.car")
    held = pack.read_bytes()
    node = open_node()
    (page,) = node.index.study_tree(node.keys.study_key("1.2").tag).pages
    position = node.index.locate_block(page)
    assert position is not None
    node.index.content_state.trim(0, 1)
    node.content.put([Block(page, held[position.offset : position.offset + position.length])])
    node.close()
    with closing(sqlite3.connect(home / "index.db")) as connection, connection:
        connection.execute("DELETE FROM block")  # as in an index made again after the packs were gone
    assert [found.what for found in findings(open_node()) if found.place.startswith("page")] == []
    pack.unlink()
    assert [found.place.split()[0] for found in findings(open_node())] == ["instance", "tree"]


def test_an_engine_that_does_not_answer_makes_no_instance_a_damaged_one(
    open_node: Callable[[], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    store(node, part10(instance(study="1.2")))

    def silent(cid: bytes) -> bytes:
        raise EngineFault("Kubo does not answer")

    monkeypatch.setattr(node.content, "get", silent)
    assert {found.what for found in fsck(node, lambda _: None, repair=True)} == {"Kubo does not answer"}
    assert not node.index.locate("1.2")[0].damaged


def grown(node: Node) -> Tree:
    """A study that was stored in two batches, so that a former page and root lie beside the newest."""
    for sop in ("1.1", "1.2"):
        store(node, part10(instance(study="1.2", series="1.2.1", sop=sop)))
    (tree,) = node.index.trees.every()
    return tree


def former(node: Node, tree: Tree) -> BlockPosition:
    root = node.index.scrub.former_roots(tree.tag)[-1]
    position = node.index.locate_block(root)
    assert root != tree.root and position is not None
    return position


def test_a_pack_that_is_gone_is_missed_until_every_block_that_a_study_needs_lies_elsewhere(
    open_node: Callable[[], Node], home: Path
) -> None:
    node = open_node()
    tree = grown(node)
    copy = MemoryCopy("peer", {place.cid: node.content.get(place.cid) for place in node.index.positions(0)})
    node.close()
    pack_path(home / "packs", 0).unlink()
    node = open_node()
    assert Finding("pack 00000000.car", "is named by the index and does not exist") in findings(node)
    assert tree.root is not None
    checked = [*check_tree(tree.root, copies_of(node, tree), copy.read)]
    assert checked and all(one.findings and one.findings[0].mended for one in checked)
    assert former(node, tree).pack == 0
    assert findings(node) == []


def test_a_damaged_former_root_is_named_and_repair_lets_go_of_it(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    position = former(node, grown(node))
    node.close()
    path = pack_path(home / "packs", position.pack)
    data = bytearray(path.read_bytes())
    data[position.offset] ^= 1
    path.write_bytes(bytes(data))
    node = open_node()
    (found,) = findings(node)
    assert "no study needs any more" in found.what and found.place.endswith(f"at byte {position.offset}")
    assert fsck(node, lambda _: None, repair=True) == [found]
    assert findings(node) == []


def test_a_damaged_page_that_is_needed_stays_a_finding_after_repair(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    (page,) = node.index.study_tree(grown(node).tag).pages
    position = node.index.locate_block(page)
    assert position is not None
    node.close()
    path = pack_path(home / "packs", position.pack)
    data = bytearray(path.read_bytes())
    data[position.offset] ^= 1
    path.write_bytes(bytes(data))
    node = open_node()
    before = fsck(node, lambda _: None, repair=True)
    assert [found.place.split()[0] for found in before] == ["pack", "tree"] and findings(node) == before


def zeroed(pack: Path) -> None:
    pack.write_bytes(bytes(pack.stat().st_size))


def emptied(pack: Path) -> None:
    pack.write_bytes(b"")


def cut_within_its_header(pack: Path) -> None:
    pack.write_bytes(pack.read_bytes()[:10])


def with_another_header(pack: Path) -> None:
    pack.write_bytes(b"x" + pack.read_bytes()[1:])


def with_rubbish_behind(pack: Path) -> None:
    pack.write_bytes(pack.read_bytes() + b"rubbish " * 400_000)


@pytest.mark.parametrize("damage", [zeroed, emptied, cut_within_its_header, with_another_header, with_rubbish_behind])
def test_a_damaged_pack_is_clean_again_when_it_was_repaired_and_its_instances_sent_again(
    open_node: Callable[[], Node], home: Path, damage: Callable[[Path], None]
) -> None:
    sent = part10(instance())
    node = open_node()
    store(node, sent)
    node.close()
    damage(pack_path(home / "packs", 0))
    node = open_node()
    assert findings(node)
    assert fsck(node, lambda _: None, repair=True)
    store(node, sent)
    node.batches.close_all()
    fsck(node, lambda _: None, repair=True)  # new pages have taken the place of those that were damaged
    assert findings(node) == []
    assert node.retrieve.verify(node.index.instance(1)) is None


def test_a_pack_that_cannot_be_opened_is_named_and_the_others_are_checked(
    open_node: Callable[[], Node], home: Path
) -> None:
    node = open_node()
    store(node, part10(instance()))
    pack_path(home / "packs", 7).mkdir()
    node.close()
    (found,) = findings(open_node())
    assert found.place == "pack 00000007.car" and "cannot be read" in found.what
