"""`cairn backup DIR` and `cairn restore DIR`: keys, index, ledger and packs, online and consistent.

Order makes it consistent without stopping anything: the ledger is copied first (it may know less than the index, and
catches up), then the index, then the keys (they may know more), then the packs up to what the index names: what lies
beyond may still be cut off by a recovery, what lies below never changes. So a backup into the same directory copies
only what is new. Packs that were trimmed, and are not in the backup from before, are made again from what the content
engine has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bridge import unfinished
from bridge.content.pack_format import pack_number, pack_path, packs_in, sync_directory
from bridge.crypto.key_database import exclusive
from bridge.errors import CapacityError, ConfigError, IntegrityError, StorageFault
from bridge.services import trimmed_packs
from bridge.services.trimmed_packs import Get
from ledger.store import lock as ledger_lock

Report = Callable[[str], None]
MANIFEST = "backup.json"
UNFINISHED = "backup.json.former"  # beside a backup that is being brought up to date, or was not to its end
RESTORE = "restore"
INDEX, BROUGHT = "index.db", "index.db.restored"
STORES = ("keys", "ledger", "packs", "run", "consortium", "kubo")
DATABASES = (INDEX, "keys/keys.db", "witness.db")
LEDGER = "ledger/ledger.db"
LEDGER_FILES = (LEDGER, LEDGER + "-wal", LEDGER + "-digests")  # belong together to the byte
CHECKPOINT, TILES = "ledger/checkpoint", "ledger/tile"
KEYS = "keys/keys.db"
SECRETS = ("keys/keystore.json", "keys/unlock", "keys/replacing.json")
# Who this node is in its consortium. The shared log the others have; a validator's key without what it signed last must
# never be used again (it could sign two blocks of one height), so a restored node asks the members for a new one.
MEMBERSHIP = (
    *("cairn.toml", "keys/next.json", "consortium/genesis.json", "consortium/card", "consortium/tls.crt"),
    *("consortium/tls.key", "consortium/cometbft/config/node_key.json"),
)
CHUNK = 8 << 20


def backup(
    home: Path,
    to: Path,
    report: Report,
    *,
    content: bool = True,
    get: Get | None = None,
    copy_index: Callable[[Path], None] | None = None,
) -> dict[str, int]:
    """Copy a node, running or not, into `to`; counts of files and bytes.

    The copy holds the keys and, when it lies there, the file that unlocks them: keep it as safe as the node. Packs that
    are gone from the spool are made of what `get` gives; without it they are left out, and told. `copy_index` writes
    an index that is not in `home` to an SQLite file, as of one moment.

    Raises ConfigError when `to` is a node and no backup, CapacityError while another is made there, StorageFault, and
    EngineFault when the content engine does not answer.
    """
    _refuse_node(home, to)
    old = os.umask(0o077)
    try:
        to.mkdir(parents=True, exist_ok=True)
        with _alone(to):
            return _backup(home, to, report, content, get, copy_index)
    except (OSError, sqlite3.Error) as error:
        raise StorageFault(f"the backup could not be written: {error}") from error
    finally:
        os.umask(old)


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Two that append to the same copies would spoil them. Raises CapacityError while another backup is made there."""
    fd = os.open(to, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CapacityError(f"another backup into {to} is being made") from None
    finally:
        os.close(fd)


def _backup(
    home: Path,
    to: Path,
    report: Report,
    content: bool,
    get: Get | None,
    copy_index: Callable[[Path], None] | None,
) -> dict[str, int]:
    before, made_again = trimmed_packs.trimmed(to / INDEX), _made_again(to)
    _write(to / UNFINISHED, json.dumps({"made_again": made_again}).encode())
    (to / MANIFEST).unlink(missing_ok=True)  # what is taken over piece by piece is of two moments until the end
    sync_directory(to)
    report(f"copying {LEDGER}")
    _copy_ledger(home, to)
    for name in DATABASES:
        if name == INDEX and copy_index is not None:
            report("copying the index from PostgreSQL")
            _take_database(copy_index, to / name)
        elif (home / name).exists():
            report(f"copying {name}")
            if name == KEYS:
                with exclusive(home / KEYS):  # an erasure changes both: what wraps the keys, and the keys
                    _take_database(partial(_copy_database, home / name), to / name)
                    _copy_small(home, to)
            else:
                _take_database(partial(_copy_database, home / name), to / name)
    if not (home / KEYS).exists():
        _copy_small(home, to)
    copied, again = _copy_content(home, to, before, made_again, get, report) if content else (0, made_again)
    manifest = {"format": 2, "content": content, "made_again": again}
    _write(to / MANIFEST, json.dumps(manifest).encode())
    (to / UNFINISHED).unlink()
    return {"databases": len(DATABASES) + 1, "pack_bytes": copied}


def _copy_small(home: Path, to: Path) -> None:
    for name in (*SECRETS, *MEMBERSHIP):
        if (home / name).exists():
            _copy_file(home / name, to / name)
        else:
            (to / name).unlink(missing_ok=True)


def _refuse_node(home: Path, to: Path) -> None:
    """What is copied takes the place of what is there: of a node, that would be its only copy."""
    own, there = home.resolve(), to.resolve()
    if there == own or any(there.is_relative_to(own / name) for name in STORES):
        raise ConfigError(f"{to} is where this node keeps what is to be backed up; name another folder")
    if (to / SECRETS[0]).exists() and not any((to / name).exists() for name in (MANIFEST, UNFINISHED)):
        raise ConfigError(f"{to} holds a node and no backup; name another folder")


def restore(
    source: Path,
    home: Path,
    report: Report,
    *,
    fill_index: Callable[[Path], None] | None = None,
    replay: Callable[[], None] = lambda: None,
) -> None:
    """Make an empty CAIRN_HOME into what was backed up; one that was begun and did not end is begun again.

    `fill_index` brings the index from an SQLite file to where it is to be instead of `home`. `replay` begins again what
    was erased since the backup; until it has done so the restore has not ended.

    Raises ConfigError when it is not empty, IntegrityError for a damaged backup, StorageFault.
    """
    if not (source / MANIFEST).is_file():
        raise ConfigError(f"{source} holds no finished backup ({MANIFEST} is missing)")
    former = unfinished.begun(home)
    if former is not None and former[0] == RESTORE:
        kept = former[1]
    else:
        unfinished.refuse(home)
        taken = [name for name in (LEDGER, *DATABASES, *SECRETS, "packs") if (home / name).exists()]
        if taken:
            raise ConfigError(f"{home} is not empty ({taken[0]} is there); restore into an empty CAIRN_HOME")
        kept = [name for name in MEMBERSHIP if (home / name).exists()]  # settings put there for the restored node
    old = os.umask(0o077)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with unfinished.until_done(home, RESTORE, kept):
            _restore(source, home, report, kept, fill_index)
            replay()
    except (OSError, sqlite3.Error) as error:
        raise StorageFault(f"the backup could not be restored: {error}") from error
    finally:
        os.umask(old)


def _restore(
    source: Path, home: Path, report: Report, kept: Sequence[str], fill_index: Callable[[Path], None] | None
) -> None:
    sizes = _sizes(source / "packs")
    for number in sizes:  # of a restore that did not end, perhaps of another backup
        pack_path(home / "packs", number).unlink(missing_ok=True)
    shutil.rmtree(home / TILES, ignore_errors=True)
    for name in (*LEDGER_FILES, CHECKPOINT, *DATABASES, *SECRETS, *MEMBERSHIP):
        if name in kept:
            report(f"{name} is there already and stays")
        elif (source / name).exists():
            report(f"restoring {name}")
            _copy_file(source / name, home / name)
        else:
            (home / name).unlink(missing_ok=True)
    _copy_tiles(source / TILES, home / TILES)
    for name in DATABASES:
        _check(home / name)
    _copy_packs(source / "packs", home / "packs", sizes, report)
    if (home / INDEX).exists():
        trimmed_packs.take_back(home / INDEX, home / "packs", _made_again(source))
    if fill_index is not None and (home / INDEX).exists():
        report("bringing the index to PostgreSQL")
        (home / INDEX).replace(home / BROUGHT)
        fill_index(home / BROUGHT)
        for suffix in ("", "-wal", "-shm", ".lock"):
            (home / f"{BROUGHT}{suffix}").unlink(missing_ok=True)


def _copy_ledger(home: Path, to: Path) -> None:
    """The ledger's files as they are, while its writer waits: its page digests are of these very bytes."""
    database = home / LEDGER
    if not database.exists():
        return
    _copy_tiles(home / TILES, to / TILES)  # nearly all of them, while its writer goes on
    with ledger_lock(database):
        for name in (*LEDGER_FILES, CHECKPOINT):
            (to / name).unlink(missing_ok=True)
            if (home / name).exists():
                _copy_file(home / name, to / name)
        _copy_tiles(home / TILES, to / TILES)


def _copy_tiles(source: Path, target: Path) -> None:
    """Copy the tiles that are new, and remove those whose full ones are there: under one name they never change."""
    there = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".tmp"}
    for name in sorted(there):
        if not (target / name).exists():
            with contextlib.suppress(FileNotFoundError):  # a partial tile, replaced by the full one just now
                _copy_file(source / name, target / name)
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target) not in there:
            path.unlink()


def _copy_database(source: Path, fresh: Path) -> None:
    """SQLite's online backup: a consistent copy while others write."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
        contextlib.closing(sqlite3.connect(fresh)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")


def _take_database(copy: Callable[[Path], None], target: Path) -> None:
    """Make a copy, and have it take the place of the former one when it is complete and durable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + ".new")
    fresh.unlink(missing_ok=True)
    copy(fresh)
    _sync_file(fresh)
    fresh.replace(target)
    sync_directory(target.parent)


def _check(database: Path) -> None:
    if not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.DatabaseError as error:
            answer = str(error)
    if answer != "ok":
        raise IntegrityError(f"{database.name} in the backup is damaged: {answer}")


def _copy_file(source: Path, target: Path) -> None:
    _write(target, source.read_bytes()) if source.stat().st_size <= CHUNK else _copy_big(source, target)


def _copy_big(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    _sync_file(target)
    sync_directory(target.parent)


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(target.name + ".new")
    fresh.write_bytes(data)
    _sync_file(fresh)
    fresh.replace(target)
    sync_directory(target.parent)


def _committed_ends(index: Path) -> dict[int, int]:
    """For each pack that an index database names, where the last byte it refers to ends."""
    if not index.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return dict(connection.execute('SELECT pack, max("offset" + length) FROM block GROUP BY pack'))


def _sizes(packs: Path) -> dict[int, int]:
    return {pack_number(path): path.stat().st_size for path in packs_in(packs)}


def _made_again(to: Path) -> list[int]:
    """The packs of a backup that were made again from the engine's blocks."""
    for name in (MANIFEST, UNFINISHED):
        with contextlib.suppress(FileNotFoundError):
            return [int(number) for number in json.loads((to / name).read_bytes()).get("made_again", ())]
    return []


def _copy_content(
    home: Path,
    to: Path,
    before: Mapping[int, int],
    made_again: Sequence[int],
    get: Get | None,
    report: Report,
) -> tuple[int, list[int]]:
    """Copy the packs; bytes copied, and the numbers of those that were made again, now or before.

    `before`: when packs were trimmed, as the backup's index had it; of another time is another pack, after a rebuild.
    """
    source, target, index = home / "packs", to / "packs", to / INDEX
    now, ends = trimmed_packs.trimmed(index), _committed_ends(index)
    again = {number for number in made_again if number not in now or now[number] == before.get(number)}
    gone = {number for number in ends if not pack_path(source, number).exists()}
    copied = _copy_packs(source, target, {number: end for number, end in ends.items() if number not in gone}, report)
    gone = {number for number in ends if not pack_path(source, number).exists()}  # one may have been trimmed meanwhile
    for number in sorted(gone - again):
        copy = pack_path(target, number)
        if trimmed_packs.is_copy(index, copy, number):
            continue  # copied before it was trimmed
        if get is None:
            report(f"pack {copy.name} is not in the spool; its blocks are in the content engine alone")
            continue
        report(f"making pack {copy.name} again from the content engine")
        copied += trimmed_packs.make_again(index, target, number, get, report)
        again.add(number)
    return copied, sorted(again)


def _copy_packs(source: Path, target: Path, ends: Mapping[int, int], report: Report) -> int:
    """Append to each copy of a pack what its original holds from there to its end in `ends`; the bytes copied."""
    target.mkdir(parents=True, exist_ok=True)
    total = 0
    for number, end in sorted(ends.items()):
        copy = pack_path(target, number)
        left = end - (copy.stat().st_size if copy.exists() else 0)
        if left <= 0:
            continue
        report(f"copying pack {copy.name}: {left >> 20} MiB")
        try:
            original = pack_path(source, number).open("rb")
        except FileNotFoundError:
            continue  # trimmed just now
        with original as reading, copy.open("ab") as writing:
            reading.seek(end - left)
            while left and (chunk := reading.read(min(CHUNK, left))):
                writing.write(chunk)
                left -= len(chunk)
                total += len(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        if left:
            report(f"pack {copy.name} ends {left} bytes before the index says: see cairn fsck")
    sync_directory(target)
    return total


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
