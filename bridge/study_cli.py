"""`cairn key` and `cairn study`: studies as sealed files, out of one node and into another."""

from __future__ import annotations

from pathlib import Path

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


@study.command()
@click.argument("uid", metavar="UID")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The CAR to write.")
@click.option("--to", metavar="KEY", help="Who may open it: what `cairn key show` prints there as recipient.")
@click.option("--key-out", type=click.Path(dir_okay=False, path_type=Path), help="The file for the key, sealed to KEY.")
@click.option("--root", metavar="CID", help="Which root, of a study whose instances came from several nodes.")
@as_json
@click.pass_context
def export(
    ctx: click.Context, uid: str, out: Path, to: str | None, key_out: Path | None, root: str | None, as_json: bool
) -> None:
    """Write the sealed blocks of the study UID to a CAR; with --to and --key-out also what opens it.

    Anybody may hold the CAR; only the node that the key file is sealed to can open it.
    """
    if (to is None) != (key_out is None):
        raise click.UsageError("--to and --key-out go together")
    if key_out is not None and key_out.absolute() == out.absolute():
        raise click.UsageError("--out and --key-out are two files")
    arguments = {
        "study": uid,
        "out": str(out.absolute()),
        "to": to,
        "key_out": str(key_out.absolute()) if key_out else None,
        "root": root,
    }
    result = perform(settings_of(ctx), "study-export", arguments)
    show_result(
        result,
        as_json,
        lambda r: f"wrote {r['instances']} instances, {r['bytes']} bytes, to {out}\nroot {r['root']}",
    )
