"""`cairn import PATH`: every DICOM instance below a path goes the one way in, as if it had been sent."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.errors import CapacityError, RequestError, Unreadable
from bridge.model import Actor
from bridge.services.store import Receipt, Reception, Store

Report = Callable[[str], None]
CHUNK = 1 << 20
TOLD_EVERY = 200
MOST_SUBMITTED = 32
"""Files that may wait for a commit that they share while the next are read."""


def import_files(store: Store, actor: Actor, path: Path, report: Report) -> dict[str, object]:
    """Import a file or a folder; counts by outcome, and each refused file with its reason.

    A file that is no DICOM instance is refused and named, not an error of the whole. Raises StorageFull, StorageFault,
    Busy: what was imported until then stays.
    """
    done = _Imported(report)
    with store.reception(actor) as reception:
        for number, file in enumerate(_files(path), 1):
            with done.told(number, file):
                done.submitted.append((number, file, _submit(reception, file)))
            done.wait(MOST_SUBMITTED)
            if number % TOLD_EVERY == 0:
                report(f"{number} files read")
        done.wait(0)
    return {"outcomes": dict(done.counts), "refused": done.refused}


class _Imported:
    """What became of files so far, and those that wait for a commit while the next are read."""

    def __init__(self, report: Report) -> None:
        self.counts: Counter[str] = Counter()
        self.refused: list[dict[str, str]] = []
        self.submitted: deque[tuple[int, Path, Callable[[], Receipt]]] = deque()
        self._report = report

    def wait(self, most: int) -> None:
        """Wait for the first, until at most so many are on their way."""
        while len(self.submitted) > most:
            number, file, durable = self.submitted.popleft()
            with self.told(number, file):
                self.counts[durable().outcome.value] += 1

    @contextmanager
    def told(self, number: int, file: Path) -> Iterator[None]:
        """A file that is refused is noted and told; what stops the import is told and goes through."""
        try:
            yield
        except RequestError as error:
            self.counts["refused"] += 1
            self.refused.append({"file": str(file), "slug": error.slug, "detail": error.detail})
            self._report(f"refused {file}: {error.detail}")
        except CapacityError:
            self._report(f"stopped at {file} after {number - 1} files")
            raise


def _files(path: Path) -> Iterator[Path]:
    """Regular files only, in name order; links to folders are not followed."""
    if not path.is_dir():
        yield path
        return
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        elif entry.is_file():
            yield entry


def _submit(reception: Reception, file: Path) -> Callable[[], Receipt]:
    incoming = reception.begin()
    try:
        for chunk in _chunks(file):
            incoming.write(chunk)
        return incoming.submit()
    except BaseException:
        incoming.abort()
        raise


def _chunks(file: Path) -> Iterator[bytes]:
    """A file's contents. Raises Unreadable for what is none, such as a pipe, which might never end or never begin."""
    try:
        if not file.is_file():
            raise Unreadable("it is not a file")
        with file.open("rb") as reading:
            while chunk := reading.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {os.strerror(error.errno or 0)}") from error
