"""The Index port over SQL: writing goes through one thread, reading through short transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar

from sqlalchemy import bindparam, true, update

from bridge.content.manifest import InstanceBlock
from bridge.content.sealed_metadata import SealedMetadata
from bridge.dicom.matching import Query
from bridge.errors import CairnError
from bridge.index import schema as s
from bridge.index.assignments import Assignments
from bridge.index.batches import ADD_BLOCK, add_records, close_batch, closed_records, open_batches
from bridge.index.content_state import ContentState
from bridge.index.credentials import Credentials
from bridge.index.database import Place, open_database, sql
from bridge.index.emergencies import Emergencies
from bridge.index.erasures import Erasures
from bridge.index.followed import FollowedTo
from bridge.index.keeping import Keeping
from bridge.index.pins import Pins
from bridge.index.placement import positions_of
from bridge.index.reader import Reader
from bridge.index.replicas import ReplicasOut
from bridge.index.replicas_beside import ReplicasBeside
from bridge.index.replicas_kept import ReplicasIn
from bridge.index.rows import RebuiltInstance, block_rows, instance_rows, rebuilt
from bridge.index.scrub_state import ScrubState
from bridge.index.search import Search
from bridge.index.shares import Shares
from bridge.index.soundness import check
from bridge.index.storing import adopt, place, store
from bridge.index.trees import Trees
from bridge.index.writer import IsGone, Transaction, Writer, nothing_gone
from bridge.model import (
    Adopted,
    AdoptedTree,
    Attributes,
    Batch,
    BatchClosing,
    BlockPosition,
    Committed,
    InstanceKey,
    Outcome,
    SealedRecord,
    SearchPage,
    StoredInstance,
    StudyTree,
    WriteUnit,
)

T = TypeVar("T")
_DAMAGED: Final = sql(update(s.instance).where(s.instance.c.id == bindparam("instance")).values(damaged=true()))


class SqlIndex:
    """The index of a node, as one process sees it. Thread-safe; open it after a fork.

    Parameters
    ----------
    place
        Where the database is; it is made when there is none.
    owner
        The process's name; with it `open_batches` finds what a crash left.
    before_commit
        Step (5): called once before each group's transaction (6), makes the blocks that were put durable.
    most_waiting
        How many units may wait for the writer; beyond, `commit` and its like raise Busy.
    is_gone
        Whether the keys of a study tag were erased (`writer.IsGone`): nothing new is written under it.

    Raises ConfigError when the database is of another version, StorageFault or StorageFull when it cannot be opened.
    """

    def __init__(
        self,
        place: Place,
        owner: str,
        before_commit: Callable[[], None],
        *,
        most_waiting: int = 1024,
        is_gone: IsGone = nothing_gone,
    ) -> None:
        self.owner = owner
        self.database = open_database(place)
        self.writer = Writer(self.database, before_commit, most_waiting, is_gone)
        self._watch = self.database.watch()
        self.credentials = Credentials(self.database, self.writer, self._watch)
        self.trees = Trees(self.database)
        self.pins = Pins(self.database, self.run)
        self.content_state = ContentState(self.database, self.run)
        self.assignments = Assignments(self.database, self.run)
        self.followed = FollowedTo(self.database, self.run)
        self.keeping = Keeping(self.database, self.pins, self.content_state)
        self.scrub = ScrubState(self.database, self.run)
        self.shares = Shares(self.database, self.run)
        self.replicas_out = ReplicasOut(self.database, self.run)
        self.replicas_in = ReplicasIn(self.database, self.run)
        self.replicas_beside = ReplicasBeside(self.database, self.run)
        self.emergencies = Emergencies(self.database, self.run)
        self.erasures = Erasures(self.database, self.run)
        self._reader = Reader(self.database)
        self._search = Search(self.database)

    def commit(self, unit: WriteUnit) -> Future[Committed]:
        """As the port. Works the rows out in the caller's thread."""
        rows = instance_rows(unit, unit.batch.study_tag)
        return self.writer.submit(lambda transaction: store(transaction, rows, unit), needs_content=True)

    def append(self, batch: Batch, records: Sequence[SealedRecord]) -> Future[int]:
        """As the port."""
        held = tuple(records)
        return self.writer.submit(lambda transaction: add_records(transaction, batch, held))

    def close_batch(self, batch: Batch, closing: BatchClosing) -> Future[None]:
        """As the port."""
        needs_content = bool(closing.blocks)
        return self.writer.submit(
            lambda transaction: close_batch(transaction, batch, closing), needs_content=needs_content
        )

    def study_tree(self, tag: bytes) -> StudyTree:
        """As the port."""
        return self.trees.manifest(tag)

    def served_digest(self, key: InstanceKey) -> bytes | None:
        """As the port."""
        return self._reader.served_digest(key)

    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        """As the port."""
        return self._reader.locate(study, series, sop)

    def metadata(
        self, study: str, series: str | None = None, sop: str | None = None
    ) -> Iterator[tuple[InstanceKey, bytes]]:
        """As the port."""
        return self._reader.metadata(study, series, sop)

    def search(self, query: Query) -> SearchPage:
        """As the port."""
        return self._search.page(query)

    def run(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Another write (credentials), in a group like any. Errors as `commit`."""
        return self.writer.submit(work)

    def mark_damaged(self, instance: StoredInstance) -> None:
        """Flag a copy that did not verify: the same bytes sent again then heal it. Errors as `commit`."""

        def mark(transaction: Transaction) -> None:
            transaction.cursor.execute(_DAMAGED, {"instance": instance.id})

        self.writer.submit(mark).result()

    def locate_block(self, cid: bytes) -> BlockPosition | None:
        """Where a block lies, if the index knows. Raises StorageFault."""
        return self._reader.locate_block(cid)

    def positions_of(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        """The positions of those of many blocks that the index knows. Raises StorageFault."""
        return positions_of(self.database, blocks)

    def committed_end(self, pack: int) -> int:
        """Where the last byte of a pack that a committed row refers to ends; 0 when none. Raises StorageFault."""
        return self._reader.committed_end(pack)

    def positions(self, pack: int) -> Iterator[BlockPosition]:
        """Every known block of a pack by ascending offset. Raises StorageFault."""
        return self._reader.positions(pack)

    def packs(self) -> list[int]:
        """The numbers of the packs that the index names, ascending. Raises StorageFault."""
        return self._reader.packs()

    def last_pack(self) -> int:
        """The highest number of a pack that the index names, -1 when it names none. Raises StorageFault."""
        return self._reader.last_pack()

    def instances(self) -> Iterator[tuple[StoredInstance, bytes]]:
        """Every instance, all versions, in the order of arrival, with its instance block's CID. Raises StorageFault."""
        return self._reader.instances()

    def instance(self, row: int) -> StoredInstance:
        """One version of an instance by its row. Raises NotFound, StorageFault."""
        return self._reader.instance(row)

    def closed_records(self) -> Iterator[tuple[int, bytes, list[bytes]]]:
        """Every closed batch: its number, the root that was closed, its leaves in order. Raises StorageFault."""
        return closed_records(self.database)

    def check(self) -> list[str]:
        """What is wrong with the database; empty when it is sound. Reads all of it."""
        return check(self.database)

    def add_instance(
        self,
        metadata: SealedMetadata,
        block: InstanceBlock,
        link: bytes,
        attributes: Attributes,
        *,
        origin: bytes | None,
        blocks: Sequence[BlockPosition] = (),
        replace: bool = False,
    ) -> tuple[int, Outcome]:
        """Place an instance again under its tree, without a record; its row and what was decided. Errors as `commit`.

        Its block names the tree, `origin` whose that is (see `bridge.model.Tree`); `blocks` is where all of it lies.
        With `replace` it takes the place of a copy that is held already.
        """
        rows = instance_rows(rebuilt(metadata, block, link, attributes, tuple(blocks)), block.study, origin)
        return self.writer.submit(lambda transaction: place(transaction, rows, replace=replace)).result()

    def adopt(
        self,
        tree: AdoptedTree,
        instances: Sequence[RebuiltInstance] = (),
        blocks: Sequence[BlockPosition] = (),
        recorded: tuple[Batch, Callable[[Sequence[Outcome]], Sequence[SealedRecord]]] | None = None,
    ) -> Future[Adopted]:
        """Take in a tree as it is, with its instances, in one transaction: all of it becomes visible, or nothing.

        Parameters
        ----------
        tree
            The manifest. Without a study its blocks are kept, and no search finds anything of it.
        instances
            What its pages name, in their order; none while the key is not held.
        blocks
            Where every block of the tree lies, as `put`; they are made durable before the commit.
        recorded
            The open batch, and what makes of the outcomes (in the order of `instances`) the records to add to it.

        Errors as `commit`.
        """
        rows = [instance_rows(one, tree.tag, tree.origin) for one in instances]
        positions = block_rows(blocks, None)

        def work(transaction: Transaction) -> Adopted:
            outcomes = adopt(transaction, tree, rows, positions)
            if recorded is None:
                return Adopted(outcomes, 0, ())
            records = tuple(recorded[1](outcomes))
            return Adopted(outcomes, add_records(transaction, recorded[0], records), records)

        return self.writer.submit(work, needs_content=True)

    def add_blocks(self, positions: Sequence[BlockPosition]) -> None:
        """Add block positions alone, as a scan of the packs finds them for a rebuild. Errors as `commit`."""
        rows = block_rows(positions, None)

        def add(transaction: Transaction) -> None:
            transaction.cursor.executemany(ADD_BLOCK, rows)

        self.writer.submit(add).result()

    def open_batches(self, owner: str) -> list[tuple[Batch, list[bytes]]]:
        """The batches open under a process's name, oldest first, with their leaves in order. Raises StorageFault."""
        return open_batches(self.database, owner)

    def json(self, instance: StoredInstance) -> bytes:
        """The DICOM JSON of one version of an instance. Raises ContentCorrupt, NotFound, StorageFault."""
        return self._reader.json(instance.id)

    def superseded(self, pack: int) -> set[int]:
        """The offsets in a pack of blocks whose instance was healed since. Raises StorageFault."""
        return self._reader.superseded(pack)

    def counts(self) -> dict[str, int]:
        """How much there is, by name: patients, studies, series, instances, conflicts, damaged, blocks ..."""
        return self._reader.counts()

    def unreachable(self) -> list[str]:
        """Why nothing can be asked of the database now; [] when it answers."""
        try:
            self._watch.version()
        except CairnError as error:
            return [error.detail]
        return []

    def close(self) -> None:
        """Write what waits and release all."""
        self.writer.close()
        self._watch.close()
        self.database.close()
