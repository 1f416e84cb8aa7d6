"""`cairn key` and `cairn study`: studies as sealed files, out of one node and into another."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bridge.invocation import as_json, perform, say, settings_of
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


@study.command()
@click.argument("uid", metavar="UID")
@click.option("--reason", metavar="TEXT", help="Why, for the audit trail; it stays, so name no patient in it.")
@click.option("--yes", is_flag=True, help="Do not ask; without it the UID is to be typed again.")
@as_json
@click.pass_context
def erase(ctx: click.Context, uid: str, reason: str | None, yes: bool, as_json: bool) -> None:
    """Destroy the keys of the study UID: nobody can open it here again, and nothing here tells of it.

    The ledger says that a study was erased, and when; of which patient, nobody can tell any more. Grants of it are
    revoked. What cannot be reached: a hospital that was given the study, files that were exported or looked at, and
    backups made before. When it is interrupted it is carried on at the next start, or by the same command.
    """
    settings = settings_of(ctx)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked: give --yes")
        say(f"Every key of study {uid} will be destroyed. This cannot be undone.")
        if click.prompt("Type the Study Instance UID again to go on", err=True) != uid:
            raise click.UsageError("this is not the same UID; nothing was erased")
    result = perform(settings, "study-erase", {"study": uid, "reason": reason})
    show_result(result, as_json, _erased)


@study.command()
@as_json
@click.pass_context
def erasures(ctx: click.Context, as_json: bool) -> None:
    """What was erased here: tags, times and entries; with --json for `cairn restore --erasures` of an older backup."""
    result = perform(settings_of(ctx), "study-erasures", {})

    def words(found: Mapping[str, Any]) -> str:
        rows = [f"{row['time']}  tag {row['tag']}  entry {row['entry'] or 'waits'}" for row in found["erasures"]]
        return "\n".join([*rows, f"{len(rows)} erased; {found['going_on']} go on"])

    show_result(result, as_json, words)


def _erased(result: Mapping[str, Any]) -> str:
    lines = [
        f"erased: {result['instances']} instances cannot be opened here any more; {result['keys']} keys destroyed",
        *(f"the ledger says so: entry {entry}" for entry in result["entries"] if entry is not None),
    ]
    if not result["released"]:
        lines.append("the content engine still keeps its sealed blocks; it is asked again to let go of them")
    if result["set_aside"]:
        files = ", ".join(result["set_aside"])
        lines.append(f"what `cairn rebuild-index` set aside may still name it: remove {files}")
    if result["given_to"]:
        members = ", ".join(result["given_to"])
        lines.append(f"given to {members} before: their keys end with the grant; what they read or copied stays theirs")
    lines.append("out of reach: what was exported or looked at, and every backup made before, which still opens it")
    return "\n".join(lines)
