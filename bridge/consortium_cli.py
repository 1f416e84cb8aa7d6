"""`cairn consortium`: hospitals that hold one ledger and need no third party."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bridge.consortium_demo_cli import demo
from bridge.invocation import as_json, perform, settings_of
from bridge.invocation import show as show_result


@click.group()
def consortium() -> None:
    """Hospitals that hold one ledger: who belongs to it, and what they vote on."""


consortium.add_command(demo)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STDOUT = Path("-")
_OUT = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
_name = click.option("--name", metavar="NAME", help="What this hospital is called: a-z, 0-9, '.' and '-'.")
_url = click.option("--url", metavar="URL", help="Where members reach its listener; default https://members.host:port.")
_peer = click.option("--peer", metavar="HOST:PORT", help="Where members reach its CometBFT; default what it binds.")
_power = click.option(
    "--power", type=click.IntRange(0, 1 << 20), default=1, show_default=True, help="Votes in CometBFT."
)
_wait = click.option("--wait", type=float, default=10.0, show_default=True, help="Seconds to wait for the ledger.")


@consortium.command()
@_name
@click.option(
    "--consortium", "called", metavar="NAME", default="cairn", show_default=True, help="The consortium's name."
)
@click.option("--member", "cards", multiple=True, type=_FILE, metavar="CARD", help="Another first member's card.")
@_url
@_peer
@_power
@as_json
@click.pass_context
def init(
    ctx: click.Context,
    name: str | None,
    called: str,
    cards: Sequence[Path],
    url: str | None,
    peer: str | None,
    power: int,
    as_json: bool,
) -> None:
    """Begin a consortium of this hospital and those whose cards are given; the others join by the genesis file.

    Makes what is missing of keys, TLS certificate and card, then CAIRN_HOME/consortium/genesis.json, and sets the
    ledger's engine in CAIRN_HOME/cairn.toml. A running node takes part when it is started the next time.
    """
    from bridge import consortium_setup as setup
    from bridge.consortium import GENESIS, folder
    from bridge.crypto.keystore import open_keystore

    settings = settings_of(ctx)
    if name is None:
        raise click.UsageError("--name says what this hospital is called")
    others = [setup.read_card(card) for card in cards]
    keystore = open_keystore(settings.home, settings.keys.passphrase_file)
    card = setup.make_card(settings, keystore, setup.place_of(settings, name, url, peer, power))
    genesis = setup.found(called, time.time_ns() // 1000, [card, *others])
    setup.join(settings, genesis)
    told = {
        "name": genesis.name,
        "ledger": genesis.ledger.hex(),
        "origin": genesis.origin,
        "members": [member.name for member in genesis.cards],
        "genesis": str(folder(settings.home) / GENESIS),
    }
    show_result(told, as_json, lambda r: f"{r['origin']}: {', '.join(r['members'])}\ngenesis  {r['genesis']}")


@consortium.command()
@_name
@click.option("--genesis", type=_FILE, help="The genesis file of the consortium: take part in it.")
@click.option("--out", type=_OUT, help="Where to write this node's card; '-': it alone goes to standard output.")
@_url
@_peer
@_power
@as_json
@click.pass_context
def join(
    ctx: click.Context,
    name: str | None,
    genesis: Path | None,
    out: Path | None,
    url: str | None,
    peer: str | None,
    power: int,
    as_json: bool,
) -> None:
    """Make this hospital's card, for others to take it in; with the genesis file, take part.

    Compare the fingerprint by telephone: the card says who signs, not who that is.
    """
    from bridge import consortium_setup as setup
    from bridge.consortium import CARD, folder
    from bridge.crypto.keystore import open_keystore
    from ledger import genesis as ledger_genesis

    settings = settings_of(ctx)
    held = folder(settings.home) / CARD
    known = setup.read_genesis_file(genesis) if genesis is not None else None
    if name is not None or not held.exists():
        if name is None:
            raise click.UsageError("--name says what this hospital is called")
        keystore = open_keystore(settings.home, settings.keys.passphrase_file)
        card = setup.make_card(settings, keystore, setup.place_of(settings, name, url, peer, power))
    else:
        card = setup.read_card(held)
    if known is not None:
        setup.join(settings, known)
    text = ledger_genesis.card_text(card)
    if out is not None and out != _STDOUT:
        out.write_text(text, "ascii")
    told = {
        "name": card.name,
        "node": card.node.hex(),
        "card": text,
        "fingerprint": ledger_genesis.fingerprint(card.signed),
        "consortium": None if known is None else known.origin,
    }
    if out == _STDOUT and not as_json:
        click.echo(text, nl=False)
        click.echo(_card(told, out), err=True)
    else:
        show_result(told, as_json, lambda r: _card(r, out))


def _card(told: Mapping[str, Any], out: Path | None) -> str:
    takes_part = [f"takes part in {told['consortium']} from its next start"] if told["consortium"] else []
    written = [str(told["card"]).rstrip()] if out is None else [f"card in {out}"] if out != _STDOUT else []
    return "\n".join([*written, f"fingerprint  {told['fingerprint']}", *takes_part])


@consortium.command()
@as_json
@click.pass_context
def members(ctx: click.Context, as_json: bool) -> None:
    """Who belongs to the consortium, what is proposed, what was proved against whom."""
    show_result(perform(settings_of(ctx), "consortium-members", {}), as_json, _members)


def _members(told: Mapping[str, Any]) -> str:
    lines = [f"{told['origin']}, height {told['height']}; {told['quorum']} members decide"]
    for member in told["members"]:
        state = "retired" if not member["active"] else "own" if member["own"] else "member"
        rotating = ", a new key is to follow" if member["rotating"] else ""
        counts = f"power {member['power']}  entries {member['entries']}"
        lines.append(f"{member['name']:<16} {state:<8} {counts}  {member['url']}{rotating}")
    for row in told["proposals"]:
        about = f"{row['do']} {row['member']}" + (f" {row['power']}" if row["power"] is not None else "")
        votes = f"yes {', '.join(row['yes']) or '-'}; no {', '.join(row['no']) or '-'}"
        votes += f"; {row['needed']} needed" if row["needed"] is not None else ""
        lines.append(f"{row['id'][:16]}  {row['state']:<10} {about}  by {row['by']}: {votes}")
        if row["fingerprint"]:
            lines.append(f"                  fingerprint {row['fingerprint']}")
    for row in told["evidence"]:
        lines.append(
            f"evidence: {row['member'] or row['validator']} {row['what']} (height {row['height']}, {row['time']})"
        )
    lines += [f"waits: {row['what']}. {row['advice']}" for row in told["waits"]]
    if told["restart"]:
        lines.append("the members accepted this node's new ledger key: its processes are started afresh with it")
    return "\n".join(lines)


@consortium.group()
def propose() -> None:
    """Propose a change; more than two thirds of the members decide."""


@propose.command()
@click.argument("card", type=_FILE)
@_wait
@as_json
@click.pass_context
def enroll(ctx: click.Context, card: Path, wait: float, as_json: bool) -> None:
    """Propose to take in the hospital of CARD."""
    _state(ctx, {"do": "enroll", "card": str(card.absolute())}, wait, as_json)


@propose.command()
@click.argument("card", type=_FILE, required=False)
@click.option("--keep-key", is_flag=True, help="Only the certificate or place is new, not the ledger key.")
@_url
@_peer
@_wait
@as_json
@click.pass_context
def rotate(
    ctx: click.Context, card: Path | None, keep_key: bool, url: str | None, peer: str | None, wait: float, as_json: bool
) -> None:
    """Propose a new ledger key (and card) of this node, or the new CARD of a member that lost its own.

    The key in use stays valid until the new one has signed; once the members have accepted it, the node starts its
    processes afresh with it, or takes it into use at its next start. Entries signed before stay valid.
    """
    arguments = {"do": "rotate", "card": str(card.absolute()) if card else None}
    _state(ctx, {**arguments, "keep_key": keep_key, "url": url, "peer": peer}, wait, as_json)


@propose.command()
@click.argument("member")
@_wait
@as_json
@click.pass_context
def retire(ctx: click.Context, member: str, wait: float, as_json: bool) -> None:
    """Propose to retire MEMBER: its entries are taken no more, those it made stay."""
    _state(ctx, {"do": "retire", "member": member}, wait, as_json)


@propose.command()
@click.argument("member")
@click.argument("votes", type=click.IntRange(0, 1 << 20))
@_wait
@as_json
@click.pass_context
def power(ctx: click.Context, member: str, votes: int, wait: float, as_json: bool) -> None:
    """Propose that MEMBER's validator has so many VOTES in CometBFT; 0: none."""
    _state(ctx, {"do": "power", "member": member, "power": votes}, wait, as_json)


@consortium.command()
@click.argument("proposal", metavar="ID")
@click.argument("answer", type=click.Choice(["yes", "no"]))
@_wait
@as_json
@click.pass_context
def vote(ctx: click.Context, proposal: str, answer: str, wait: float, as_json: bool) -> None:
    """Vote on the proposal ID; a no of whoever proposed it withdraws it."""
    arguments = {"proposal": proposal, "yes": answer == "yes", "wait": wait}
    show_result(perform(settings_of(ctx), "consortium-vote", arguments), as_json, _became)


def _state(ctx: click.Context, arguments: Mapping[str, Any], wait: float, as_json: bool) -> None:
    result = perform(settings_of(ctx), "consortium-propose", {**arguments, "wait": wait})
    show_result(result, as_json, _became)


def _became(told: Mapping[str, Any]) -> str:
    if told["proposal"] is None:
        return "it waits to be sealed; the node's ledger does that when it runs"
    return f"{told['proposal']}  {told['state']}" + ("" if told["finality"] == "final" else ", waiting for its block")
