"""`cairn key` and `cairn study`: studies as sealed files, out of one node and into another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bridge.invocation import as_json, perform, settings_of
from bridge.invocation import show as show_result
from bridge.study_words import words


@click.group()
def key() -> None:
    """This node's public keys."""


@key.command("show")
@as_json
@click.pass_context
def show_key(ctx: click.Context, as_json: bool) -> None:
    """What others verify this node's signatures and cosignatures with, and what they seal studies to."""
    result = perform(settings_of(ctx), "key-show", {})
    names = ("verifier", "cosigner", "recipient")
    show_result(result, as_json, lambda r: "\n".join(f"{name:9}  {r[name]}" for name in names))


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
    _require_recipient(to)
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


@study.command("import")
@click.argument("file", metavar="FILE.car", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The key file that came with it."
)
@click.option("--from", "sender", metavar="VKEY", help="Who must have signed the key file: `cairn key show` there.")
@as_json
@click.pass_context
def import_(ctx: click.Context, file: Path, key: Path | None, sender: str | None, as_json: bool) -> None:
    """Take in a study from a CAR; with its key it appears in searches, without it its sealed blocks are kept.

    Everything is verified before anything is written. Exit 3 names the block or key that is wrong, and nothing is left.
    """
    _require_verifier(sender)
    if sender is not None and key is None:
        raise click.UsageError("--from is about a key file: give --key")
    arguments = {
        "path": str(file.absolute()),
        "key": str(key.absolute()) if key else None,
        "from": sender,
    }
    result = perform(settings_of(ctx), "study-import", arguments)
    show_result(result, as_json, lambda r: _imported(r, checked=sender is not None))


def _require_recipient(text: str | None) -> None:
    from bridge.crypto.hpke import Recipient

    try:
        if text is not None:
            Recipient.parse(text.strip())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from None


def _require_verifier(text: str | None) -> None:
    from ledger import checkpoint
    from ledger.errors import CodecError

    try:
        if text is not None:
            checkpoint.parse_vkey(text)
    except CodecError as error:
        raise click.BadParameter(f"not a verifier key: {error.detail}", param_hint="--from") from None


def _imported(result: Mapping[str, Any], *, checked: bool) -> str:
    if result["study"] is None:
        return f"kept {result['blocks']} sealed blocks below {result['root']}; without a key nothing of it can be found"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in result["outcomes"].items())
    lines = [f"study {result['study']}: {outcomes}", f"root {result['root']}"]
    if result["sender"] is not None:
        unchecked = "" if checked else "; compare it with what `cairn key show` prints there, or give it as --from"
        lines.append(f"the key file is signed by {result['sender']}{unchecked}")
    return "\n".join(lines)


@study.command()
@click.argument("uid", metavar="UID")
@as_json
@click.pass_context
def show(ctx: click.Context, uid: str, as_json: bool) -> None:
    """Where the study UID lies: root, blocks and bytes by kind, packs, pins, copies, last verified; its tree drawn."""
    result = perform(settings_of(ctx), "study-show", {"study": uid})
    show_result(result, as_json, words)
