"""What every command of `cairn` has in common: settings found, the work done by the running node or here, printed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from bridge import config
from bridge.config import Settings
from bridge.control import ask
from bridge.errors import DatabaseDamaged, InUse

STARTING_S = 15.0

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def settings_of(ctx: click.Context, file: Path | None = None) -> Settings:
    """The settings of this invocation. Raises ConfigError."""
    return config.load(file or ctx.obj, os.environ)[0]


def say(text: str) -> None:
    """A line of progress, beside the result."""
    click.echo(text, err=True)


def perform(settings: Settings, name: str, arguments: Mapping[str, Any]) -> Any:
    """Let the running node do it; when none runs, open the stores under the run lock and do it here.

    A node that is just starting, or ending, holds the lock and does not listen: it is waited for.
    """
    until = time.monotonic() + STARTING_S
    while True:
        with contextlib.suppress(OSError):  # nothing listens
            return ask(settings.home / "run" / "cairn.sock", name, arguments, say)
        from bridge import commands
        from bridge.offline import opened

        try:
            ways = {"content": name in commands.CONTENT, "seal": name in commands.RECORDING}
            with opened(settings, create=name in commands.CREATING, **ways) as node:
                return commands.perform(node, name, arguments, say)
        except InUse:
            if time.monotonic() > until:
                raise
        except DatabaseDamaged:
            if name != "ledger-verify":
                raise
            from bridge.ledger_verification import verify_damaged

            return verify_damaged(settings, arguments, say)


def show(result: Any, wants_json: bool, human: Callable[[Any], str]) -> None:
    """Print a result, as JSON or in words."""
    click.echo(json.dumps(result) if wants_json else human(result))
