"""The background scrub and fsck of content at work on a node: what they read, mend, flag, note and record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.pack_format import pack_path
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.model import OPERATOR, Outcome, Tree
from bridge.node import Node
from bridge.services import scrub as scrubbing
from bridge.services.access import SYSTEM
from bridge.services.check_content import Checked, ContentFinding
from bridge.services.fixity import Tally, check_all
from bridge.services.remake_manifest import pages_of, root_of
from bridge.services.scrub import Scrub
from bridge.services.scrub_plan import DAY_US
from tests.bridge.services.conftest import instance, part10, recorded
from tests.bridge.services.test_check_content import MemoryCopy
from tests.bridge.services.test_store import store

START = 1_700_000_000_000_000


class Clock:
    """A clock that is moved by hand, and a scrub that follows it."""

    def __init__(self, node: Node) -> None:
        self.now = START
        self.node = node
        self.scrub = Scrub(node, lambda: self.now)

    def run(self, days: float) -> None:
        """Call the scrub as it asks to be, for so many days."""
        end = self.now + round(days * DAY_US)
        while self.now < end:
            self.now += max(1, round(min(self.scrub.step() * 1_000_000, end - self.now)))


def trees(node: Node) -> list[Tree]:
    return list(node.index.trees.every())


def damage(node: Node, cid: bytes) -> Path:
    """Flip a byte of a block where it lies in a pack."""
    position = node.index.locate_block(cid)
    assert position is not None
    path = pack_path(node.settings.home / "packs", position.pack)
    data = bytearray(path.read_bytes())
    data[position.offset] ^= 1
    path.write_bytes(bytes(data))
    return path


def verified(node: Node) -> list[bool]:
    roots = [tree.root for tree in trees(node)]
    pins = [node.index.pins.of(root) for root in roots if root is not None]
    return [pin is not None and pin.verified is not None for pin in pins]


@pytest.fixture
def three(node: Node) -> list[bytes]:
    """The files of three studies of one instance."""
    files = [part10(instance()) for _ in range(3)]
    for file in files:
        store(node, file)
    return files


def test_every_study_is_read_once_in_the_period_and_noted_as_verified(node: Node, three: list[bytes]) -> None:
    clock = Clock(node)
    clock.run(0.01)
    assert verified(node) == [True, False, False]
    clock.run(11)
    assert verified(node) == [True, True, False]
    clock.run(18.9)
    assert verified(node) == [True, True, True] and recorded(node, "content.scrub") == []
    clock.run(0.2)
    (said,) = recorded(node, "content.scrub")
    assert (said["did"], said["trees"], said["wrong"]) == ("background, all", 3, 0)
    assert said["actor"]["how"] == "node" and "findings" not in said


def test_a_restart_goes_on_where_the_pass_was(open_node: Callable[[], Node]) -> None:
    node = open_node()
    for _ in range(3):
        store(node, part10(instance()))
    first = Clock(node)
    first.run(11)
    node.close()
    node = open_node()
    second = Clock(node)
    second.now = first.now
    second.run(5)
    assert verified(node) == [True, True, False]
    second.run(10)
    assert verified(node) == [True, True, True]


def test_with_no_days_nothing_is_read(node: Node, three: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    scrub = Scrub(node)
    monkeypatch.setattr(scrub, "_period", 0)
    assert scrub.step() > 1 and verified(node) == [False, False, False]


def test_what_is_lost_is_recorded_and_flagged_and_heals_when_it_is_sent_again(node: Node, three: list[bytes]) -> None:
    (stored, _), *_ = node.index.instances()
    damage(node, stored.object.root)
    Clock(node).run(0.01)
    (said,) = recorded(node, "content.scrub")
    assert (said["did"], said["wrong"], said["mended"]) == ("background", 1, 0)
    (finding,) = said["findings"]
    assert finding["block"] == cids.to_text(stored.object.root) and finding["what"] == "damaged"
    assert verified(node) == [False, False, False]
    assert node.index.counts()["damaged"] == 1
    assert store(node, three[0]).outcome is Outcome.HEALED
    Clock(node).run(31)
    assert verified(node) == [True, True, True]


def test_what_was_lost_is_read_again_after_an_hour_and_recorded_once(node: Node, three: list[bytes]) -> None:
    (stored, _), *_ = node.index.instances()
    damage(node, stored.object.root)
    clock = Clock(node)
    clock.run(0.5)
    assert node.index.scrub.lost() == [1] and len(recorded(node, "content.scrub")) == 1
    store(node, three[0])  # heals it
    clock.run(0.1)
    assert node.index.scrub.lost() == [] and verified(node) == [True, False, False]
    assert len(recorded(node, "content.scrub")) == 1


def test_what_was_lost_and_sent_again_is_read_again_within_seconds(node: Node, three: list[bytes]) -> None:
    (stored, _), *_ = node.index.instances()
    damage(node, stored.object.root)
    clock = Clock(node)
    clock.run(0.5 / 24)
    assert check_all(node, lambda _: None).wrong == 1 and node.index.scrub.lost() == [1]
    store(node, three[0])  # heals it
    clock.run(0.01 / 24)
    assert node.index.scrub.lost() == [] and verified(node)[0]


def test_what_was_sent_again_is_no_finding_while_the_root_still_names_the_damaged_copy(
    node: Node, three: list[bytes]
) -> None:
    (stored, _), *_ = node.index.instances()
    damage(node, stored.object.root)
    assert check_all(node, lambda _: None).wrong == 1
    root = trees(node)[0].root
    with node.store.reception(OPERATOR) as reception:
        incoming = reception.begin()
        incoming.write(three[0])
        assert incoming.commit().outcome is Outcome.HEALED
        assert trees(node)[0].root == root, "the batch is open"
        assert check_all(node, lambda _: None).wrong == 0
        assert node.index.scrub.lost() == [1] and verified(node)[0] is False
    Clock(node).run(0.01)
    assert node.index.scrub.lost() == [] and verified(node)[0]


def test_what_was_lost_and_is_there_again_is_damaged_no_longer(node: Node, three: list[bytes]) -> None:
    (stored, _), *_ = node.index.instances()
    damage(node, stored.object.root)
    assert check_all(node, lambda _: None).wrong == 1 and node.index.counts()["damaged"] == 1
    damage(node, stored.object.root)  # the same bit: as it was
    assert check_all(node, lambda _: None).wrong == 0
    assert node.index.counts()["damaged"] == 0 and node.index.scrub.lost() == []


def test_of_several_that_were_lost_each_has_its_turn(node: Node, three: list[bytes]) -> None:
    instances = list(node.index.instances())
    for stored, _ in instances[:2]:
        damage(node, stored.object.root)
    assert check_all(node, lambda _: None).wrong == 2 and node.index.scrub.lost() == [1, 2]
    store(node, three[1])
    Clock(node).run(0.2)
    assert node.index.scrub.lost() == [1]
    node.index.scrub.note(99, lost=True)  # of a tree that is no longer held
    Clock(node).run(0.2)
    assert node.index.scrub.lost() == [1]


def test_a_step_reads_a_part_of_a_large_study(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    study = generate_uid()
    for _ in range(4):
        store(node, part10(instance(study=study)))
    monkeypatch.setattr(scrubbing, "STEP_BLOCKS", 5)
    scrub = Scrub(node, lambda: START)
    waits = [scrub.step() for _ in range(3)]  # root, page, and three blocks for each instance
    assert waits == [scrubbing.PAUSE_S, scrubbing.PAUSE_S, 0.0] and verified(node) == [True]
    assert scrub.step() == scrubbing.LONGEST_WAIT_S


class Beside(MemoryCopy):
    """An engine beside the packs that holds what it was given."""


@pytest.fixture
def beside(node: Node, three: list[bytes], monkeypatch: pytest.MonkeyPatch) -> Beside:
    """All blocks of the node, in another engine too, with each root pinned."""
    held: dict[bytes, bytes] = {}
    for pack in node.index.packs():
        held |= {position.cid: node.packs.get(position.cid) for position in node.index.positions(pack)}
    copy = Beside("kubo", held)
    monkeypatch.setattr(node.content, "copy", copy, raising=False)
    for tree in trees(node):
        assert tree.root is not None
        node.content.pin(tree.root)
    return copy


def test_each_copy_is_mended_from_the_other(node: Node, beside: Beside) -> None:
    blocks = dict(beside.blocks)
    (first, _), (second, _), *_ = node.index.instances()
    before = damage(node, first.object.root).read_bytes()
    del beside.blocks[second.object.root]
    Clock(node).run(31)
    one, other, whole = recorded(node, "content.scrub")
    assert [finding["mended"] for said in (one, other) for finding in said["findings"]] == ["kubo", "packs"]
    assert (whole["wrong"], whole["mended"]) == (2, 2)
    assert beside.blocks == blocks and node.packs.get(first.object.root) == blocks[first.object.root]
    assert before != pack_path(node.settings.home / "packs", 0).read_bytes()
    assert verified(node) == [True, True, True] and node.index.counts()["damaged"] == 0


def test_a_pack_that_was_trimmed_is_not_missed(node: Node, beside: Beside) -> None:
    node.index.content_state.trim(0, START)
    pack_path(node.settings.home / "packs", 0).unlink()
    tally = check_all(node, lambda _: None)
    assert tally.wrong == 0 and tally.trees == 3 and verified(node) == [True, True, True]


def test_an_engine_that_is_down_stops_the_scrub_for_a_while_and_nothing_is_recorded(node: Node, beside: Beside) -> None:
    beside.down = True
    clock = Clock(node)
    assert clock.scrub.step() == scrubbing.AFTER_FAULT_S
    assert recorded(node, "content.scrub") == [] and verified(node) == [False, False, False]
    beside.down = False
    clock.run(31)
    assert verified(node) == [True, True, True]


def test_fsck_reads_everything_now(node: Node, three: list[bytes]) -> None:
    lines: list[str] = []
    tally = check_all(node, lines.append)
    assert (tally.trees, tally.blocks, tally.wrong, tally.outcome) == (3, 15, 0, 0)
    assert verified(node) == [True, True, True] and len(lines) == 3
    (said,) = recorded(node, "content.scrub")
    assert said["did"] == "all" and said["actor"]["name"] == "operator"


def test_fsck_tells_what_is_lost_and_goes_on(node: Node, three: list[bytes]) -> None:
    (stored, link), *_ = node.index.instances()
    check_all(node, lambda _: None)
    assert verified(node) == [True, True, True]  # the first of them not for long
    damage(node, link)
    lines: list[str] = []
    tally = check_all(node, lines.append)
    assert (tally.trees, tally.wrong, tally.mended, tally.outcome) == (3, 1, 0, 8)
    assert [line for line in lines if "NOT mended" in line and cids.to_text(link) in line]
    assert verified(node) == [False, True, True] and node.index.counts()["damaged"] == 1
    with pytest.raises(ContentCorrupt):
        node.content.get(link)
    assert not stored.damaged


def test_a_sample_reads_roots_and_pages_and_some_instances_whole(node: Node) -> None:
    study = generate_uid()
    for _ in range(60):
        store(node, part10(instance(study=study)))
    tally = check_all(node, lambda _: None, 10)
    assert tally.trees == 1 and tally.blocks % 3 == 2 and 2 <= tally.blocks < 182
    assert {check_all(node, lambda _: None, 50).blocks for _ in range(8)} != {tally.blocks}
    assert verified(node) == [False]
    assert "10 percent" in recorded(node, "content.scrub")[0]["did"]


def test_what_was_found_is_recorded_although_the_engine_fails(node: Node, beside: Beside) -> None:
    beside.down = True
    with pytest.raises(EngineFault):
        check_all(node, lambda _: None)
    assert len(recorded(node, "content.scrub")) == 1


def test_a_record_of_very_many_findings_tells_the_first_and_counts_all(node: Node, three: list[bytes]) -> None:
    study = generate_uid()
    for _ in range(30):
        store(node, part10(instance(study=study)))
    pack_path(node.settings.home / "packs", 0).write_bytes(b"")
    tally = check_all(node, lambda _: None)
    assert (tally.wrong, tally.mended) == (41, 8)  # roots and pages can be made again, instance blocks cannot
    assert len(recorded(node, "content.scrub")[0]["findings"]) == 41
    many = Tally()
    finding = ContentFinding(cids.make(cids.RAW, b"x"), "pack 00000000.car at byte 1234567890", "damaged " * 40, "")
    for _ in range(500):
        many.take(Checked(finding.block, 0, (finding,)))
    node.access.administered("content.scrub", SYSTEM, many.body("all"), outcome=8)
    assert many.wrong == 500 and len(recorded(node, "content.scrub")[1]["findings"]) == 50


def test_a_source_elsewhere_mends_what_no_copy_has(
    node: Node, three: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored, _), *_ = node.index.instances()
    data = node.packs.get(stored.object.root)
    damage(node, stored.object.root)

    def get(cid: bytes) -> bytes:
        if cid == stored.object.root:
            return data
        raise ContentMissing("elsewhere")

    monkeypatch.setattr(node.content, "get", get)
    tally = check_all(node, lambda _: None)
    assert (tally.wrong, tally.mended, tally.findings[0].mended) == (1, 1, "another source")
    assert node.packs.get(stored.object.root) == data


def test_an_engine_gets_from_its_peers_what_nobody_else_has(
    node: Node, three: list[bytes], beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored, _), *_ = node.index.instances()
    wanted = stored.object.root
    data = node.packs.get(wanted)
    damage(node, wanted)
    del beside.blocks[wanted]
    asked: list[bytes] = []

    def refetch(cid: bytes) -> None:
        asked.append(cid)
        beside.blocks[cid] = data

    monkeypatch.setattr(node.content, "refetch", refetch, raising=False)
    tally = check_all(node, lambda _: None)
    assert asked == [wanted] and (tally.wrong, tally.mended) == (2, 2)
    assert node.packs.get(wanted) == data


def test_pages_and_roots_that_nobody_has_are_made_again_from_the_index(node: Node) -> None:
    study = generate_uid()
    for _ in range(3):  # each closes a batch, and its root names the one before
        store(node, part10(instance(study=study)))
    (tree,) = trees(node)
    assert tree.root is not None
    (page,) = node.index.study_tree(tree.tag).pages
    blocks = {cid: node.packs.get(cid) for cid in (tree.root, page)}
    for cid in blocks:
        damage(node, cid)
    tally = check_all(node, lambda _: None)
    assert (tally.wrong, tally.mended, tally.blocks) == (2, 2, 11)
    assert {cid: node.packs.get(cid) for cid in blocks} == blocks
    assert verified(node) == [True] and node.index.counts()["damaged"] == 0


def test_what_is_made_again_is_the_block_or_nothing() -> None:
    links = tuple(cids.make(cids.DAG_CBOR, bytes([number])) for number in range(3))
    page = cids.make(cids.DAG_CBOR, manifest.encode_page(links))
    assert [block.cid for block in pages_of([page], links)] == [page]
    assert list(pages_of([page], links[:2])) == []
    root = cids.make(cids.DAG_CBOR, manifest.encode_root(manifest.StudyRoot(bytes(16), (page,), links[0])))
    assert [block.cid for block in root_of(root, bytes(16), (page,), links)] == [root]
    assert list(root_of(root, bytes(16), (page,), links[1:])) == []
