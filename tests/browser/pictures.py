"""Makes the pictures of a consortium in docs/images: `python -m tests.browser.pictures`.

Four hospitals of a demonstration, the sample study (whose names are made up), one that shares, one that breaks the
glass, a change put to the vote; then two are ended, to show what the console says. Nothing else is in the pictures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx
from PIL import Image

from bridge.consensus import condition
from bridge.sample.send import send_sample
from tests.node.running_demo import RunningDemo

HERE: Final = Path(__file__).resolve().parent
IMAGES: Final = HERE.parents[1] / "docs" / "images"
COLOURS: Final = 160
PATIENCE_S: Final = 120.0


class Demo(RunningDemo):
    """Hospitals that keep copies of each other's studies."""

    def environment(self, hospital: int | None = None) -> Mapping[str, str]:
        return {**super().environment(hospital), "CAIRN_REPLICATION__COPIES": "2"}


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > end:
            raise SystemExit("it did not come about")
        time.sleep(0.3)


def furnish(demo: Demo) -> tuple[str, str]:
    """What there is to be seen; the study's UID and the emergency's entry."""
    study = send_sample("127.0.0.1", demo.base_port + 12).study
    demo.answer(0, "share", "grant", study, "--to", "h1", "--expires", "30d")
    why = "trauma room, patient unconscious"
    emergency = str(demo.answer(2, "share", "emergency", "--of", "h0", "--study", study, "--reason", why)["emergency"])
    demo.answer(3, "consortium", "propose", "power", "h3", "2")
    for hospital, role in ((1, "viewer"), (2, "clinician")):
        token = demo.answer(hospital, "token", "create", "--role", role, "--name", "Dr. Mei Tanaka")["token"]
        headers = {"authorization": f"Bearer {token}", "accept": "application/dicom+json"}
        with httpx.Client(base_url=demo.url(hospital), headers=headers, timeout=60.0) as client:
            until(lambda client=client: client.get(f"/dicom-web/studies/{study}/metadata").status_code == 200)
    copies = ("content", "replicas", study)
    until(lambda: [row["state"] for row in demo.answer(0, *copies)["replicas"]] == ["kept", "kept"])
    until(lambda: {row["state"] for row in demo.answer(0, "share", "list")["given"]} == {"delivered"})
    return study, emergency


def viewed(demo: Demo) -> bool:
    """Whether somebody at h2 has looked at what was taken in the emergency."""
    entries = demo.answer(2, "ledger", "entries")["entries"]
    return any(row["type"] == "study.access" and row["hospital"] == "h2" for row in entries)


def take(demo: Demo, hospital: int, folder: Path, **pages: str) -> None:
    """Pictures of pages at a hospital, as its administrator sees them."""
    link = str(demo.answer(hospital, "login-link", "--name", "Ada Admin", "--role", "admin")["url"])
    named = [f"console-{name}={path}" for name, path in pages.items()]
    subprocess.run(["node", HERE / "pictures.mjs", link, folder, *named], check=True, timeout=280)


def end_two(demo: Demo) -> None:
    """h2 and h3, as their own machines would be ended."""
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text("ascii").split()
    for child in children[2:4]:
        os.kill(int(child), signal.SIGTERM)

    def missed() -> bool:
        told = condition.read(demo.home(0))
        return told is not None and len(told.unheard) == 2 and told.at - max(told.unheard.values()) > 6_000_000

    until(missed)
    demo.answer(0, "token", "create", "--role", "viewer")


def main() -> None:
    """Everything, from an empty folder to docs/images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = Demo(folder / "demo")
        demo.start()
        try:
            study, emergency = furnish(demo)
            take(demo, 0, folder, consortium="/console/consortium", sharing="/console/sharing")
            take(demo, 0, folder, replicas="/console/replicas", propose="/console/consortium/propose")
            take(demo, 1, folder, received=f"/console/studies/{study}")
            until(lambda: viewed(demo))  # a viewing is an entry when it is over
            take(demo, 2, folder, emergency=f"/console/emergencies/{emergency}")
            end_two(demo)
            take(demo, 0, folder, waiting="/console/consortium")
        finally:
            demo.stop()
        for picture in sorted(folder.glob("console-*.png")):
            with Image.open(picture) as whole:
                few = whole.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
                few.save(IMAGES / picture.name, optimize=True)
            sys.stdout.write(f"{picture.name}  {(IMAGES / picture.name).stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
