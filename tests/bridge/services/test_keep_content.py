"""The way of a study into its content engine, with real packs and a real index, and an engine that fails when told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from bridge.config import Content, Settings
from bridge.content import cid as cids
from bridge.content import dag, manifest
from bridge.content.pack_format import packs_in
from bridge.content.pins import PinTable
from bridge.content.upkeep import AUDIT_S, RECOUNT_S, StepKind
from bridge.crypto.keystore import open_keystore
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.index.keeping import Keeping
from bridge.model import Block, BlockPosition, ContentStatus, PinReceipt
from bridge.node import Node
from bridge.services.keep_content import Upkeep
from bridge.services.trim_spool import NOT_YET_S, TRIM_S
from tests.bridge.services.conftest import CHEAP, SENDER, instance, part10
from tests.bridge.services.test_close_batch import put


class EngineDouble:
    """An engine in a dictionary: everything that it holds can be damaged, and it can be down or refuse a root."""

    name = "double"

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pins: PinTable = node.index.pins
        self.blocks: dict[bytes, bytes] = {}
        self.roots: set[bytes] = set()
        self.down = ""
        self.refused: set[bytes] = set()
        self.unsafe_because: str | None = None
        self.elsewhere: dict[bytes, bytes] = {}
        self.replicas = 1
        self.wanted = 1
        self.log: list[tuple[str, bytes]] = []

    @property
    def copy(self) -> EngineDouble:
        return self

    def put(self, blocks: Sequence[Block]) -> Sequence[BlockPosition]:
        raise AssertionError("nothing is put into the engine but by pinning")

    def sync(self) -> None: ...

    def close(self) -> None: ...

    def get(self, cid: bytes) -> bytes:
        try:
            return self.node.packs.get(cid)
        except ContentMissing:
            return self.read(cid)

    def has(self, cid: bytes) -> bool:
        return self.node.packs.has(cid)

    def pin(self, root: bytes, replaces: bytes | None = None) -> PinReceipt:
        self._answer()
        if root in self.refused:
            raise EngineFault("it does not take this one")
        for cid, data in dag.walk(root, self.get):
            self.blocks.setdefault(cid, bytes(data))  # as Kubo does: what lies there stays, whole or not
        self.roots.add(root)
        self.log.append(("pin", root))
        receipt = PinReceipt(root, self.replicas, 1)
        self.pins.record(root, receipt, self.wanted)
        return receipt

    def unpin(self, root: bytes) -> None:
        self._answer()
        self.roots.discard(root)
        self.pins.drop(root)
        self.log.append(("unpin", root))

    def status(self, root: bytes | None = None) -> ContentStatus:
        reasons = (self.down,) if self.down else ()
        return ContentStatus("double", reasons, self.replicas if root in self.roots else None, self.wanted)

    def pinned(self) -> set[bytes]:
        self._answer()
        return set(self.roots)

    def refetch(self, cid: bytes) -> None:
        self._answer()
        if cid not in self.elsewhere:
            raise ContentMissing("no other double has it")
        self.blocks[cid] = self.elsewhere[cid]

    def unsafe(self) -> str | None:
        return self.unsafe_because

    def holds(self, cid: bytes) -> bool:
        return True

    def where(self, cid: bytes) -> str:
        return "the double"

    def read(self, cid: bytes) -> bytes:
        self._answer()
        if cid not in self.blocks:
            raise ContentMissing("not in the double")
        if not cids.verify(cid, self.blocks[cid]):
            raise ContentCorrupt("damaged in the double")
        self.log.append(("read", cid))
        return self.blocks[cid]

    def mend(self, block: Block) -> None:
        self._answer()
        self.blocks[block.cid] = bytes(block.data)

    def _answer(self) -> None:
        if self.down:
            raise EngineFault(self.down)

    def done(self, what: str) -> list[bytes]:
        return [cid for did, cid in self.log if did == what]


class Archive:
    """A node whose packs are small, its engine, and what keeps it there; time passes when it is told to."""

    def __init__(self, home: Path, pack_bytes: int, spool_bytes: int) -> None:
        settings = Settings(home=home, content=Content(reserve_bytes=0, pack_bytes=pack_bytes))
        self.node = Node(settings, open_keystore(home, cost=CHEAP), "command")
        self.engine = EngineDouble(self.node)
        self.kept = Keeping(self.node.index.database, self.node.index.pins, self.node.index.content_state)
        self.spool_bytes = spool_bytes
        self.time = 1000.0
        self.disk_is_full = False
        self.begin_again()

    def begin_again(self) -> None:
        """As a new process does: nothing is known but what is recorded."""
        self.upkeep = Upkeep(
            self.kept,
            self.node.index.pins,
            self.engine,
            self.node.settings.home / "packs",
            self.spool_bytes,
            now=lambda: self.time,
            is_full=lambda: self.disk_is_full,
        )

    def store(self, study: str, count: int = 2, rows: int = 64) -> bytes:
        """Store instances and close their batch; the study's new root."""
        with self.node.store.reception(SENDER) as reception:
            for number in range(count):
                put(reception, part10(instance(study=study, rows=rows, fill=number + 1)))
        root = self.node.index.study_tree(self.node.keys.study_key(study).tag).root
        assert root is not None
        return root

    def all_steps(self) -> list[StepKind]:
        """Every step until there is nothing to do now."""
        done = []
        while (step := self.upkeep.step()) is not None:
            done.append(step.kind)
            assert len(done) < 100, done
        return done

    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    def packs(self) -> list[str]:
        return [path.name for path in packs_in(self.node.settings.home / "packs")]

    def verified(self, root: bytes) -> bool:
        pin = self.node.index.pins.of(root)
        return pin is not None and pin.verified is not None


Open = Callable[..., Archive]


@pytest.fixture
def open_archive(home: Path) -> Open:
    def open_(pack_bytes: int = 1 << 30, spool_bytes: int = 1 << 40) -> Archive:
        return Archive(home, pack_bytes, spool_bytes)

    return open_


@pytest.fixture
def archive(open_archive: Open) -> Archive:
    return open_archive()


@pytest.fixture(autouse=True)
def all_closed(monkeypatch: pytest.MonkeyPatch) -> object:
    opened: list[Node] = []
    init = Node.__init__

    def remembering(self: Node, *arguments: object, **named: object) -> None:
        init(self, *arguments, **named)  # type: ignore[arg-type]
        opened.append(self)

    monkeypatch.setattr(Node, "__init__", remembering)
    yield
    for node in opened:
        if not node.closed:
            node.close()


def test_a_closed_batch_is_pinned_read_back_and_recorded_as_verified(archive: Archive) -> None:
    root = archive.store(generate_uid())
    assert archive.all_steps() == [StepKind.AUDIT, StepKind.PIN]
    assert archive.engine.roots == {root}
    assert set(archive.engine.done("read")) == {cid for cid, _ in dag.walk(root, archive.node.packs.get)}
    assert archive.verified(root)
    assert archive.upkeep.faults(()) == {}
    assert archive.all_steps() == []


def test_of_a_study_that_grew_only_what_is_new_is_read_back_and_the_former_root_is_let_go(archive: Archive) -> None:
    study = generate_uid()
    former = archive.store(study, 3)
    archive.all_steps()
    before = {cid for cid, _ in dag.walk(former, archive.node.packs.get)}
    archive.engine.log.clear()
    root = archive.store(study, 2)
    archive.all_steps()
    after = {cid for cid, _ in dag.walk(root, archive.node.packs.get)}
    assert set(archive.engine.done("read")) == after - before
    assert archive.engine.log[-1] == ("unpin", former)
    assert archive.engine.roots == {root}
    assert archive.node.index.pins.of(former) is None
    assert archive.verified(root)


def test_what_was_pinned_and_not_read_back_is_read_back_by_the_next_process(archive: Archive) -> None:
    study = generate_uid()
    former = archive.store(study)
    archive.all_steps()
    root = archive.store(study)
    archive.engine.pin(root)  # and then it was killed
    archive.begin_again()
    assert archive.all_steps() == [StepKind.AUDIT, StepKind.READ_BACK]
    assert archive.engine.roots == {root}
    assert archive.verified(root)
    assert archive.node.index.pins.of(former) is None


def test_a_former_root_that_was_not_let_go_is_so_by_the_next_process(archive: Archive) -> None:
    study = generate_uid()
    former = archive.store(study)
    archive.all_steps()
    root = archive.store(study)
    archive.all_steps()
    archive.engine.pin(former)
    archive.node.index.pins.verified(root, 1)
    archive.begin_again()
    assert archive.all_steps() == [StepKind.AUDIT, StepKind.DROP]
    assert archive.engine.roots == {root}


def test_pins_that_the_engine_lost_are_brought_again(archive: Archive) -> None:
    roots = {archive.store(generate_uid()) for _ in range(3)}
    archive.all_steps()
    lost = next(iter(roots))
    archive.engine.roots.discard(lost)
    archive.engine.blocks.clear()
    assert archive.all_steps() == []
    archive.pass_time(AUDIT_S)
    assert archive.upkeep.step() is not None
    assert archive.upkeep.faults(()) == {"pins": "the engine has lost pins: 1 study is to be brought to it again"}
    assert archive.all_steps() == [StepKind.PIN]
    assert archive.engine.roots == roots
    assert archive.upkeep.faults(()) == {}


def test_a_block_that_the_engine_damaged_is_given_to_it_again_when_it_is_read_back(archive: Archive) -> None:
    root = archive.store(generate_uid())
    archive.all_steps()
    for cid in list(archive.engine.blocks)[1:4]:
        archive.engine.blocks[cid] = b"damaged"
    del archive.engine.blocks[root]
    archive.upkeep.verify(root)
    assert archive.upkeep.mended == 4
    assert all(cids.verify(cid, data) for cid, data in archive.engine.blocks.items())


def test_blocks_that_only_another_engine_has_whole_are_fetched_from_there(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=1, spool_bytes=0)
    root = archive.store(generate_uid())
    archive.store(generate_uid())
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    archive.node.packs.release_removed()
    archive.engine.elsewhere = dict(archive.engine.blocks)
    (page,) = manifest.decode_root(archive.engine.blocks[root]).pages
    (link, _) = manifest.decode_page(archive.engine.blocks[page])
    del archive.engine.blocks[page]
    archive.engine.blocks[link] = b"damaged"
    archive.upkeep.verify(root)
    assert archive.upkeep.mended == 2
    assert archive.engine.blocks == archive.engine.elsewhere


def test_a_block_that_is_nowhere_is_a_fault_that_ends_when_it_is_there_again(archive: Archive) -> None:
    root = archive.store(generate_uid())
    archive.all_steps()
    lost = list(archive.engine.blocks)[-1]
    (pack,) = packs_in(archive.node.settings.home / "packs")
    whole, position = pack.read_bytes(), archive.node.packs.position(lost)
    assert position is not None
    with pack.open("r+b") as file:
        file.seek(position.offset)
        file.write(b"damage")
    del archive.engine.blocks[lost]
    with pytest.raises(ContentMissing, match=cids.to_text(lost)):
        archive.upkeep.verify(root)
    assert archive.upkeep.faults(())["blocks"].startswith("1 study is not whole: 1 blocks, the first ")
    assert not archive.verified(root)
    pack.write_bytes(whole)
    assert StepKind.READ_BACK in archive.all_steps()
    assert archive.verified(root)
    assert archive.upkeep.faults(()) == {}


def test_an_engine_that_is_down_is_left_alone_for_a_while_and_then_gets_everything(archive: Archive) -> None:
    archive.engine.down = "it does not answer"
    roots = {archive.store(generate_uid()) for _ in range(3)}
    assert archive.all_steps() == [StepKind.AUDIT]
    assert archive.upkeep.faults(()) == {"engine": "it does not answer; 3 studies are to be brought to it"}
    archive.pass_time(1)
    assert archive.all_steps() == [StepKind.AUDIT]
    archive.engine.down = ""
    assert archive.all_steps() == []
    archive.pass_time(2)
    assert archive.all_steps() == [StepKind.AUDIT, StepKind.PIN, StepKind.PIN, StepKind.PIN]
    assert archive.engine.roots == roots
    assert archive.upkeep.faults(()) == {}


def test_everything_is_tried_at_once_when_asked_to(archive: Archive) -> None:
    archive.engine.down = "it does not answer"
    root = archive.store(generate_uid())
    archive.all_steps()
    archive.engine.down = ""
    archive.upkeep.try_all_now()
    assert archive.all_steps() == [StepKind.AUDIT, StepKind.PIN]
    assert archive.verified(root)


def test_a_study_that_the_engine_refuses_does_not_hold_up_the_others(archive: Archive) -> None:
    roots = [archive.store(generate_uid()) for _ in range(3)]
    archive.engine.refused = {roots[0]}
    archive.all_steps()
    assert archive.engine.roots == set(roots[1:])
    assert archive.upkeep.faults(()) == {"pins": "1 study is not taken by the engine: it does not take this one"}
    archive.engine.refused.clear()
    archive.pass_time(1)
    archive.all_steps()
    assert archive.engine.roots == set(roots)
    assert archive.upkeep.faults(()) == {}


def test_copies_that_became_more_are_recorded(archive: Archive) -> None:
    archive.engine.wanted = 2
    root = archive.store(generate_uid())
    archive.all_steps()
    archive.engine.replicas = 2
    archive.pass_time(RECOUNT_S)
    assert StepKind.RECOUNT in archive.all_steps()
    pin = archive.node.index.pins.of(root)
    assert pin is not None
    assert (pin.replicas, pin.wanted) == (2, 2)
    archive.pass_time(TRIM_S)
    assert StepKind.RECOUNT not in archive.all_steps()


def test_a_root_with_fewer_copies_takes_the_place_of_its_former_one_when_the_others_came(archive: Archive) -> None:
    archive.engine.wanted = archive.engine.replicas = 2
    study = generate_uid()
    former = archive.store(study)
    archive.all_steps()
    archive.engine.replicas = 1
    root = archive.store(study)
    archive.all_steps()
    assert archive.verified(root)
    assert archive.engine.roots == {former, root}
    archive.begin_again()
    archive.all_steps()
    assert archive.engine.roots == {former, root}
    archive.engine.replicas = 2
    archive.pass_time(TRIM_S)
    assert archive.all_steps()[-2:] == [StepKind.RECOUNT, StepKind.DROP]
    assert archive.engine.roots == {root}


def test_the_spool_stays_while_there_are_fewer_copies_than_wanted(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=30_000)
    archive.engine.wanted = 2
    for _ in range(4):
        archive.store(generate_uid())
    before = archive.packs()
    assert StepKind.TRIM not in archive.all_steps()
    archive.engine.replicas = 2
    archive.pass_time(TRIM_S)
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert len(archive.packs()) < len(before)


def test_the_oldest_packs_go_and_what_was_in_them_is_read_from_the_engine(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=30_000)
    for _ in range(6):
        archive.store(generate_uid())
    before = archive.packs()
    archive.all_steps()
    archive.pass_time(TRIM_S)
    steps = archive.all_steps()
    after = archive.packs()
    assert steps.count(StepKind.TRIM) == len(before) - len(after) > 0
    assert after == before[-len(after) :]
    assert archive.node.index.content_state.trimmed() == {int(name[:8]) for name in set(before) - set(after)}
    archive.node.packs.release_removed()
    for position in archive.node.index.positions(0):
        with pytest.raises(ContentMissing):
            archive.node.packs.get(position.cid)
        assert archive.engine.get(position.cid)


def test_packs_that_the_engine_holds_leave_a_full_disk_though_the_spool_is_small(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=5000, spool_bytes=1 << 40)
    for _ in range(4):
        archive.store(generate_uid())
    archive.all_steps()
    archive.pass_time(TRIM_S)
    assert StepKind.TRIM not in archive.all_steps()
    archive.disk_is_full = True
    archive.pass_time(TRIM_S)
    assert StepKind.TRIM in archive.all_steps()
    left = archive.packs()
    archive.disk_is_full = False
    archive.pass_time(TRIM_S)
    assert StepKind.TRIM not in archive.all_steps()
    assert archive.packs() == left


def test_the_spool_stays_when_the_engine_does_not_fsync(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=30_000)
    archive.engine.unsafe_because = "its flatfs does not sync"
    for _ in range(4):
        archive.store(generate_uid())
    before = archive.packs()
    assert StepKind.TRIM not in archive.all_steps()
    assert archive.packs() == before
    assert archive.upkeep.faults(())["spool"].endswith("its flatfs does not sync")


def test_a_pack_with_a_study_that_is_not_in_the_engine_stays(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=0)
    roots = [archive.store(generate_uid()) for _ in range(4)]
    archive.engine.refused = {roots[1]}
    before = archive.packs()
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert len(archive.packs()) < len(before)
    tag = next(tree.tag for tree in archive.node.index.trees.every() if tree.root == roots[1])
    held = {archive.node.index.locate_block(link) for link in archive.node.index.study_tree(tag).instances}
    assert {f"{one.pack:08d}.car" for one in held if one is not None} <= set(archive.packs())
    assert all(archive.engine.get(cid) for cid, _ in dag.walk(roots[1], archive.engine.get))


def test_a_pack_whose_study_has_grown_since_stays_until_that_is_verified_too(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=0)
    study = generate_uid()
    archive.store(study)
    archive.all_steps()
    before = archive.packs()
    reception = archive.node.store.reception(SENDER)
    put(reception, part10(instance(study=study, rows=64)))
    archive.store(generate_uid())
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert before[0] in archive.packs()
    archive.node.batches.close_or_log(list(reception._batches.values()))
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert before[0] not in archive.packs()


def test_a_pack_with_blocks_of_an_instance_that_is_still_arriving_stays(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=1 << 20, spool_bytes=0)
    file = part10(instance(rows=2600))
    reception = archive.node.store.reception(SENDER)
    incoming = reception.begin()
    for at in range(0, len(file) - 100, 1 << 20):
        incoming.write(file[at : min(at + (1 << 20), len(file) - 100)])
    for _ in range(3):
        archive.store(generate_uid(), rows=512)
    before = archive.packs()
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert 1 < len(archive.packs()) < len(before)
    assert archive.upkeep.faults(()) == {}
    incoming.write(file[-100:])
    key = incoming.commit().key
    reception.close()
    (stored,) = archive.node.retrieve.locate(*key)
    archive.node.retrieve.verify(stored)
    archive.pass_time(NOT_YET_S)
    archive.all_steps()
    archive.pass_time(TRIM_S)
    archive.all_steps()
    assert len(archive.packs()) == 1


def test_the_last_look_before_a_pack_goes_finds_and_mends_what_the_engine_damaged_since(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=1 << 40)
    for _ in range(4):
        archive.store(generate_uid())
    archive.all_steps()
    damaged = [position.cid for position in archive.node.index.positions(0)][:3]
    for cid in damaged:
        archive.engine.blocks[cid] = b"damaged"
    archive.spool_bytes = 0
    archive.begin_again()
    archive.all_steps()
    assert archive.packs() == archive.packs()[-1:]
    assert archive.upkeep.mended == 3
    assert all(cids.verify(cid, archive.engine.get(cid)) for cid in damaged)


def test_a_pack_stays_when_the_engine_lost_a_pin_since_it_was_verified(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=1 << 40)
    for _ in range(4):
        archive.store(generate_uid())
    archive.all_steps()
    before = archive.packs()
    archive.upkeep._outlook = replace(archive.upkeep._outlook, spool_bytes=0, audited=archive.time + TRIM_S)
    archive.upkeep._spool._most = 0
    archive.pass_time(TRIM_S)
    archive.engine.roots.clear()
    archive.all_steps()
    assert archive.packs() == before


def test_pages_and_roots_that_newer_ones_replaced_do_not_keep_a_pack(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=1, spool_bytes=0)
    study = generate_uid()
    former = archive.store(study)
    archive.all_steps()
    root = archive.store(study)
    archive.all_steps()
    for cid in (former, *manifest.decode_root(archive.engine.get(former)).pages):
        del archive.engine.blocks[cid]  # collected, once nothing pinned them
    archive.pass_time(AUDIT_S)
    archive.all_steps()
    assert archive.packs() == archive.packs()[-1:]
    assert all(archive.engine.get(cid) for cid, _ in dag.walk(root, archive.engine.get))


def test_a_pack_that_a_crash_kept_from_being_removed_is_spool_again(open_archive: Open) -> None:
    archive = open_archive(pack_bytes=20_000, spool_bytes=1 << 40)
    for _ in range(4):
        archive.store(generate_uid())
    archive.kept.trim(0, 1)
    archive.all_steps()
    assert archive.kept.trimmed() == set()
