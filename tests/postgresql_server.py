"""A real PostgreSQL of the tests' own: a cluster in a temporary folder, asked over a socket there, and broken at will.

It orders text by a language's rules, not by bytes, as many hospitals' databases do. A missing PostgreSQL fails.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg

from tests.daemon_process import DaemonProcess

_SUPERUSER: Final = "cairn"
_PROGRAMS: Final = Path("/usr/lib/postgresql")  # where Debian has them, one folder a version, none on PATH


def _program(name: str) -> Path:
    found = sorted(_PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    assert found, f"{name} is missing: install Debian's package postgresql"
    return found[-1]


class PostgresqlServer(DaemonProcess):
    """One cluster; `start` may be called again after `kill`. PostgreSQL refuses to run as root: then it is nobody's."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cairn-pg-"))
        super().__init__(self.folder / "log")
        self._numbers = itertools.count(1)
        self._as: list[str] = []
        if os.getuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
            self._as = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        made = subprocess.run(
            [
                *(*self._as, _program("initdb"), "--pgdata", self.folder / "data", "--username", _SUPERUSER),
                *("--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"),
                *("--locale-provider", "icu", "--icu-locale", "en"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self) -> PostgresqlServer:
        """Start it, or start it again; returns when it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "shared_buffers": "32MB"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.spawn(
            [*self._as, _program("postgres"), "-D", self.folder / "data", *options], {"PATH": os.environ["PATH"]}
        )
        self.wait_until(self.answers, "answering")
        return self

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """The URI of a database."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """The URI of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self.ask("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def ask(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """The rows of a statement."""
        url = database if "://" in database else self.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """SIGKILL to all of it at once, as a power cut would."""
        if self.runs:
            for process in self._all():
                process.send_signal(signal.SIGKILL)
            self._wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block its sockets accept, and nothing is ever answered."""
        stopped = self._all()
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def remove(self) -> None:
        """Kill it and remove what it has written."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[psutil.Process]:
        main = psutil.Process(self.pid)
        return [main, *main.children(recursive=True)]
