"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

import psutil


def describe(folder: Path) -> list[str]:
    """Lines about processor, memory, kernel, disk and versions; `folder` is where both servers store."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    kind = next(
        (
            part.fstype
            for part in sorted(psutil.disk_partitions(all=True), key=lambda p: -len(p.mountpoint))
            if folder.resolve().is_relative_to(part.mountpoint)
        ),
        "unknown file system",
    )
    small, large = sync_milliseconds(folder, 4096), sync_milliseconds(folder, 512 * 1024)
    version = subprocess.run(["storescu", "--version"], capture_output=True, text=True, check=True).stdout
    load = os.getloadavg()[0]
    return [
        f"{model}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB memory",
        f"{platform.system()} {platform.release()}; load average when it began: {load:.1f}"
        + (" (the machine was not quiet: repeat before you believe it)" if load > 1 else ""),
        f"{kind}; appending and fdatasync: 4 KiB {small:.2f} ms, 512 KiB {large:.2f} ms (medians of 50)",
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; sender: DCMTK {version.split()[2]}",
    ]


def sync_milliseconds(folder: Path, size: int) -> float:
    """Median milliseconds to append `size` bytes to a file and make them durable."""
    path = folder / "sync-probe"
    data, times = os.urandom(size), []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return statistics.median(times)
