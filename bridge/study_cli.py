"""`cairn key` and `cairn study`: studies as sealed files, out of one node and into another."""

from __future__ import annotations

import click

from bridge.invocation import as_json, perform, settings_of
from bridge.invocation import show as show_result


@click.group()
def key() -> None:
    """This node's public keys."""


@key.command("show")
@as_json
@click.pass_context
def show_key(ctx: click.Context, as_json: bool) -> None:
    """What others verify this node's signatures with, and what they seal studies to."""
    result = perform(settings_of(ctx), "key-show", {})
    show_result(result, as_json, lambda r: f"verifier   {r['verifier']}\nrecipient  {r['recipient']}")


@click.group()
def study() -> None:
    """Studies as sealed files."""
