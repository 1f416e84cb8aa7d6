"""The index made again: from packs and keys, from another node's study, from what only Kubo holds any more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.config import Content, Kubo, Settings
from bridge.content import cid as cids
from bridge.content import dag, manifest
from bridge.content.pack_format import packs_in
from bridge.content.sealed_metadata import inflate
from bridge.crypto.keystore import open_keystore
from bridge.dicom import attributes
from bridge.errors import EngineFault
from bridge.index.aside import set_aside
from bridge.index.rows import rebuilt
from bridge.model import AdoptedTree, Outcome, Tree
from bridge.node import Node
from bridge.offline import managed_kubo
from bridge.offline import rebuilt as rebuilt_offline
from bridge.services.fsck import fsck
from bridge.services.metadata import open_metadata
from bridge.services.rebuild_index import rebuild_index
from tests.bridge.services.conftest import CHEAP, instance, part10
from tests.bridge.services.test_store import read, store
from tests.kubo_daemon import IPFS, KuboDaemon
from tests.node.running_node import free_ports

STUDY = "1.2.840.1"
EMBEDDED = Content(reserve_bytes=0)
Open = Callable[..., Node]


def quiet(_: str) -> None:
    return None


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Open]:
    """Opens the node of a home by its name, as often as wanted; closes what is left open."""
    opened: list[Node] = []

    def open_(name: str = "home", content: Content = EMBEDDED) -> Node:
        home = tmp_path / name
        opened.append(Node(Settings(home=home, content=content), open_keystore(home, cost=CHEAP), "command"))
        return opened[-1]

    yield open_
    for node in opened:
        if not node.closed:
            node.close()


def again(open_at: Open, node: Node, content: Content = EMBEDDED) -> tuple[Node, dict[str, int]]:
    """The node with an index made anew, and what that counted."""
    node.close()
    assert set_aside(node.settings.home / "index.db") is not None
    fresh = open_at(node.settings.home.name, content)
    return fresh, rebuild_index(fresh, quiet)


def trees(node: Node) -> list[tuple[object, ...]]:
    """Every tree with its pages and links, without its number."""
    every = sorted(node.index.trees.every(), key=lambda tree: tree.tag)
    return [(*tree[1:], *node.index.study_tree(tree.tag)) for tree in every]


def send(node: Node, *sops: str, study: str = STUDY, rows: int = 8) -> list[bytes]:
    files = [part10(instance(study=study, series=f"{study}.1", sop=sop, rows=rows)) for sop in sops]
    for file in files:
        store(node, file)
    return files


def own_tree(node: Node, study: str = STUDY) -> Tree:
    (tree,) = [tree for tree in node.index.trees.of_study(study) if tree.origin is None]
    return tree


def take_in(giver: Node, taker: Node, study: str) -> list[Outcome]:
    """A study of one node at another: the same blocks, its keys, its tree."""
    tree = own_tree(giver, study)
    assert tree.root is not None
    positions = taker.content.put(list(dag.walk(tree.root, giver.content.get)))
    taker.content.sync()
    for key in giver.keys.held(study):
        taker.keys.adopt(key, giver.keystore.node_id)
    pages = giver.index.study_tree(tree.tag).pages
    links = [link for page in pages for link in manifest.decode_page(giver.content.get(page))]
    instances = []
    for link in links:
        metadata = open_metadata(taker.content, taker.keys, link)
        found = attributes.extract(json.loads(inflate(metadata.json)))
        block = manifest.decode_instance(taker.content.get(link))
        places = tuple(p for p in positions if p.cid in {cid for cid, _ in dag.order(link, giver.content.get)})
        instances.append(rebuilt(metadata, block, link, found, places))
    adopted = AdoptedTree(study, giver.keystore.node_id, tree.tag, tree.root, pages, tuple(links))
    return list(taker.index.adopt(adopted, instances, positions).result().outcomes)


def test_roots_stay_as_they_were_and_grow_on(open_at: Open) -> None:
    node = open_at()
    send(node, "1.1", "1.2", "1.3")
    send(node, "2.1", study="1.2.840.2")
    before = trees(node)
    node, counted = again(open_at, node)
    assert {name: counted[name] for name in ("instances", "studies", "not_opened")} == {
        "instances": 4,
        "studies": 2,
        "not_opened": 0,
    }
    assert trees(node) == before
    former = own_tree(node)
    send(node, "1.4")
    grown = own_tree(node)
    assert grown.covered == 4 and grown.root is not None
    assert manifest.decode_root(node.content.get(grown.root)).previous == former.root
    assert fsck(node, quiet) == []


def test_whose_each_block_is_is_known_again(open_at: Open) -> None:
    node = open_at()
    send(node, "1.1", rows=1024)
    sql = "SELECT cid, instance IS NULL FROM block ORDER BY cid"
    before = node.index.database.rows(sql, {})
    assert [alone for _, alone in before].count(1) == 2, "a page and a root"
    node, _ = again(open_at, node)
    assert node.index.database.rows(sql, {}) == before


def test_a_copy_that_was_healed_stays_and_the_damaged_one_is_not_missed(open_at: Open) -> None:
    node = open_at()
    (file, *_) = send(node, "1.1", "1.2")
    damaged = node.retrieve.locate(STUDY, f"{STUDY}.1", "1.1")[0]
    position = node.index.locate_block(damaged.object.root)
    assert position is not None
    with packs_in(node.settings.home / "packs")[0].open("r+b") as pack:
        pack.seek(position.offset + 100)
        pack.write(b"damage")
    node.index.mark_damaged(damaged)
    assert store(node, file).outcome is Outcome.HEALED
    before = trees(node)
    node, counted = again(open_at, node)
    assert (counted["instances"], trees(node)) == (2, before)
    assert read(node, node.retrieve.locate(STUDY, f"{STUDY}.1", "1.1")[0]) == file


def test_a_root_that_was_put_but_not_named_is_not_taken_for_the_newest(open_at: Open) -> None:
    node = open_at()
    send(node, "1.1", "1.2")
    tree = own_tree(node)
    links = node.index.study_tree(tree.tag).instances
    page = manifest.encode_page(links[:1])
    page_cid = cids.make(cids.DAG_CBOR, page)
    root = manifest.encode_root(manifest.StudyRoot(tree.tag, (page_cid,), None))
    blocks = [manifest.Block(page_cid, page), manifest.Block(cids.make(cids.DAG_CBOR, root), root)]
    node.content.put(blocks)
    before = trees(node)
    node, _ = again(open_at, node)
    assert trees(node) == before


def test_a_study_of_another_node_keeps_its_root_and_ours_of_it_another(open_at: Open) -> None:
    giver, taker = open_at("giver"), open_at("taker")
    files = send(giver, "1.1", "1.2")
    ours = send(taker, "1.2", "1.3")
    assert take_in(giver, taker, STUDY) == [Outcome.NEW, Outcome.AGAIN]
    own, theirs = taker.index.trees.of_study(STUDY)
    assert (theirs.origin, theirs.root) == (giver.keystore.node_id, own_tree(giver).root)
    served = [read(taker, one) for one in taker.retrieve.locate(STUDY)]
    assert served == [files[0], *ours]
    before = trees(taker)
    taker, counted = again(open_at, taker)
    assert (counted["instances"], counted["studies"], counted["not_opened"]) == (3, 2, 0)
    assert trees(taker) == before
    assert [read(taker, one) for one in taker.retrieve.locate(STUDY)] == served
    send(taker, "1.4")
    assert own_tree(taker).covered == own.covered + 1
    assert taker.index.trees.by_tag(theirs.tag)[1:] == theirs[1:]  # type: ignore[index]
    assert fsck(taker, quiet) == []


def test_a_study_whose_key_is_gone_is_counted_and_not_made_again(open_at: Open) -> None:
    node = open_at()
    send(node, "1.1", "1.2")
    send(node, "2.1", study="1.2.840.2")
    node.keys.delete(STUDY)
    node, counted = again(open_at, node)
    assert (counted["instances"], counted["studies"], counted["not_opened"]) == (1, 1, 2)
    assert node.index.trees.of_study(STUDY) == []


def test_what_left_the_packs_comes_back_from_kubo(open_at: Open, kubo: KuboDaemon) -> None:
    with_kubo = Content(engine="kubo", reserve_bytes=0, kubo=Kubo(api=kubo.api))
    node = open_at("home", with_kubo)
    files = send(node, "1.1", "1.2", rows=600)
    tree = own_tree(node)
    assert tree.root is not None
    node.content.pin(tree.root)
    before = trees(node)
    node.close()
    (pack,) = packs_in(node.settings.home / "packs")
    pack.unlink()
    for cached in (node.settings.home / "cache").rglob("*"):
        assert not cached.is_file()
    node = open_at("home", with_kubo)
    node, counted = again(open_at, node, with_kubo)
    assert (counted["blocks"], counted["instances"], counted["studies"]) == (0, 2, 1)
    assert trees(node) == before
    assert [read(node, one) for one in node.retrieve.locate(STUDY)] == files
    node.content.unpin(tree.root)


def test_without_the_kubo_that_holds_it_nothing_is_made_rather_than_half_of_it(
    open_at: Open, fresh_kubo: KuboDaemon
) -> None:
    node = open_at("home", Content(engine="kubo", reserve_bytes=0, kubo=Kubo(api=fresh_kubo.api)))
    send(node, "1.1")
    set_aside(node.settings.home / "index.db")
    with pytest.raises(EngineFault):
        rebuild_index(node, quiet)


def test_a_kubo_of_the_nodes_own_runs_while_the_index_is_made_again(open_at: Open, tmp_path: Path) -> None:
    api, swarm = free_ports(2)
    kubo = Kubo(api=f"http://127.0.0.1:{api}", managed=True, binary=str(IPFS), swarm_port=swarm)
    settings = Settings(home=tmp_path / "home", content=Content(engine="kubo", reserve_bytes=0, kubo=kubo))
    with managed_kubo(settings):
        node = open_at("home", settings.content)
        (file,) = send(node, "1.1")
        root = own_tree(node).root
        assert root is not None
        node.content.pin(root)
        node.close()
    (pack,) = packs_in(settings.home / "packs")
    pack.unlink()
    assert rebuilt_offline(settings, quiet)["instances"] == 1
    with managed_kubo(settings):
        node = open_at("home", settings.content)
        assert [read(node, one) for one in node.retrieve.locate(STUDY)] == [file]
        node.close()


def test_the_index_is_not_set_aside_while_kubo_does_not_answer(open_at: Open, tmp_path: Path) -> None:
    (api,) = free_ports(1)
    content = Content(engine="kubo", reserve_bytes=0, kubo=Kubo(api=f"http://127.0.0.1:{api}"))
    node = open_at("home", content)
    send(node, "1.1")
    node.close()
    with pytest.raises(EngineFault):
        rebuilt_offline(Settings(home=tmp_path / "home", content=content), quiet)
    assert len(open_at("home", content).retrieve.locate(STUDY)) == 1
