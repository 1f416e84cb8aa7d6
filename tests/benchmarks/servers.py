"""The two servers, each started by one command on free ports with a folder of its own on the same disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _environment() -> dict[str, str]:
    """Ours, without what decides the result."""
    return {k: v for k, v in os.environ.items() if k != "TCP_NODELAY" and not k.startswith("CAIRN_")}


class Server:
    """A running server: its AE title, DICOM port, DICOMweb root, and what it costs."""

    name = ""
    ae_title = ""
    root = "/dicom-web"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.dicom_port, self.http_port = free_port(), free_port()
        self.headers: dict[str, str] = {}
        self._log = (folder / "server.log").open("wb")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def spawn(self, command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            cwd=self.folder,
            env={**_environment(), **(environment or {})},
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}{self.root}"

    def client(self) -> httpx.Client:
        return httpx.Client(headers=self.headers, timeout=300, trust_env=False)

    def wait_until(self, ready: str, seconds: float = 60) -> None:
        """Until a GET of `ready` (a path) is answered 200 and the DICOM port accepts."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = httpx.get(f"http://127.0.0.1:{self.http_port}{ready}", headers=self.headers, trust_env=False)
                socket.create_connection(("127.0.0.1", self.dicom_port), 1).close()
                if answer.status_code == 200:
                    return
            except (httpx.TransportError, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "server.log").read_text("utf-8", "replace")
                raise RuntimeError(f"{self.name} did not start:\n{log[-2000:]}")
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())

    def memory_mib(self) -> float:
        """Proportional set size of all its processes."""
        return sum(process.memory_full_info().pss for process in self.processes()) / 2**20

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def cairn_command() -> list[str]:
    beside = Path(sys.executable).with_name("cairn")
    return [str(beside)] if beside.exists() else [sys.executable, "-c", "from bridge.cli import main; main()"]


class Cairn(Server):
    name = "Cairn"
    ae_title = "CAIRN"

    def environment(self) -> dict[str, str]:
        return {
            "CAIRN_HOME": str(self.folder / "home"),
            "CAIRN_DIMSE__PORT": str(self.dicom_port),
            "CAIRN_WEB__PORT": str(self.http_port),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def start(self) -> subprocess.Popen[bytes]:
        self.process = self.spawn([*cairn_command(), "serve"], self.environment())
        self.wait_until("/readyz")
        made = subprocess.run(
            [*cairn_command(), "token", "create", "--role", "admin", "--json"],
            capture_output=True,
            check=True,
            env={**_environment(), **self.environment()},
        )
        self.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['token']}"
        return self.process

    def version(self) -> str:
        done = subprocess.run([*cairn_command(), "--version"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


class Orthanc(Server):
    """Orthanc with what makes it faster: without TCP_NODELAY in its environment its responses wait for the sender."""

    name = "Orthanc"
    ae_title = "ORTHANC"
    variables: ClassVar[dict[str, str]] = {"TCP_NODELAY": "1"}

    def start(self) -> subprocess.Popen[bytes]:
        settings: dict[str, Any] = {
            "Name": "bench",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "KeepAlive": True,
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(settings), "utf-8")
        self.process = self.spawn([shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(file)], self.variables)
        self.wait_until("/system")
        return self.process

    def version(self) -> str:
        with self.client() as client:
            system = client.get(f"http://127.0.0.1:{self.http_port}/system").json()
            plugin = client.get(f"http://127.0.0.1:{self.http_port}/plugins/dicom-web").json()
        return f"Orthanc {system['Version']}, DICOMweb plugin {plugin['Version']}"


class OrthancAsInstalled(Orthanc):
    """Orthanc as Debian starts it."""

    variables: ClassVar[dict[str, str]] = {}
