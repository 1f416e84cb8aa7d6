"""`python -m tests.benchmarks`: Cairn and Orthanc side by side on the same files in the same run.

Servers alternate within each row and round, and which goes first alternates too. `--quick` runs every row with fewer
instances in about two minutes and writes nothing unless `--out` is given.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.benchmarks import rows
from tests.benchmarks.acceptor_alone import AcceptorAlone
from tests.benchmarks.instances import Maker, Series
from tests.benchmarks.machine import describe
from tests.benchmarks.report import Measured, render, table
from tests.benchmarks.rows import Row
from tests.benchmarks.servers import Cairn, Orthanc, OrthancAsInstalled, Server


@dataclass
class Plan:
    """How much: instances a store row, rounds, and the two sizes of the archive."""

    slices: int
    rounds: int
    archives: tuple[int, int]


@dataclass
class Run:
    """Servers, and what was measured so far."""

    servers: Sequence[Server]
    as_installed: Sequence[Server]
    alone: Server
    plan: Plan
    maker: Maker
    folder: Path
    measured: dict[Row, dict[str, Measured]] = field(default_factory=dict)
    taken: dict[Row, Measured] = field(default_factory=dict)
    turn: int = 0

    def row(self, row: Row, measure: Callable[[Server], float], servers: Sequence[Server] | None = None) -> None:
        """Measure once on each server; who begins alternates."""
        self.turn += 1
        servers = servers or self.servers
        for server in servers if self.turn % 2 else reversed(servers):
            value, cpu = self._measured(server, row, measure)
            self.measured.setdefault(row, {}).setdefault(server.name, Measured()).add(value, cpu)

    def _measured(self, server: Server, row: Row, measure: Callable[[Server], float]) -> tuple[float, float]:
        """The value, and the processor milliseconds for each instance."""
        before = server.cpu_seconds()
        value = measure(server)
        cpu = (server.cpu_seconds() - before) * 1000 / row.instances if row.instances else 0.0
        sys.stdout.write(f"{row.name:58} {server.name:14} {value:10.1f} {row.unit}\n")
        sys.stdout.flush()
        return value, cpu

    def store_rows(self) -> Series:
        """One round of everything that stores; the last series sent stays for the reading rows."""
        count = self.plan.slices
        series = None
        for associations in (1, 4):
            for nodelay in (False, True):
                series = self._series(count)
                how = "TCP_NODELAY=1" if nodelay else "stock"
                name = f"C-STORE, storescu {how}, {_associations(associations)}"
                send = partial(rows.store, files=series.files, associations=associations, nodelay=nodelay)
                self.row(row := Row(name, "instances/s", True, count), send)
            self.taken.setdefault(row, Measured()).add(*self._measured(self.alone, row, send))
            series = self._series(count)
            name = f"C-STORE, storescu stock, {_associations(associations)}; Orthanc as installed"
            send = partial(rows.store, files=series.files, associations=associations, nodelay=False)
            self.row(Row(name, "instances/s", True, count), send, self.as_installed)
        for each in (1, 10):
            series = self._series(count)
            name = f"STOW-RS, {each} instance{'s' * (each > 1)} a request"
            self.row(Row(name, "instances/s", True, count), partial(rows.stow, files=series.files, each=each))
        assert series is not None
        return series

    def _series(self, count: int) -> Series:
        """A new series; the files of the one before are removed (both servers have them)."""
        shutil.rmtree(self.folder / "files", ignore_errors=True)
        return self.maker.series(self.folder / "files", count)

    def read_rows(self, series: Series) -> None:
        """One round of what a viewer reads."""
        count = len(series.instances)
        for connections in (1, 6):
            name = f"frames as OHIF asks, {connections} connection{'s' * (connections > 1)}"
            read = partial(rows.frames, series=series, connections=connections)
            self.row(Row(name, "frames/s", True, count), read)
        self.row(Row("metadata of an instance", "ms", False), partial(rows.instance_metadata, series=series))
        self.row(Row(f"metadata of a series of {count}", "ms", False), partial(rows.series_metadata, series=series))
        self.row(Row(f"a whole series of {count}", "MB/s", True, count), partial(rows.whole_series, series=series))

    def search_rows(self) -> None:
        """Fill both archives to each size, then search, all rounds."""
        held: list[bytes] = []
        for size in self.plan.archives:
            more = rows.tiny_studies(self.maker, size - len(held))
            held += more
            name = f"tiny studies by STOW-RS, 50 a request, 4 connections, up to {size:,}"
            self.row(Row(name, "instances/s", True, len(more)), partial(_fill, studies=more))
            patients = [_patient(held[n * len(held) // 20]) for n in range(20)]
            for _ in range(self.plan.rounds):
                page = partial(rows.page, total=size)
                self.row(Row(f"a page of {min(101, size)} studies among {size:,}", "ms", False), page)
                find = partial(rows.search_patient, patients=patients)
                self.row(Row(f"one patient's study among {size:,}", "ms", False), find)


def _associations(count: int) -> str:
    return "1 association" if count == 1 else f"{count} associations"


def _fill(server: Server, studies: Sequence[bytes]) -> float:
    began = time.perf_counter()
    rows.fill(server, studies)
    return len(studies) / (time.perf_counter() - began)


def _patient(instance: bytes) -> str:
    at = instance.index(b"PID")
    return instance[at : at + 10].decode("ascii")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every row, few instances, about two minutes")
    parser.add_argument("--rounds", type=int, help="how often each row is measured")
    parser.add_argument("--folder", type=Path, help="where both servers store (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="the page to write (default: docs/performance.md, with --quick none)")
    chosen = parser.parse_args()
    plan = Plan(60, 2, (200, 1000)) if chosen.quick else Plan(600, 3, (1000, 10_000))
    plan.rounds = chosen.rounds or plan.rounds
    out = chosen.out or (None if chosen.quick else Path("docs/performance.md"))
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="benchmark-") as name:
        folder = Path(name)
        machine = describe(folder)
        servers: list[Server] = []
        try:
            for kind in (Cairn, Orthanc, OrthancAsInstalled, AcceptorAlone):
                servers.append(kind(folder / kind.__name__))
            cairn, orthanc, as_installed, alone = servers
            run = Run((cairn, orthanc), (cairn, as_installed), alone, plan, Maker(int(time.time()) % 10**6), folder)
            run.search_rows()
            for _ in range(plan.rounds):
                run.read_rows(run.store_rows())
            versions = [server.version() for server in (cairn, orthanc)]
            memory = {server.name: server.memory_mib() for server in (cairn, orthanc)}
        finally:
            for server in servers:
                server.stop()
    sys.stdout.write("\n" + "\n".join(table(run.measured)) + "\n")
    if out is not None:
        out.write_text(
            render(run.measured, run.taken, [*machine, *versions], memory, plan.rounds, plan.slices), "utf-8"
        )
        sys.stdout.write(f"\nwritten: {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
