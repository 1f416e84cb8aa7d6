"""`cairn consortium`: hospitals that hold one ledger and need no third party."""

from __future__ import annotations

import click

from bridge.consortium_demo_cli import demo


@click.group()
def consortium() -> None:
    """Hospitals that hold one ledger: who belongs to it, and what they vote on."""


consortium.add_command(demo)
