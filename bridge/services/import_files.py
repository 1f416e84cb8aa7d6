"""`cairn import PATH`: every DICOM instance below a path goes the one way in, as if it had been sent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bridge.errors import CapacityError, RequestError, Unreadable
from bridge.model import Actor
from bridge.services.store import Reception, Store

Report = Callable[[str], None]
CHUNK = 1 << 20
TOLD_EVERY = 200


def import_files(store: Store, actor: Actor, path: Path, report: Report) -> dict[str, object]:
    """Import a file or a folder; counts by outcome, and each refused file with its reason.

    A file that is no DICOM instance is refused and named, not an error of the whole. Raises StorageFull, StorageFault,
    Busy: what was imported until then stays.
    """
    counts: Counter[str] = Counter()
    refused: list[dict[str, str]] = []
    with store.reception(actor) as reception:
        for number, file in enumerate(_files(path), 1):
            try:
                counts[_import_file(reception, file)] += 1
            except RequestError as error:
                counts["refused"] += 1
                refused.append({"file": str(file), "slug": error.slug, "detail": error.detail})
                report(f"refused {file}: {error.detail}")
            except CapacityError:
                report(f"stopped at {file} after {number - 1} files")
                raise
            if number % TOLD_EVERY == 0:
                report(f"{number} files read")
    return {"outcomes": dict(counts), "refused": refused}


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


def _import_file(reception: Reception, file: Path) -> str:
    incoming = reception.begin()
    try:
        for chunk in _chunks(file):
            incoming.write(chunk)
        return incoming.commit().outcome.value
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
