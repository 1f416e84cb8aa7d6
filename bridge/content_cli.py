"""`cairn content`: where sealed blocks lie, and which members may fetch them."""

from __future__ import annotations

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
