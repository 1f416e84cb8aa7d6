"""`cairn consortium demo`: several hospitals on this machine, to be looked at and worked with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command("demo")
@click.option("--members", type=click.IntRange(1, 30), default=4, show_default=True, help="How many hospitals.")
@click.option(
    "--home",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/consortium"),
    show_default=True,
    help="Folder that holds the hospitals' homes (h0, h1 ...) and logs.",
)
@click.option("--base-port", type=int, default=18000, show_default=True, help="Hospital i has the hundred from here.")
@click.option(
    "--content", type=click.Choice(["embedded", "kubo"]), default="embedded", show_default=True, help="Content engine."
)
def demo(members: int, folder: Path, base_port: int, content: str) -> None:
    """Run a consortium on this machine until SIGTERM or Ctrl-C: hospitals h0, h1 ..., each a whole node.

    Hospital i listens at base + 100 * i: HTTP + 42, members + 43, DICOM + 12. Every command works beside it with
    CAIRN_HOME=DIR/h0 and so on. Started again, all take up where they left. CometBFT is taken from PATH, or from
    CAIRN_LEDGER__COMETBFT__BINARY.
    """
    from bridge import logs
    from bridge.consortium_demo import demo as run
    from bridge.consortium_demo_homes import Kind

    logs.configure("info")
    kind: Kind = "kubo" if content == "kubo" else "embedded"
    sys.exit(run(folder, members, base_port, kind, os.environ, lambda text: click.echo(text)))
