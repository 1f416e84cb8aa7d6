"""The page of a study's content: where it lies, its tree drawn and listed, and what somebody should look at."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from ledger_in_memory import MADE_US, some
from node_in_memory import STUDY, Client, FakeNode
from test_console_pages import Overview, Page, open_page

from bridge.model import (
    BLOCK_KINDS,
    BlockCount,
    ContentOverview,
    ManifestInstance,
    ManifestPage,
    PackShare,
    StudyContent,
    Tree,
    TreeContent,
)
from dicomweb.console import dag, words

URL = f"/console/studies/{STUDY}/content"


def cid(number: int) -> bytes:
    """A CID of ours (dag-cbor, blake3) that nothing has."""
    return b"\x01\x71\x1e\x20" + number.to_bytes(32, "big")


def tree_of(pages: int = 1, instances: int = 3, told: int = 3, **changes: object) -> TreeContent:
    """A tree of so many pages of so many instances each."""
    made = tuple(
        ManifestPage(
            cid(page),
            instances,
            tuple(
                ManifestInstance(cid(1000 * page + one), cid(7), 5 if one == told else 1, 1 << 20)
                for one in range(1, told + 1)
            ),
        )
        for page in range(1, pages + 1)
    )
    kinds = {kind: BlockCount(2, 3 << 20) for kind in BLOCK_KINDS}
    tree = Tree(1, STUDY, None, bytes(16), cid(0), pages * instances)
    packs = (PackShare(3, 10, 17 << 20, trimmed=False), PackShare(4, 2, 1 << 20, trimmed=True))
    plain = TreeContent(tree, kinds, made, packs, pages * instances, 0, MADE_US, None, 1, 2)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def auditor(anonymous: Client, node: FakeNode) -> Client:
    some().attach(node)
    node.contents[STUDY] = StudyContent(STUDY, "kubo", (), (tree_of(),))
    anonymous.headers = {"authorization": "Bearer auditor", "accept": "text/html"}
    return anonymous


def shown(auditor: Client, node: FakeNode, *trees: TreeContent, faults: tuple[str, ...] = ()) -> Page:
    node.contents[STUDY] = StudyContent(STUDY, "kubo", faults, trees)
    return open_page(auditor, URL)


def test_a_cid_is_written_as_kubo_writes_it() -> None:
    text = words.cid(cid(5))
    assert text.startswith("bafyr4i") and text == text.lower()
    assert base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8)) == cid(5)


def test_the_page_says_where_the_study_lies(auditor: Client, node: FakeNode) -> None:
    page = open_page(auditor, URL)
    for said in (
        words.cid(cid(0)),
        "3 instances, 12 blocks, 18.0 MiB",
        "kubo",
        "1 of 2 copies",
        "not yet read back as a whole",
        "00000003.car: 10 blocks",
        "(trimmed: in the engine alone)",
    ):
        assert said in page.said
    assert f"/console/studies/{STUDY}" in page.links
    assert ("audited", "auditor", f"content {STUDY}") in node.recorded


def test_the_drawing_is_told_in_a_sentence_and_as_a_list_too(auditor: Client, node: FakeNode) -> None:
    page = open_page(auditor, URL)
    drawing = next(one["aria-label"] for one in page.all("svg") if one["class"] == "dag")
    assert drawing == ("The root names 1 page, these name 3 instances with 2 leaves, 2 file nodes and sealed metadata.")
    frame = next(one for one in page.all("div") if one.get("class") == "tree")
    assert frame["tabindex"] == "0" and frame["role"] == "region" and frame["aria-label"]
    for number in (0, 1, 1001, 1002, 1003):
        assert words.cid(cid(number)) in page.said.partition("As a list")[2]


def test_what_is_wrong_comes_first(auditor: Client, node: FakeNode) -> None:
    page = shown(auditor, node, tree_of(unread=2), faults=("Kubo does not answer",))
    assert "The content engine: Kubo does not answer" in page.said
    assert "2 blocks could not be read or found." in page.said
    assert "There are 1 copies, and 2 are wanted." in page.said


def test_of_a_large_study_it_is_said_what_was_counted(auditor: Client, node: FakeNode) -> None:
    page = shown(auditor, node, tree_of(pages=9, instances=1000, told=8, counted=2000))
    assert "Of the first 2,000 of 9,000 instances" in page.said
    assert "and 6 pages more" in page.said and "and 997 more" in page.said
    assert "(of 2,000 of them)" in next(one["aria-label"] for one in page.all("svg") if one["class"] == "dag")


def test_a_study_of_several_nodes_has_a_tree_of_each(auditor: Client, node: FakeNode) -> None:
    other = tree_of(tree=Tree(2, STUDY, bytes.fromhex("ab" * 16), bytes(16), cid(9), 3))
    page = shown(auditor, node, tree_of(), other)
    assert "Tree of this node (1)" in page.said and "Tree of another node (2)" in page.said
    assert "node " + "ab" * 16 in page.said
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_study_whose_batch_is_open_has_no_root_yet(auditor: Client, node: FakeNode) -> None:
    empty = tree_of(0, tree=Tree(1, STUDY, None, bytes(16), None, 0), pinned=None, replicas=None, wanted=None, packs=())
    page = shown(auditor, node, empty)
    assert "There is no root yet" in page.said and "in the packs of this node" in page.said
    assert "its batch is open" in open_page(auditor, f"/console/studies/{STUDY}").said


def test_what_is_not_held_is_not_found_and_its_story_goes_without(auditor: Client, node: FakeNode) -> None:
    assert "1 of 2 copies" in open_page(auditor, f"/console/studies/{STUDY}").said
    node.contents.clear()
    open_page(auditor, URL, 404)
    assert "copies" not in open_page(auditor, f"/console/studies/{STUDY}").said


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("clinician", 403), ("device", 403), ("admin", 200)])
def test_only_those_who_may_audit_see_it(auditor: Client, role: str, status: int) -> None:
    auditor.headers["authorization"] = f"Bearer {role}"
    open_page(auditor, URL, status)


@pytest.mark.parametrize("pages", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("told", [0, 1, 8])
def test_boxes_stay_inside_the_picture(pages: int, told: int) -> None:
    markup = Page(dag.draw(tree_of(pages, 500, told)))
    width, height = map(float, next(markup.all("svg"))["viewbox"].split()[2:])
    for box in (*markup.all("rect"), *markup.all("text")):
        assert 0 <= float(box["x"]) + float(box.get("width", 0)) <= width
        assert 0 <= float(box["y"]) + float(box.get("height", 0)) <= height


def test_the_instance_of_most_leaves_is_drawn() -> None:
    assert ">5 leaves, 1.0 MiB<" in dag.draw(tree_of(1, 500, 8))


ENGINE = ContentOverview("kubo", pinned=3, verified=2, oldest=MADE_US, days=30, begun=MADE_US, share=0.4)


@pytest.mark.parametrize(
    ("engine", "said", "unsaid"),
    [
        (ENGINE, "3 studies", "wait for it"),
        (ENGINE, "2 studiesthe longest ago", "Trimmed"),
        (ENGINE, "40% read", "not whole"),
        (ENGINE, "as many as wanted", "fewer"),
        (replace(ENGINE, waiting=2, short=1, trimmed=4), "3 studies; 2 wait for it", "as many as wanted"),
        (replace(ENGINE, short=1, trimmed=4), "1 study has fewer than wanted", "as many as wanted"),
        (replace(ENGINE, trimmed=4), "4 packs", "Since"),
        (replace(ENGINE, wrong=3, mended=2), "3 blocks were not whole, 2 of them mended", "Since"),
        (replace(ENGINE, faults=((MADE_US, "Kubo does not answer"),)), "Kubo does not answer", "turned off"),
        (replace(ENGINE, days=0), "turned off", "read once"),
        (ContentOverview("embedded", days=1), "nothing has been read yet", "Pinned"),
        (ContentOverview("embedded", days=1), "none so far", "Copies"),
    ],
)
def test_the_storage_page_tells_of_the_content_engine(
    auditor: Client, node: FakeNode, engine: ContentOverview, said: str, unsaid: str
) -> None:
    overview = Overview()
    overview.engine = engine
    console: Any = node
    console.overview = overview
    text = open_page(auditor, "/console/storage").said
    assert said in text and unsaid not in text
