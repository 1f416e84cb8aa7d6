"""`cairn content`: where sealed blocks lie, and which members may fetch them."""

from __future__ import annotations

from typing import Any

import click

from bridge.invocation import as_json, perform, settings_of
from bridge.invocation import show as show_result


@click.group()
def content() -> None:
    """Sealed blocks: where they lie, and who may fetch them."""


@content.command()
@click.argument("uid", metavar="UID")
@click.option("--to", "member", metavar="NAME", required=True, help="A member of [[members.peers]], by its name.")
@click.option("--expires", help="When it ends: 2027-01-31, 2027-01-31T12:00:00Z, or a span such as 12h or 30d.")
@as_json
@click.pass_context
def assign(ctx: click.Context, uid: str, member: str, expires: str | None, as_json: bool) -> None:
    """Let a member fetch the sealed blocks of the study UID; the key that opens them is not given."""
    result = perform(settings_of(ctx), "content-assign", {"study": uid, "member": member, "expires": expires})
    show_result(result, as_json, lambda r: f"{r['member']} may fetch it{_until(r['expires'])}")


@content.command()
@click.argument("uid", metavar="UID")
@click.option("--to", "member", metavar="NAME", required=True, help="The member, by its name.")
@as_json
@click.pass_context
def unassign(ctx: click.Context, uid: str, member: str, as_json: bool) -> None:
    """Let a member no longer fetch the sealed blocks of the study UID; what it has, it has."""
    result = perform(settings_of(ctx), "content-unassign", {"study": uid, "member": member})
    show_result(result, as_json, lambda r: f"{r['member']} may fetch it no longer")


@content.command()
@as_json
@click.pass_context
def assignments(ctx: click.Context, as_json: bool) -> None:
    """Which member may fetch which study, and until when."""
    result = perform(settings_of(ctx), "content-assignments", {})
    show_result(
        result,
        as_json,
        lambda r: (
            "\n".join(f"{a['member']}  {a['study']}  {a['state']}{_until(a['expires'])}" for a in r["assignments"])
            or "no assignments"
        ),
    )


def _until(expires: str | None) -> str:
    return f", until {expires}" if expires else ""


@content.command()
@click.argument("study", metavar="[STUDY]", required=False)
@as_json
@click.pass_context
def replicas(ctx: click.Context, study: str | None, as_json: bool) -> None:
    """Copies of sealed studies at other members, and theirs kept here; of one STUDY when it is named.

    A copy is "kept" when its holder's receipt for the newest state of the study stands on the ledger.
    """
    show_result(perform(settings_of(ctx), "content-replicas", {"study": study}), as_json, _replicas)


def _replicas(r: dict[str, Any]) -> str:
    lines = [f"wanted      {r['copies']} copies of each study at other members; accepts others': {r['accept']}"]
    lines += [
        f"{one['state']:<10}  {one['study'] or one['tag']} {'for' if one['kept_here'] else 'at'} {one['member']} "
        f"since {one['since']}{': ' + one['trouble'] if one['trouble'] else ''}"
        for one in r["replicas"]
    ]
    lines += [
        f"{'LOST' if one['lost'] else 'silent'}        {one['member']} has not answered since {one['silent']}"
        for one in r["members"]
        if one["silent"]
    ]
    return "\n".join(lines)


@content.command()
@as_json
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """How the archive stands with its content engine: what is wrong, how many studies it keeps, the spool."""
    result = perform(settings_of(ctx), "content-status", {})
    show_result(result, as_json, _status)


def _status(r: dict[str, Any]) -> str:
    studies, spool = r["studies"], r["spool"]
    of = f" of at most {spool['most_bytes']:,}" if spool["most_bytes"] is not None else ""
    return "\n".join(
        [
            f"engine      {r['engine']}, {'; '.join(r['answers']) or 'as it should be'}",
            *(f"FULL        {disk}" for disk in r["disks"]),
            *(f"FAULT       {fault['reason']} (since {fault['since']})" for fault in r["faults"]),
            *(f"{one['severity'].upper():<10}  {one['danger']}; mend: {one['command']}" for one in r["findings"]),
            f"studies     {studies['pinned']:,} pinned, {studies['waiting']:,} waiting, "
            f"{studies['verified']:,} read back, {studies['short']:,} with too few copies",
            f"read back   every one since {r['verified_before'] or 'never'}",
            f"spool       {spool['packs']:,} packs of {spool['bytes']:,} bytes{of}; {spool['trimmed']:,} trimmed",
        ]
    )


@content.command()
@as_json
@click.pass_context
def repair(ctx: click.Context, as_json: bool) -> None:
    """Bring everything to the content engine now, read it back whole, and mend what it lost or damaged.

    The node does so by itself all the time, more slowly. Exit 3 when a block is nowhere to be had, 1
    when the engine does not take a study, such as for want of room.
    """
    result = perform(settings_of(ctx), "content-repair", {})
    show_result(result, as_json, _repaired)
    if result["lost"] or result["refused"]:
        ctx.exit(3 if result["lost"] else 1)


def _repaired(r: dict[str, Any]) -> str:
    lost = "".join(f"\nNOT WHOLE   {one['study']}: {one['what']}" for one in r["lost"])
    refused = "".join(f"\nNOT TAKEN   {one['study']}: {one['what']}" for one in r["refused"])
    counts = f"brought {r['brought']:,}, read back {r['read_back']:,}, blocks mended {r['mended']:,}"
    return f"{counts}{refused}{lost}"
