"""What is measured of the ledger: each step returns figures that hold ours and the raw step's value."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import checkpoint, keys, merkle, proof, tiles
from ledger.audit import audit
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.sealer import Sealer
from ledger.source import ClosedBatch, RecordLeaf
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles
from ledger.tiles import Tile
from tests.benchmarks.ledger_page import Figure

T = TypeVar("T")

SEED = bytes(range(32))
KEY = keys.SigningKey(SEED)
OPENSSL = Ed25519PrivateKey.from_private_bytes(SEED)
"""The raw step that most programs have at hand; beside it stands what the library that the ledger uses does alone."""
ORIGIN = "benchmark.example/ledger"
EPOCH = bytes(16)
ENVELOPE_SIZE = 363  # bytes: what a bare append writes
_STUDIES, _ACTORS = 5_000, 50


class Batches:
    """A source in memory: so many closed batches, each of another study's images by one of 50 actors; no records."""

    def __init__(self) -> None:
        self.closed = 0
        self._made: dict[int, ClosedBatch] = {}

    def close(self, count: int = 1) -> None:
        """Close so many more; they are made now, so that sealing is measured and not their making."""
        self._made = {number: _batch(number) for number in range(self.closed + 1, self.closed + count + 1)}
        self.closed += count

    def epoch(self) -> bytes:
        return EPOCH

    def closed_batches(self, after: int, limit: int) -> Sequence[ClosedBatch]:
        return [self._made[number] for number in range(after + 1, min(after + limit, self.closed) + 1)]

    def oldest_pending_us(self, after: int) -> int | None:
        return None

    def records(self, batch: int) -> Sequence[RecordLeaf]:
        raise NotImplementedError("a source without records")


def _batch(number: int) -> ClosedBatch:
    return ClosedBatch(
        id=number,
        type="study.access" if number % 3 else "study.store",
        time_us=1_700_000_000_000_000 + number * 1_000,
        purpose="TREAT",
        outcome=0,
        actor_kind=1,
        actor_tag=_octets(f"actor {number % _ACTORS}"),
        role="viewer",
        address_tag=_octets(f"address {number % _ACTORS}"),
        study_tag=_octets(f"study {number * 7919 % _STUDIES}"),
        commitment=_octets(f"commitment {number}", 32),
        records_root=_octets(f"root {number}", 32),
        records=2,
    )


def _octets(label: str, size: int = 16) -> bytes:
    return hashlib.sha256(label.encode()).digest()[:size]


class Log:
    """A ledger below a folder, being sealed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.source = Batches()
        self.engine = SoloEngine(home, KEY, ORIGIN)
        self.sealer = Sealer(self.source, self.engine, KEY)

    def seal(self, count: int) -> float:
        """Close so many batches and seal them all, settled at the end; seconds of sealing."""
        self.source.close(count)
        began = time.perf_counter()
        while self.sealer.step():
            pass
        self.engine.settle()
        return time.perf_counter() - began

    def close(self) -> None:
        """Settle and release."""
        self.engine.close()


def warm_up(home: Path) -> None:
    """Some entries to a log of which nothing is kept: what a process does once, and how a node never runs, is over."""
    log = Log(home)
    try:
        single_appends_to(log, 200, "a log to warm up")
        batched_appends(log, 5_000, "a log to warm up")
    finally:
        log.close()


def single_appends(home: Path, count: int) -> Figure:
    """One entry at a time to an empty log."""
    log = Log(home)
    try:
        return single_appends_to(log, count, "an empty log")
    finally:
        log.close()


def single_appends_to(log: Log, count: int, where: str) -> Figure:
    """One closed batch, sealed until durable, beside writing as many bytes to the end of a file and fdatasync."""
    ours, raw = [], []
    data = os.urandom(ENVELOPE_SIZE)
    with (log.home / "bare").open("wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            raw.append((time.perf_counter() - began) * 1000)
            log.source.close()
            began = time.perf_counter()
            log.sealer.step()
            ours.append((time.perf_counter() - began) * 1000)
    (log.home / "bare").unlink()
    return Figure(
        f"a durable append to {where}, p50",
        "ms",
        statistics.median(ours),
        "the same bytes appended, fdatasync",
        statistics.median(raw),
        at_most=1.5,
    )


def batched_appends(log: Log, count: int, where: str) -> list[Figure]:
    """Entries a second through the sealer, settled, beside Ed25519 signatures alone in one thread."""
    message = os.urandom(ENVELOPE_SIZE)
    signers = (OPENSSL, KEY)
    signing = [[_rate(2_000, lambda: signer.sign(message))] for signer in signers]  # noqa: B023
    cpu = time.process_time()
    seconds = log.seal(count)
    cpu = time.process_time() - cpu
    for rates, signer in zip(signing, signers, strict=True):
        rates.append(_rate(2_000, lambda: signer.sign(message)))  # noqa: B023
    what, entries, note = f"entries in batches to {where}", "entries/s", f"{cpu / count * 1e6:.0f} µs of processor each"
    openssl, sodium = map(statistics.mean, signing)
    return [
        Figure(what, entries, count / seconds, "Ed25519 signing alone (OpenSSL)", openssl, at_least=0.4, note=note),
        Figure(what, entries, count / seconds, "the same (libsodium, as the ledger does)", sodium),
    ]


def grow(log: Log, count: int) -> None:
    """Seal so many entries more, telling how far it is."""
    while count > 0:
        some = min(count, 50_000)
        seconds = log.seal(some)
        count -= some
        sys.stdout.write(f"  sealed up to {log.source.closed:,}: {some / seconds:,.0f} entries/s\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class ProofCost:
    """What one proof costs at a size of the log: characters, milliseconds to make, to verify, and of the raw steps."""

    size: int
    characters: int
    make_ms: float
    read_ms: float
    verify_ms: float
    signatures_ms: float


def proof_costs(log: Log, rounds: int) -> list[ProofCost]:
    """Proofs of entries spread over the log at sizes 1, 4, 16 ... and the whole."""
    whole = log.source.closed
    sizes = [4**power for power in range(20) if 4**power < whole] + [whole]
    store = LedgerStore(log.home / DATABASE, readonly=True)
    try:
        return [_proof_cost(log.home, store, size, rounds) for size in sizes]
    finally:
        store.close()


def _proof_cost(home: Path, store: LedgerStore, size: int, rounds: int) -> ProofCost:
    files, public, whole = TileFiles(home), KEY.public_key(), store.size()

    def read_tile(tile: Tile) -> bytes:
        """The tile as the smaller log had it: the start of the one that is there now."""
        there = (whole >> (tile.level * tiles.HEIGHT)) - tile.number * tiles.WIDTH
        return files.read(tile._replace(width=min(tiles.WIDTH, there)))[: tile.width * merkle.HASH_SIZE]

    read = tiles.node_reader(size, read_tile)
    frontier = [read(level, index) for level, index in _peaks(size)]
    note = checkpoint.make(ORIGIN, size, merkle.Frontier(size, frontier).root(), KEY)
    made, plain, checked, raw, longest = [], [], [], [], 0
    message, signature = bytes(ENVELOPE_SIZE), KEY.sign(bytes(ENVELOPE_SIZE))
    for number in range(20 * rounds):
        index = number * 7_919 % size
        stored = store.entry(index)
        assert stored is not None
        took, found = _timed(lambda: store.find(leaf=stored.leaf))  # noqa: B023
        assert found is not None
        took_more, text = _timed(lambda: proof.make(index, found.envelope, note, read))  # noqa: B023
        made.append(took + took_more)
        plain.append(_timed(lambda: _read_path(read_tile, index, size))[0])  # noqa: B023
        checked.append(_timed(lambda: proof.verify(text, ORIGIN, public))[0])  # noqa: B023
        raw.append(_timed(lambda: [keys.check(public, signature, message) for _ in range(2)])[0])
        longest = max(longest, len(text))
    return ProofCost(size, longest, *(statistics.median(times) for times in (made, plain, checked, raw)))


def _peaks(size: int) -> list[tuple[int, int]]:
    """The perfect subtrees (level, index) of a tree, largest first."""
    levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
    return [(level, (size >> level) - 1) for level in levels]


def _read_path(read_tile: Callable[[Tile], bytes], index: int, size: int) -> None:
    """The files that hold an entry's path: one tile a level."""
    level = 0
    while index < size:
        number = index // tiles.WIDTH
        read_tile(Tile(level, number, min(tiles.WIDTH, size - number * tiles.WIDTH)))
        index, size, level = number, size // tiles.WIDTH, level + 1


def proofs(whole: ProofCost) -> list[Figure]:
    """Making and verifying a proof of the whole log, from what `proof_costs` has measured."""
    return [
        Figure(
            f"a proof made from a log of {whole.size:,}",
            "ms",
            whole.make_ms,
            "reading the tiles it is made from",
            whole.read_ms,
            limit=2.0,
        ),
        Figure(
            "a proof verified offline",
            "ms",
            whole.verify_ms,
            "its two Ed25519 signatures checked",
            whole.signatures_ms,
            limit=5.0,
        ),
    ]


def verification(log: Log) -> list[Figure]:
    """The whole ledger verified, beside Ed25519 checks alone in one thread; and its hashes alone."""
    public, count = KEY.public_key(), log.source.closed
    cores = os.cpu_count() or 1
    checking = [_checks_at_once(cores, check) for check in (_openssl_checks, _sodium_checks)]
    before = os.times()
    seconds, findings = _timed(lambda: audit(log.home, public, ORIGIN))
    cpu = sum(os.times()[:4]) - sum(before[:4])
    assert findings == []
    checking[0] += _checks_at_once(cores, _openssl_checks)
    checking[1] += _checks_at_once(cores, _sodium_checks)
    what, rate = f"{count:,} entries verified whole, for each of {cores} cores", count / (seconds / 1000) / cores
    raw = f"Ed25519 checks alone, {cores} processes at once, each"
    openssl, sodium = map(statistics.mean, checking)
    note = f"{cpu / count * 1e6:.0f} µs of processor each"
    whole = [
        Figure(what, "entries/s", rate, f"{raw} (OpenSSL)", openssl, at_least=0.7, note=note),
        Figure(what, "entries/s", rate, "the same (libsodium, as the ledger does)", sodium),
    ]
    data = os.urandom(ENVELOPE_SIZE)
    hashing = [_rate(200_000, lambda: hashlib.sha256(data).digest())]
    before = os.times()
    seconds, findings = _timed(lambda: audit(log.home, public, ORIGIN, signatures=False))
    cpu = sum(os.times()[:4]) - sum(before[:4])
    assert findings == []
    hashing.append(_rate(200_000, lambda: hashlib.sha256(data).digest()))
    return [
        *whole,
        Figure(
            f"{count:,} entries verified by hashes alone, {cores} cores",
            "entries/s",
            count / (seconds / 1000),
            "SHA-256 of each envelope alone, one core",
            statistics.mean(hashing),
            floor=100_000,
            note=f"{cpu / count * 1e6:.1f} µs of processor each",
        ),
    ]


def _checks_at_once(processes: int, check: Callable[[int], float]) -> list[float]:
    """Ed25519 checks a second of each of so many processes, all at the same time."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(check, [10_000] * processes, chunksize=1)


def _openssl_checks(count: int) -> float:
    public, message = OPENSSL.public_key(), bytes(ENVELOPE_SIZE)
    signature = OPENSSL.sign(message)
    return _rate(count, lambda: public.verify(signature, message))


def _sodium_checks(count: int) -> float:
    public, message = KEY.public_key(), bytes(ENVELOPE_SIZE)
    signature = KEY.sign(message)
    return _rate(count, lambda: keys.check(public, signature, message))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds, and what came of it."""
    began = time.perf_counter()
    result = work()
    return (time.perf_counter() - began) * 1000, result


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - began)
