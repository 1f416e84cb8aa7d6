"""`cairn share`: studies given to other hospitals of the consortium, and what they gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from bridge.invocation import as_json, perform, settings_of
from bridge.invocation import show as show_result


@click.group()
def share() -> None:
    """Studies shared with other hospitals of the consortium."""


@share.command()
@click.argument("study", metavar="STUDY")
@click.option("--to", metavar="MEMBER", required=True, help="The hospital: `cairn consortium members` names them.")
@click.option(
    "--purpose",
    metavar="CODE",
    default="TREAT",
    show_default=True,
    help="HL7 purpose of use, of those in docs/sharing.md.",
)
@click.option("--expires", metavar="T", help="When it ends by itself: 12h, 30d, 2027-01-31 or a full time.")
@click.option("--wait", type=float, default=10.0, show_default=True, help="Seconds to wait for the ledger.")
@as_json
@click.pass_context
def grant(
    ctx: click.Context, study: str, to: str, purpose: str, expires: str | None, wait: float, as_json: bool
) -> None:
    """Give the study STUDY to another hospital, which then finds it in its own searches.

    It holds from when the ledger has it, which consensus decides within a moment; images that come later follow. While
    the members cannot agree it waits, says so, and goes out by itself later; --json has "finality": final or pending.
    """
    arguments = {"study": study, "to": to, "purpose": purpose, "expires": expires, "wait": wait}
    show_result(perform(settings_of(ctx), "share-grant", arguments), as_json, _granted)


def _granted(told: Mapping[str, Any]) -> str:
    if told["finality"] == "final":
        said = [f"on the ledger: {told['to']} gets it by itself now, and cairn share list tells what became of it"]
    else:
        said = [
            f"waiting: not yet on the ledger; {told['to']} gets nothing before it is, and everything by itself then",
            *(f"waits: {row['what']}. {row['advice']}" for row in told["waits"]),
        ]
    return "\n".join([*said, f"grant {told['grant']}"])


@share.command()
@click.argument("grant", metavar="GRANT")
@as_json
@click.pass_context
def revoke(ctx: click.Context, grant: str, as_json: bool) -> None:
    """End a GRANT: nothing more is served, and the other hospital deletes its keys when it hears of it.

    What was seen or copied there cannot be called back: see docs/sharing.md.
    """
    result = perform(settings_of(ctx), "share-revoke", {"grant": grant})
    show_result(
        result,
        as_json,
        lambda r: (
            f"ended for {r['to']}: it is given nothing more, and deletes the keys when it hears of it"
            "\nwhat was seen or copied there cannot be called back"
            + "".join(f"\nit still has the study under another grant, which goes on: {one}" for one in r["still"])
        ),
    )


@share.command()
@click.option("--of", "member", metavar="MEMBER", required=True, help="The hospital whose study it is.")
@click.option("--study", metavar="TAG-or-UID", required=True, help="Its Study Instance UID, or its tag there.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept sealed here and at the other hospital.")
@as_json
@click.pass_context
def emergency(ctx: click.Context, member: str, study: str, reason: str, as_json: bool) -> None:
    """Break the glass: take another hospital's study in an emergency, without its grant, for some hours.

    Both hospitals are alerted at once, and both must review it. The study comes within seconds when
    the other hospital answers and its policy lets it.
    """
    result = perform(settings_of(ctx), "share-emergency", {"member": member, "study": study, "reason": reason})
    show_result(result, as_json, lambda r: f"asked of {r['of']}, until {r['until']}\nemergency {r['emergency']}")


@share.command("emergency-end")
@click.argument("emergency", metavar="EMERGENCY")
@as_json
@click.pass_context
def emergency_end(ctx: click.Context, emergency: str, as_json: bool) -> None:
    """End an EMERGENCY of this hospital before its time: its keys are deleted here."""
    result = perform(settings_of(ctx), "share-emergency-end", {"emergency": emergency})
    show_result(result, as_json, lambda r: f"ended: the keys of {r['of']}'s study are deleted here")


@share.command()
@as_json
@click.pass_context
def emergencies(ctx: click.Context, as_json: bool) -> None:
    """Break-glass accesses across hospitals: of this one, and to its studies."""
    show_result(perform(settings_of(ctx), "share-emergencies", {}), as_json, _broken)


def _broken(result: Mapping[str, Any]) -> str:
    lines = [
        f"{row['emergency']}  {row['by']} took {row['study'] or 'a study'} of {row['of']} at {row['started']}, "
        f"{row['state']}, {'reviewed' if row['reviewed'] else 'TO BE REVIEWED'}: {row['reason'] or 'no reason known'}"
        for row in result["emergencies"]
    ]
    return "\n".join(lines) or "nobody broke the glass"


@share.command("list")
@as_json
@click.pass_context
def every(ctx: click.Context, as_json: bool) -> None:
    """What this hospital gave to others and what they gave it, with what became of each."""
    show_result(perform(settings_of(ctx), "share-list", {}), as_json, _listed)


def _listed(result: Mapping[str, Any]) -> str:
    lines = [_line(row, "to", row["to"]) for row in result["given"]]
    lines += [_line(row, "from", row["from"]) for row in result["received"]]
    return "\n".join(lines) or "nothing is shared"


def _line(row: Mapping[str, Any], way: str, member: str) -> str:
    ends = f", until {row['expires']}" if row["expires"] else ""
    why = row.get("refused") or row.get("why")
    fault = f" ({row['fault']})" if row["fault"] and row["fault"] != why else ""
    refused = f", not taken in there: {row['refused']}" if row.get("refused") else ""
    state = "waiting, not yet on the ledger" if way == "to" and row["state"] == "waiting" else row["state"]
    return f"{row['grant']}  {way} {member}: {row['study'] or 'a study'}, {state}{ends}{refused}{fault}"
