"""A Kubo of this node's own: its repository made and hardened, its process started, asked and ended.

The repository lies in `content.kubo.repository` (default CAIRN_HOME/kubo). Its `config` comes last when it is made, so
that a kill leaves none or a whole one; the configuration is written anew before every start, from the settings.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import time
import urllib.parse
from base64 import b64encode
from pathlib import Path
from typing import Final

from bridge.child import Child
from bridge.config import Settings
from bridge.content import cid
from bridge.content.kubo import configuration
from bridge.errors import ConfigError, EngineFault

INIT_S: Final = 60.0
ASK_S: Final = 5.0
MAKING: Final = "making"
PROBE: Final = b"cairn: a block to read, so that it is known whether reading works"
PROBE_CID: Final = cid.make(cid.RAW, PROBE, "sha2-256")


class ManagedKubo:
    """One Kubo as a child of the process that calls `start`; it dies with the thread that started it.

    `prepare` before `start`; `ready` until it says True; `ping` from time to time; `stop` in the end. One thread.
    """

    def __init__(self, settings: Settings, home: Path) -> None:
        self._kubo = settings.content.kubo
        self._clustered = settings.content.engine == "cluster"
        self.repository = self._kubo.repository or home / "kubo"
        self._child = Child("Kubo", self.repository / "cairn-kubo.log")
        self._probed = False

    def prepare(self) -> None:
        """Make the repository if there is none, and write its configuration and swarm key.

        Raises ConfigError when the settings cannot be met, EngineFault when `ipfs init` fails or the repository cannot
        be read or written.
        """
        try:
            self._prepare()
        except OSError as error:
            raise EngineFault(f"Kubo's repository cannot be read or written: {error}") from error

    def _prepare(self) -> None:
        if self._clustered and self._kubo.token is not None:
            raise ConfigError(
                "content.kubo.token: IPFS Cluster sends none to Kubo; leave it unset with the cluster engine"
            )
        if not (self.repository / "config").exists():
            self._initialise()
        place = self.repository / "config"
        try:
            config = configuration.hardened(json.loads(place.read_text("utf-8")), self._kubo)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineFault(f"{place} is not a configuration of Kubo: restore that file") from error
        self._write("config", json.dumps(config, indent=2))
        self._write_swarm_key()

    def start(self) -> None:
        """Start the daemon; it is not ready yet. Raises EngineFault when the program cannot be run.

        A Kubo of an earlier process that still holds the repository makes the child end, which `alive` tells.
        """
        if self.alive():
            return
        self._probed = False
        (self.repository / "api").unlink(missing_ok=True)
        self._child.start(
            [self._program(), "daemon", "--migrate=true", "--enable-gc=false"], self._environment(self.repository)
        )

    def alive(self) -> bool:
        """Whether the process runs; it may yet be starting, or answer nothing."""
        return self._child.alive()

    def ready(self) -> bool:
        """Whether it accepts requests. Raises EngineFault with its last words when it has ended."""
        if not self.alive():
            raise EngineFault(f"Kubo ended: {self.last_words()}")
        # Kubo writes the file `api` when it serves: what answers at its port before is another program.
        if not self._probed and (self.repository / "api").exists():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._probed = self._post("block/put", {"pin": "true", "cid-codec": "raw"}, PROBE)[0] == 200
        return self._probed

    def ping(self) -> bool:
        """Whether it reads a block that it is known to hold: what only answers is half dead."""
        try:
            status, body = self._post("block/get", {"arg": cid.to_text(PROBE_CID), "offline": "true"})
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and body == PROBE

    def stop(self, drain_s: float = 20.0) -> None:
        """End the process: asked to first, killed after `drain_s` seconds."""
        self._child.stop(drain_s)
        self._probed = False

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return self._child.pid

    def last_words(self) -> str:
        """The last line that Kubo wrote and that is not empty, at most 300 characters."""
        return self._child.last_words()

    def _initialise(self) -> None:
        """Make the repository inside its place, which may be a mount, and move it up, `config` last.

        The identity comes from one `init`, the layout of the datastore from a second that is given both.
        """
        self.repository.mkdir(parents=True, exist_ok=True, mode=0o700)
        making = self.repository / MAKING
        made = making / "repository"
        if (made / "config").exists():  # killed while moving: what was moved is no repository yet
            for name in (entry.name for entry in self.repository.iterdir() if entry != making):
                _remove(self.repository / name)
        if any(entry.name in ("blocks", "datastore") for entry in self.repository.iterdir()):
            raise ConfigError(f"{self.repository} holds a Kubo's blocks but not its config; restore that file")
        _remove(making)
        making.mkdir(mode=0o700)
        self._init(making / "identity", f"--profile={configuration.PROFILES}")
        config = json.loads((making / "identity" / "config").read_text("utf-8"))
        config["Datastore"]["Spec"] = configuration.sharded(configuration.spec_of(config))
        (making / "config.json").write_text(json.dumps(config), "utf-8")
        self._init(made, str(making / "config.json"))
        for entry in sorted(made.iterdir(), key=lambda entry: entry.name == "config"):
            entry.replace(self.repository / entry.name)
        _sync_directory(self.repository)
        _remove(making)

    def _init(self, path: Path, argument: str) -> None:
        try:
            done = subprocess.run(
                [self._program(), "init", "--empty-repo", argument],
                env=self._environment(path),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=INIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineFault(f"Kubo's repository cannot be made: {error}") from error
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it wrote nothing"]
            raise EngineFault(f"Kubo's repository cannot be made: {words[-1][:300]}")

    def _program(self) -> str:
        found = shutil.which(self._kubo.binary)
        if found is None:
            raise ConfigError(f"content.kubo.binary: there is no program {self._kubo.binary} (docs/operations.md)")
        return found

    @staticmethod
    def _environment(path: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS") if name in os.environ}
        # HOME: Kubo asks for it although nothing of it is used; FORCE_PNET: no start without a swarm key.
        return kept | {
            "IPFS_PATH": str(path),
            "HOME": str(path),
            "LIBP2P_FORCE_PNET": "1",
            "IPFS_TELEMETRY": "off",
            "GOLOG_LOG_LEVEL": "error",
        }

    def _write_swarm_key(self) -> None:
        if self._kubo.swarm_key is None:
            if not (self.repository / "swarm.key").exists():
                self._write("swarm.key", f"{configuration.KEY_HEADER}{secrets.token_hex(32)}\n")
            return
        try:
            key = self._kubo.swarm_key.read_text("ascii")
        except (OSError, ValueError) as error:
            raise ConfigError(f"content.kubo.swarm_key cannot be read: {error}") from error
        if not key.startswith("/key/swarm/psk/1.0.0/"):
            raise ConfigError("content.kubo.swarm_key is not a swarm key (its first line is /key/swarm/psk/1.0.0/)")
        self._write("swarm.key", key)

    def _write(self, name: str, text: str) -> None:
        """Replace a file of the repository, 0600, durably and whole."""
        path = self.repository / name
        if path.exists() and path.read_text("utf-8") == text:
            return
        partial = path.with_name(f"{name}.partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(self.repository)

    def _post(self, command: str, arguments: dict[str, str], part: bytes | None = None) -> tuple[int, bytes]:
        """One RPC: status and body. Raises OSError and http.client.HTTPException, a timeout among them."""
        host, port = configuration.endpoint(self._kubo.api)
        connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
        headers: dict[str, str] = {}
        if self._kubo.token is not None:
            token = self._kubo.token
            headers["Authorization"] = (
                f"Basic {b64encode(token.encode()).decode()}" if ":" in token else f"Bearer {token}"
            )
        body = None
        if part is not None:
            mark = secrets.token_hex(16)
            headers["Content-Type"] = f"multipart/form-data; boundary={mark}"
            disposition = 'Content-Disposition: form-data; name="data"; filename="data"'
            body = f"--{mark}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
            body += part + f"\r\n--{mark}--\r\n".encode()
        deadline = time.monotonic() + ASK_S
        with contextlib.closing(connection):
            connection.request("POST", f"/api/v0/{command}?{urllib.parse.urlencode(arguments)}", body, headers)
            answer = connection.getresponse()
            said = answer.read(1 << 16)
            if time.monotonic() > deadline:
                raise TimeoutError("Kubo answers too slowly")
            return answer.status, said


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
