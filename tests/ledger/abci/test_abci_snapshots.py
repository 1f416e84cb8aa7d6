"""Snapshots: the same bytes at every member, taken in whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from ledger import codec
from ledger.abci import messages, snapshots
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.abci.messages import Snapshot
from ledger.audit_shared import SharedReport, audit_shared
from ledger.block_store import BlockStore
from ledger.keys import raw
from ledger.publication import Publication
from ledger.source import Cursor
from ledger.tile_files import TileFiles
from tests.ledger.shared_log import Hospital, Network, signed

HEIGHTS = 70


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Four members, more heights than lie between two snapshots, chunks of a few entries, later ones of more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "CHUNK", 4000)
        patch.setattr(snapshots, "LARGE", 16_000)
        patch.setattr(snapshots, "LARGE_FROM", 4)
        made = Network(tmp_path_factory.mktemp("network"), copies=2)
        made.join()
        for number in range(HEIGHTS):
            made.decide([[made.sign(name) for _ in range(2)] for name in ("east", "west")[: 1 + number % 2]])
        yield made
        made.close()


class Newcomer:
    """A member's application on an empty disk."""

    def __init__(self, network: Network, home: Path, name: str = "south") -> None:
        self.network, self.home, self.own = network, home, network[name]
        home.mkdir(exist_ok=True)
        self.open()

    def open(self) -> None:
        """As after a start."""
        self.store = BlockStore(self.home / "ledger.db")
        signers = Signers(self.own.node, self.own.signer, self.own.cosigner, self.own.name)
        self.application = ConsortiumApplication(self.store, self.network.genesis, signers, lambda: 1_700_000_100)


@pytest.fixture
def newcomer(network: Network, tmp_path: Path) -> Iterator[Newcomer]:
    made = Newcomer(network, tmp_path / "new")
    yield made
    made.store.close()


def offered(one: Hospital) -> tuple[Snapshot, list[bytes], bytes]:
    """The newest snapshot of a member, its chunks, and its app hash."""
    newest = one.application.list_snapshots()[0]
    chunks = [one.application.load_snapshot_chunk(newest.height, snapshots.FORMAT, at) for at in range(newest.chunks)]
    stored = one.store.block_at(newest.height)
    assert stored is not None
    return newest, chunks, stored.hash


def test_every_member_offers_the_same_bytes(network: Network) -> None:
    first, second = map(offered, network.copies)
    assert first == second
    snapshot, chunks, _ = first
    assert snapshot.hash == sha256(snapshot.metadata).digest()
    assert len(chunks) > 5
    sizes = [len(chunk) for chunk in chunks]
    assert all(0 < size <= 16_000 for size in sizes)
    assert [size > 4000 for size in sizes].index(True) > 4 and sizes[-2] > 12_000
    assert network["east"].application.load_snapshot_chunk(snapshot.height, snapshots.FORMAT, len(chunks)) == b""
    assert network["east"].application.load_snapshot_chunk(snapshot.height + 1, snapshots.FORMAT, 0) == b""


def test_only_what_the_light_client_can_verify_by_now_is_offered(network: Network, tmp_path: Path) -> None:
    fresh = Network(tmp_path / "fresh", copies=1)
    fresh.join()
    application = fresh["east"].application
    assert application.list_snapshots() == []
    fresh.decide([])
    assert application.list_snapshots() == []
    fresh.decide([])
    assert [snapshot.height for snapshot in application.list_snapshots()] == [1]
    fresh.close()


def test_a_new_member_takes_in_the_whole_log_and_goes_on_with_the_others(network: Network, newcomer: Newcomer) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    application, store = newcomer.application, newcomer.store
    assert application.offer_snapshot(snapshot, app_hash) == messages.SNAPSHOT_ACCEPT
    for at, chunk in enumerate(chunks):
        assert application.info().height == 0
        assert application.apply_snapshot_chunk(at, chunk, "east") == messages.CHUNK_ACCEPT
    assert (application.info().height, application.info().app_hash) == (snapshot.height, app_hash)
    size = store.size()
    assert [item.envelope for item in store.all_entries()] == network["east"].store.envelopes(0, size)
    assert store.blocks(limit=1000) == network["east"].store.blocks(limit=len(store.blocks(limit=1000)))
    note = store.checkpoint(size)
    assert note is not None and note.splitlines()[-1].startswith("— south ")
    for stored in network["east"].store.blocks(snapshot.height, 1000):
        assert stored.first >= size
    newcomer.store.close()
    newcomer.open()
    assert newcomer.application.info().app_hash == app_hash


def test_a_crash_midway_leaves_nothing(network: Network, newcomer: Newcomer) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    newcomer.application.offer_snapshot(snapshot, app_hash)
    for at, chunk in enumerate(chunks[:-1]):
        newcomer.application.apply_snapshot_chunk(at, chunk, "east")
    assert newcomer.store.size() > 0
    newcomer.store.close()
    newcomer.open()
    assert (newcomer.store.size(), newcomer.store.blocks(), newcomer.application.info().height) == (0, [], 0)
    assert newcomer.application.apply_snapshot_chunk(0, chunks[0], "east") == messages.CHUNK_ABORT
    assert newcomer.application.offer_snapshot(snapshot, app_hash) == messages.SNAPSHOT_ACCEPT
    for at, chunk in enumerate(chunks):
        assert newcomer.application.apply_snapshot_chunk(at, chunk, "east") == messages.CHUNK_ACCEPT
    assert newcomer.application.info().app_hash == app_hash


def audited(one: Newcomer) -> SharedReport:
    """What `cairn ledger verify` finds at the member."""
    key = raw(one.own.signer.public_key())
    return audit_shared(one.home, one.network.genesis, one.own.node, key, run=8, processes=1)


def test_what_is_there_of_a_state_that_is_taken_over_is_verified_and_no_finding(
    network: Network, newcomer: Newcomer
) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    newcomer.application.offer_snapshot(snapshot, app_hash)
    seen = set()
    for at, chunk in enumerate(chunks):
        report = audited(newcomer)
        assert report.findings == [] and report.arriving == report.entries == newcomer.store.size()
        seen.add(report.arriving)
        newcomer.application.apply_snapshot_chunk(at, chunk, "east")
    assert len(seen) > 5
    report = audited(newcomer)
    assert (report.findings, report.arriving, report.entries) == ([], 0, newcomer.store.size())


def test_what_is_wrong_with_a_state_that_is_taken_over_is_found_and_an_outsider_takes_none(
    network: Network, newcomer: Newcomer
) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    newcomer.application.offer_snapshot(snapshot, app_hash)
    for at, chunk in enumerate(chunks[:-1]):
        newcomer.application.apply_snapshot_chunk(at, chunk, "east")
    outside = audit_shared(newcomer.home, network.genesis).findings
    assert {"checkpoint", "block"} == {found.place for found in outside}
    with newcomer.store.writing():
        forged = network["east"].store.envelopes(5, 6)[0]
        newcomer.store._one("UPDATE entries SET envelope = ? WHERE idx = 4", forged)
    assert "entry 4" in {found.place for found in audited(newcomer).findings}


def test_a_member_that_was_away_is_verified_while_it_takes_over_a_later_state(
    network: Network, newcomer: Newcomer
) -> None:
    early = network["east"].application.list_snapshots()[-1]
    for snapshot in (early, network["east"].application.list_snapshots()[0]):
        stored = network["east"].store.block_at(snapshot.height)
        assert stored is not None
        committed = newcomer.store.size()
        newcomer.application.offer_snapshot(snapshot, stored.hash)
        for at in range(snapshot.chunks):
            chunk = network["east"].application.load_snapshot_chunk(snapshot.height, snapshots.FORMAT, at)
            newcomer.application.apply_snapshot_chunk(at, chunk, "east")
            report = audited(newcomer)
            whole = at == snapshot.chunks - 1
            assert report.arriving == (0 if whole else newcomer.store.size() - committed)
            assert whole or report.findings == []
        with newcomer.store.writing():
            published = Publication(newcomer.store, TileFiles(newcomer.home))
            published.publish()
            published.settle()
        assert audited(newcomer).findings == []
    assert newcomer.store.size() > committed > 0


def test_an_offer_of_another_app_hash_format_or_height_is_refused(network: Network, newcomer: Newcomer) -> None:
    snapshot, _, app_hash = offered(network["east"])
    offer = newcomer.application.offer_snapshot
    assert offer(snapshot, bytes(32)) == messages.SNAPSHOT_REJECT
    assert offer(snapshot._replace(format=1), app_hash) == messages.SNAPSHOT_REJECT_FORMAT
    assert offer(snapshot._replace(height=snapshot.height - 1), app_hash) == messages.SNAPSHOT_REJECT
    assert offer(snapshot._replace(chunks=snapshot.chunks + 1), app_hash) == messages.SNAPSHOT_REJECT
    assert offer(snapshot._replace(metadata=b"\xa0"), app_hash) == messages.SNAPSHOT_REJECT
    assert offer(snapshot._replace(metadata=b""), app_hash) == messages.SNAPSHOT_REJECT


def test_a_chunk_that_was_damaged_on_its_way_is_asked_for_again(network: Network, newcomer: Newcomer) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    newcomer.application.offer_snapshot(snapshot, app_hash)
    damaged = bytes([chunks[0][0] ^ 1]) + chunks[0][1:]
    assert newcomer.application.apply_snapshot_chunk(0, damaged, "east") == messages.CHUNK_RETRY
    assert newcomer.application.apply_snapshot_chunk(0, chunks[0], "east") == messages.CHUNK_ACCEPT


@pytest.mark.parametrize("kind", ["s", "b", "e"])
def test_a_snapshot_whose_announced_chunks_lie_is_rejected_and_leaves_nothing(
    network: Network, newcomer: Newcomer, kind: str
) -> None:
    snapshot, chunks, app_hash = offered(network["east"])
    announced = codec.decode(snapshot.metadata, snapshots.METADATA)
    listed = announced["c"]  # type: ignore[index, call-overload]
    last = max(at for at, chunk in enumerate(listed) if chunk[0] == kind)  # type: ignore[index]
    other = bytearray(chunks[last])
    other[-1] ^= 1
    chunks[last] = bytes(other)
    listed[last][3] = sha256(chunks[last]).digest()  # type: ignore[index]
    lying = snapshot._replace(metadata=codec.encode(announced, snapshots.METADATA))
    assert newcomer.application.offer_snapshot(lying, app_hash) == messages.SNAPSHOT_ACCEPT
    verdicts = [newcomer.application.apply_snapshot_chunk(at, chunk, "east") for at, chunk in enumerate(chunks)]
    assert messages.CHUNK_REJECT_SNAPSHOT in verdicts
    assert (newcomer.store.size(), newcomer.application.info().height) == (0, 0)
    assert newcomer.application.offer_snapshot(snapshot, app_hash) == messages.SNAPSHOT_ACCEPT


def test_a_member_that_lost_its_disk_gives_up_what_it_signed_without_knowing_its_entries(
    network: Network, tmp_path: Path
) -> None:
    lost = Newcomer(network, tmp_path / "lost", "east")
    sequence, previous = lost.own.sequence, lost.own.previous
    lost.own.sequence, lost.own.previous = 0, bytes(32)
    anew = lost.own.sign(network.ledger)
    lost.own.sequence, lost.own.previous = sequence, previous
    with lost.store.writing():
        lost.store.put([signed(anew, Cursor(bytes(16), 1), 1)], Cursor(bytes(16), 1))
    snapshot, chunks, app_hash = offered(network["west"] if network["west"] in network.copies else network["north"])
    lost.application.offer_snapshot(snapshot, app_hash)
    for at, chunk in enumerate(chunks):
        assert lost.application.apply_snapshot_chunk(at, chunk, "north") == messages.CHUNK_ACCEPT
        assert audited(lost).findings == []
    assert lost.store.waiting() == 0
    assert lost.store.state().cursor == Cursor(b"", 0)
    assert lost.store.sealed_otherwise(lost.own.node, bytes(16))
    lost.store.close()


def test_entries_that_waited_and_come_with_a_snapshot_keep_their_batches(network: Network, tmp_path: Path) -> None:
    behind = Newcomer(network, tmp_path / "behind", "east")
    envelopes = [item.envelope for item in network["east"].store.all_entries() if item.node == behind.own.node][1:4]
    waiting = [signed(one, Cursor(bytes(16), at), 7) for at, one in enumerate(envelopes, 1)]
    with behind.store.writing():
        behind.store.put(waiting, Cursor(bytes(16), 3))
    snapshot, chunks, app_hash = offered(network["east"])
    behind.application.offer_snapshot(snapshot, app_hash)
    for at, chunk in enumerate(chunks):
        assert behind.application.apply_snapshot_chunk(at, chunk, "north") == messages.CHUNK_ACCEPT
    assert (behind.store.waiting(), behind.store.state().cursor) == (0, Cursor(bytes(16), 3))
    linked = [item for item in behind.store.all_entries() if item.epoch]
    assert [(item.envelope, item.batch, item.records) for item in linked] == [
        (one.envelope, one.batch.id, 7) for one in waiting
    ]
    behind.store.close()
