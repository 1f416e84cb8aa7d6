"""What is measured of the content engines: each step returns figures that hold ours and the raw step's value."""

from __future__ import annotations

import json
import queue
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from bridge.content import car_transfer, unixfs
from bridge.content import cid as cids
from bridge.crypto import sealing
from bridge.services.sealed_object import SealedObjectReader
from tests.benchmarks import rows
from tests.benchmarks.content_archive import HASH, Archive, Sealed, stock
from tests.benchmarks.instances import Maker, Series
from tests.benchmarks.ledger_page import Figure
from tests.benchmarks.servers import Cairn
from tests.kubo_daemon import KuboDaemon

MIB = 1 << 20
INSTANCE = 512 * 1024  # bytes
FRAME = 2 * 512 * 512  # bytes
CALL_S = 600.0
BARE, ADD = "bare dag/import of the same studies", "ipfs add of the same ciphertext"
LAYOUT = {
    "cid-version": "1",
    "raw-leaves": "true",
    "chunker": "size-1048576",
    "max-file-links": "1024",
    "hash": "blake3",
}


@contextmanager
def kubo(folder: Path) -> Iterator[KuboDaemon]:
    """A Kubo with an empty repository, that is removed afterwards."""
    daemon = KuboDaemon(folder / "kubo")
    try:
        yield daemon.start()
    finally:
        daemon.kill()
        shutil.rmtree(folder / "kubo")


@contextmanager
def archive(folder: Path, daemon: KuboDaemon | None = None) -> Iterator[Archive]:
    """An archive over this Kubo, or embedded, that is removed afterwards."""
    opened = Archive(folder / "archive", daemon.api if daemon else None)
    try:
        yield opened
    finally:
        opened.close()
        shutil.rmtree(folder / "archive")


def _rpc(daemon: KuboDaemon) -> httpx.Client:
    return httpx.Client(base_url=f"{daemon.url}/api/v0/", timeout=CALL_S, trust_env=False)


def bare_import(daemon: KuboDaemon, car: Path) -> None:
    """One CAR, its root pinned."""
    with _rpc(daemon) as rpc, car.open("rb") as file:
        answer = rpc.post("dag/import", params={"pin-roots": "true", "timeout": "600s"}, files={"file": file})
    if answer.status_code != 200 or json.loads(answer.text.splitlines()[-1])["Root"]["PinErrorMsg"]:
        raise RuntimeError(f"dag/import: {answer.status_code} {answer.text}")


def bare_add(daemon: KuboDaemon, files: Sequence[Path]) -> None:
    """Files by one `ipfs add`, pinned."""
    with _rpc(daemon) as rpc:
        opened = [("file", (path.name, path.open("rb"))) for path in files]
        answer = rpc.post("add", params={**LAYOUT, "quieter": "true", "pin": "true"}, files=opened)
        for _, (_, file) in opened:
            file.close()
    if answer.status_code != 200 or len(answer.text.splitlines()) < len(files):
        raise RuntimeError(f"add: {answer.status_code} {answer.text[:300]}")


def pinning(folder: Path, studies: int, instances: int, rounds: int) -> list[Figure]:
    """Studies sealed and pinned, beside a bare `dag/import` and `ipfs add` of the same bytes."""
    sealed_pinned: list[float] = []
    one: list[float] = []
    packs_pinned: list[float] = []
    imported: list[float] = []
    added: list[float] = []
    data = stock(INSTANCE)
    for number in range(rounds):
        with kubo(folder) as daemon, archive(folder, daemon) as ours:
            seconds, made = _overlapping(ours, studies, instances, data)
            total = sum(study.size for study in made) / MIB
            sealed_pinned.append(total / seconds)
            cars, files = _written(ours, made, folder / "written")
        with kubo(folder) as daemon, archive(folder, daemon) as ours:
            began = time.perf_counter()
            alone = ours.seal(studies * instances, INSTANCE, data)
            sealed = time.perf_counter()
            ours.content.pin(alone.root)
            ended = time.perf_counter()
            one.append(total / (ended - began))
            packs_pinned.append(total / (ended - sealed))
        bare = [(imported, partial(_import_each, cars=cars)), (added, partial(bare_add, files=files))]
        for values, work in bare if number % 2 else reversed(bare):
            values.append(total / _bare(folder, work))
        shutil.rmtree(folder / "written")
    raw, add = statistics.median(imported), statistics.median(added)
    size = f"{instances * INSTANCE // MIB} MiB"
    whole = f"{studies * instances * INSTANCE // MIB} MiB"
    first = statistics.median(sealed_pinned)
    return [
        Figure(f"{studies} studies of {size} sealed and pinned", "MiB/s", first, BARE, raw, at_least=0.7),
        Figure(f"{studies} studies of {size} sealed and pinned", "MiB/s", first, ADD, add),
        Figure(f"one study of {whole} sealed, then pinned", "MiB/s", statistics.median(one), BARE, raw),
        Figure(f"one study of {whole} in the packs, pinned", "MiB/s", statistics.median(packs_pinned), BARE, raw),
    ]


def _import_each(daemon: KuboDaemon, cars: Sequence[Path]) -> None:
    for car in cars:
        bare_import(daemon, car)


def _bare(folder: Path, work: Callable[[KuboDaemon], None]) -> float:
    """Seconds that it takes on a Kubo that has nothing."""
    with kubo(folder) as daemon:
        began = time.perf_counter()
        work(daemon)
        return time.perf_counter() - began


def _overlapping(
    ours: Archive, studies: int, instances: int, data: Callable[[int], bytes]
) -> tuple[float, list[Sealed]]:
    """Seal in one thread while another pins what was sealed; seconds from the first byte to the last pin."""
    waiting: queue.SimpleQueue[Sealed | None] = queue.SimpleQueue()
    failed: list[BaseException] = []

    def pin() -> None:
        try:
            while (study := waiting.get()) is not None:
                ours.content.pin(study.root)
        except BaseException as error:
            failed.append(error)

    pinner = threading.Thread(target=pin)
    pinner.start()
    began = time.perf_counter()
    made = []
    for _ in range(studies):
        made.append(ours.seal(instances, INSTANCE, data))
        waiting.put(made[-1])
    waiting.put(None)
    pinner.join()
    seconds = time.perf_counter() - began
    if failed:
        raise failed[0]
    return seconds, made


def _written(ours: Archive, made: Sequence[Sealed], folder: Path) -> tuple[list[Path], list[Path]]:
    """The studies as CAR files, and their sealed objects as files."""
    folder.mkdir()
    cars, files = [], []
    for number, study in enumerate(made):
        cars.append(folder / f"{number}.car")
        with cars[-1].open("wb") as file:
            file.writelines(car_transfer.export_car(ours.content, study.root))
        for place, sealed in enumerate(study.objects):
            files.append(folder / f"{number}-{place}.sealed")
            size = sealing.ciphertext_length(sealed.length)
            with files[-1].open("wb") as file:
                file.writelines(
                    ours.content.get(leaf.cid) for leaf in unixfs.leaves(sealed.root, ours.content.get, size)
                )
    return cars, files


def frames(folder: Path, count: int, times: int) -> list[Figure]:
    """Frames of one multiframe of `count` frames that only Kubo holds."""
    with kubo(folder) as daemon:
        with archive(folder, daemon) as ours:
            study = ours.seal(1, count * FRAME)
            ours.content.pin(study.root)
            root, size = study.objects[0].root, sealing.ciphertext_length(count * FRAME)
            leaves = [leaf.cid for leaf in unixfs.leaves(root, ours.content.get, size)]
            node = ours.content.get(root)
        cold, known, whole, alone = ([0.0] * times for _ in range(4))
        fetched, needed = [], []
        with _rpc(daemon) as rpc:
            for at, number in enumerate(random.Random(1).sample(range(count), times)):
                parts = sealing.segment_range(number * FRAME, FRAME, count * FRAME)
                holding = [leaves[part.number] for part in parts]
                needed.append(len(holding))
                whole[at] = _fetched(rpc, [root, *holding])
                with archive(folder, daemon) as empty:
                    counted = _Counted(empty)
                    cold[at] = _read(empty, empty.reader(study, 0), number)
                    fetched.append(counted.count)
                alone[at] = _fetched(rpc, holding)
                with archive(folder, daemon) as empty:
                    known[at] = _read(empty, empty.reader(study, 0, lambda _: node), number)
    what = f"a frame of 0.5 MB of a {count * FRAME // MIB} MiB multiframe held only by Kubo"
    median = statistics.median
    return [
        Figure(f"{what}, cold", "ms", median(cold), "block/get of the same blocks", median(whole), at_most=2.0),
        Figure(f"{what}, its node known", "ms", median(known), "block/get of the same", median(alone), at_most=2.0),
        Figure(f"{what}, cold", "blocks at most", max(fetched), "blocks that hold it", max(needed), limit=3),
    ]


def _read(empty: Archive, reader: SealedObjectReader, number: int) -> float:
    """Milliseconds that a frame takes; a connection to Kubo is open, as in a node at work."""
    empty.content.has(cids.make(cids.RAW, b"none", HASH))
    began = time.perf_counter()
    frame = reader.read(number * FRAME, FRAME)
    took = (time.perf_counter() - began) * 1000
    if len(frame) != FRAME:
        raise RuntimeError("not a whole frame")
    return took


def _fetched(rpc: httpx.Client, blocks: Sequence[bytes]) -> float:
    """Milliseconds that these blocks take by `block/get` alone, one after another."""
    began = time.perf_counter()
    for cid in blocks:
        rpc.post("block/get", params={"arg": cids.to_text(cid)}).raise_for_status()
    return (time.perf_counter() - began) * 1000


class _Counted:
    """Counts what is asked of an archive's content."""

    def __init__(self, archive: Archive) -> None:
        self.count = 0
        self._get = archive.content.get
        archive.content.get = self.get  # type: ignore[method-assign]

    def get(self, cid: bytes) -> bytes:
        self.count += 1
        return self._get(cid)


def acknowledging(folder: Path, slices: int, rounds: int) -> list[Figure]:
    """Instances a second by storescu, of a node with Kubo beside an embedded one."""
    maker = Maker(int(time.time()) % 10**6)
    quiet: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    with kubo(folder) as daemon:
        servers = [_Node(folder / "embedded"), _Node(folder / "over-kubo", daemon)]
        try:
            for number in range(rounds):
                for server in servers if number % 2 else reversed(servers):
                    series = _series(maker, folder, 1, slices)
                    quiet.setdefault(server.name, []).append(_stored(server, series))
                    server.settle()
            for server in servers:
                series = _series(maker, folder, 4, slices)
                busy.setdefault(server.name, []).append(_stored(server, series))
                server.settle()
        finally:
            for server in servers:
                server.stop()
                shutil.rmtree(server.folder)
            shutil.rmtree(folder / "files", ignore_errors=True)
    raw = "a node with the embedded engine"
    return [
        Figure(what, "instances/s", statistics.median(v["kubo"]), raw, statistics.median(v["embedded"]), at_least=least)
        for what, v, least in (
            ("C-STORE acknowledged by a node with Kubo", quiet, 0.9),
            ("the same while studies are pinned", busy, None),
        )
    ]


class _Node(Cairn):
    """A node with one engine or the other."""

    def __init__(self, folder: Path, daemon: KuboDaemon | None = None) -> None:
        self.daemon = daemon
        self.name = "kubo" if daemon else "embedded"
        self.sent = 0
        super().__init__(folder)

    def environment(self) -> dict[str, str]:
        more = {"CAIRN_CONTENT__ENGINE": "kubo", "CAIRN_CONTENT__KUBO__API": self.daemon.api} if self.daemon else {}
        return super().environment() | more

    def settle(self) -> None:
        """Until Kubo has a pin for every study that was sent."""
        until = time.monotonic() + CALL_S
        while self.daemon and len(self.daemon.pins()) < self.sent:
            if time.monotonic() > until:
                raise RuntimeError("the studies were not pinned")
            time.sleep(0.2)


def _series(maker: Maker, folder: Path, count: int, slices: int) -> list[Series]:
    shutil.rmtree(folder / "files", ignore_errors=True)
    return [maker.series(folder / "files" / str(number), slices) for number in range(count)]


def _stored(server: _Node, all_series: Sequence[Series]) -> float:
    began = time.perf_counter()
    for series in all_series:
        rows.store(server, series.files, associations=1, nodelay=False)
        server.sent += 1
    return sum(len(series.files) for series in all_series) / (time.perf_counter() - began)


def memory(folder: Path, size: int) -> list[Figure]:
    """The largest resident set while a study of `size` bytes is pinned, or imported, beside one of a tenth."""
    peaks: dict[str, list[float]] = {}
    for instances in (size // 10 // INSTANCE, size // INSTANCE):
        with kubo(folder) as daemon:
            car = folder / "study.car"
            with archive(folder) as made:
                study = made.seal(instances, INSTANCE, stock(INSTANCE))
                with car.open("wb") as file:
                    file.writelines(car_transfer.export_car(made.content, study.root))
                root = cids.to_text(study.root)
                peaks.setdefault("pinned", []).append(_peak(folder / "archive", daemon.api, root))
            peaks.setdefault("imported from a CAR", []).append(_peak(folder / "other", daemon.api, root, car))
            shutil.rmtree(folder / "other")
            car.unlink()
    what = f"peak memory while a study of {size / 10**9:.1f} GB is"
    return [
        Figure(f"{what} {how}", "MiB", large, f"one of {size / 10**10:.2f} GB", small, at_most=1.2)
        for how, (small, large) in peaks.items()
    ]


def _peak(home: Path, api: str, root: str, *car: Path) -> float:
    """MiB at most of a process of its own that pins from packs, or imports a CAR."""
    command = [sys.executable, "-m", "tests.benchmarks.content_memory", home, api, root, *car]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    return float(done.stdout) / 1024
