"""What is measured: each row is a function of a server that returns one number."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from tests.benchmarks.instances import Maker, Series
from tests.benchmarks.servers import Server

T = TypeVar("T")

BOUNDARY = b"cairn-benchmark"
FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
WHOLE = 'multipart/related; type="application/dicom"; transfer-syntax=*'
JSON = "application/dicom+json"


@dataclass(frozen=True)
class Row:
    """A line of the table; `higher` is whether a greater value is better. `instances` stored, for CPU each."""

    name: str
    unit: str
    higher: bool
    instances: int = 0


def grouped(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Runs of at most `size` items, in order."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def store(server: Server, files: Sequence[Path], *, associations: int, nodelay: bool) -> float:
    """Instances a second by DCMTK's storescu, one process for each association."""
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    if nodelay:
        environment["TCP_NODELAY"] = "1"
    began = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["storescu", "-aec", server.ae_title, "127.0.0.1", str(server.dicom_port), *files[number::associations]],
            env=environment,
        )
        for number in range(associations)
    ]
    codes = [sender.wait() for sender in senders]
    took = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"storescu to {server.name} failed: {codes}")
    return len(files) / took


def _multipart(parts: Sequence[bytes]) -> bytes:
    head = b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--" + BOUNDARY + b"--\r\n"


def post(client: httpx.Client, server: Server, parts: Sequence[bytes]) -> None:
    """One STOW-RS request; raises RuntimeError when an instance is not stored."""
    answer = client.post(
        f"{server.url}/studies",
        content=_multipart(parts),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}',
            "Accept": JSON,
        },
    )
    if answer.status_code != 200 or len(answer.json()["00081199"]["Value"]) != len(parts):
        raise RuntimeError(f"{server.name} did not store all: {answer.status_code} {answer.text[:300]}")


def stow(server: Server, files: Sequence[Path], *, each: int) -> float:
    """Instances a second by STOW-RS on one connection, `each` instances in a request."""
    bodies = [[path.read_bytes() for path in group] for group in grouped(files, each)]
    with server.client() as client:
        began = time.perf_counter()
        for parts in bodies:
            post(client, server, parts)
        return len(files) / (time.perf_counter() - began)


def fill(server: Server, studies: Sequence[bytes]) -> None:
    """Store studies of one tiny instance each, 50 in a request, on four connections."""
    groups = grouped(studies, 50)

    def one(group: Sequence[bytes]) -> None:
        with server.client() as client:
            post(client, server, group)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, groups))


def _get(client: httpx.Client, url: str, accept: str) -> httpx.Response:
    answer = client.get(url, headers={"Accept": accept})
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code} for {url}: {answer.text[:300]}")
    return answer


def _median_ms(
    client: httpx.Client, urls: Sequence[str], accept: str, check: Callable[[httpx.Response], bool]
) -> float:
    """Median milliseconds of one GET each; the first is not counted (connection, caches of both)."""
    times = []
    for url in urls:
        began = time.perf_counter()
        answer = _get(client, url, accept)
        times.append((time.perf_counter() - began) * 1000)
        if not check(answer):
            raise RuntimeError(f"an unexpected answer to {url}: {answer.text[:300]}")
    return sorted(times[1:])[len(times[1:]) // 2]


def page(server: Server, total: int) -> float:
    """Milliseconds for a page of 101 studies, as OHIF's work list asks for it, at places all over the archive."""
    wanted = min(101, total)
    offsets = [0, *(n * max(1, (total - wanted) // 8) for n in range(9))]
    urls = [
        f"{server.url}/studies?limit={wanted}&offset={offset}&fuzzymatching=false&includefield=00081030,00080060"
        for offset in offsets
    ]
    with server.client() as client:
        return _median_ms(client, urls, JSON, lambda answer: len(answer.json()) == wanted)


def search_patient(server: Server, patients: Sequence[str]) -> float:
    """Milliseconds to find the one study of a patient by Patient ID."""
    urls = [f"{server.url}/studies?PatientID={patient}" for patient in patients]
    with server.client() as client:
        return _median_ms(client, urls, JSON, lambda answer: len(answer.json()) == 1)


def frames(server: Server, series: Series, *, connections: int) -> float:
    """Frames a second, each instance's only frame by a request of its own, as OHIF fetches a stack."""
    base = f"{server.url}/studies/{series.study}/series/{series.series}/instances"
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    with (
        httpx.Client(headers=server.headers, timeout=300, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(connections) as pool,
    ):
        began = time.perf_counter()
        sizes = pool.map(lambda uid: len(_get(client, f"{base}/{uid}/frames/1", FRAMES).content), series.instances)
        if min(sizes) < 2 * 512 * 512:
            raise RuntimeError("a frame is shorter than its pixels")
        return len(series.instances) / (time.perf_counter() - began)


def instance_metadata(server: Server, series: Series) -> float:
    """Milliseconds for one instance's metadata."""
    base = f"{server.url}/studies/{series.study}/series/{series.series}/instances"
    urls = [f"{base}/{uid}/metadata" for uid in series.instances[:50]]
    with server.client() as client:
        return _median_ms(client, urls, JSON, lambda answer: len(answer.json()) == 1)


def series_metadata(server: Server, series: Series) -> float:
    """Milliseconds for the metadata of a whole series."""
    url = f"{server.url}/studies/{series.study}/series/{series.series}/metadata"
    with server.client() as client:
        return _median_ms(client, [url] * 4, JSON, lambda answer: len(answer.json()) == len(series.instances))


def whole_series(server: Server, series: Series) -> float:
    """Megabytes a second for all instances of a series in one answer, as they were stored."""
    url = f"{server.url}/studies/{series.study}/series/{series.series}"
    size = 0
    with server.client() as client:
        began = time.perf_counter()
        with client.stream("GET", url, headers={"Accept": WHOLE}) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"{answer.status_code} for {url}")
            for chunk in answer.iter_raw():
                size += len(chunk)
        took = time.perf_counter() - began
    if size < len(series.instances) * 2 * 512 * 512:
        raise RuntimeError("the series is shorter than its pixels")
    return size / 1e6 / took


def tiny_studies(maker: Maker, count: int) -> list[bytes]:
    return [maker.tiny() for _ in range(count)]
