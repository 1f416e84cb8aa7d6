"""The command `cairn` (DESIGN section 8).

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 integrity violated."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from bridge import config, consortium_cli, content_cli, share_cli, study_cli
from bridge.control import Failed, exit_code
from bridge.errors import CairnError, ConfigError
from bridge.invocation import as_json, perform, say, settings_of
from bridge.invocation import show as show_result

ROLES = click.Choice(["viewer", "clinician", "device", "auditor", "admin"])


class Cairn(click.Group):
    """Turns errors into a line that says the cause and what to do, and the exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CairnError as error:
            click.echo(f"cairn: {error.detail}\n       {error.advice}", err=True)
            ctx.exit(exit_code(error))
        except Failed as error:
            click.echo(f"cairn: {error.detail}\n       {error.advice}", err=True)
            ctx.exit(error.code)


@click.group(cls=Cairn, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CAIRN_CONFIG",
    help="Settings file (TOML).",
)
@click.version_option(package_name="cairn-pacs", prog_name="cairn")
@click.pass_context
def main(ctx: click.Context, file: Path | None) -> None:
    """Cairn: a DICOMweb-compatible PACS bridge with sealed content and a ledger anyone can check."""
    ctx.obj = file


@main.command()
@click.option("--config", "file", type=click.Path(dir_okay=False, path_type=Path), help="Settings file (TOML).")
@click.option("--sample", is_flag=True, help="Send a sample study when the archive is empty.")
@click.pass_context
def serve(ctx: click.Context, file: Path | None, sample: bool) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    settings = settings_of(ctx, file)
    from bridge import logs
    from bridge.serve import serve as run

    logs.configure(settings.log.level)
    sys.exit(run(settings, sample=sample, say=lambda text: click.echo(text)))


@main.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@as_json
@click.pass_context
def import_(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Import a DICOM file, or every one below a folder."""
    result = perform(settings_of(ctx), "import", {"path": str(path.absolute())})
    show_result(
        result,
        as_json,
        lambda r: ", ".join(f"{count} {outcome}" for outcome, count in r["outcomes"].items()) or "nothing to import",
    )
    if result["refused"] and not set(result["outcomes"]) - {"refused"}:
        ctx.exit(1)


@main.command()
@click.option(
    "--repair", is_flag=True, help="Flag what is damaged, so that sending it again heals it; let go of useless bytes."
)
@click.option("--content", is_flag=True, help="Only read the blocks of all studies back, from packs and engine; mend.")
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="P",
    help="With --content: of P percent of the instances, chosen at random.",
)
@as_json
@click.pass_context
def fsck(ctx: click.Context, repair: bool, content: bool, sample: float | None, as_json: bool) -> None:
    """Read everything back: packs, index, keys, records. Exit 3 when anything does not hold.

    With --content every copy of each block is read and hashed, in the packs and in the content engine. What is damaged
    or missing in one is mended from another; an instance of which a block is nowhere to be had is flagged, so that
    sending it again heals it. What was found is recorded on the ledger. Exit 3 when anything could not be mended.
    """
    if sample is not None and not content:
        raise click.UsageError("--sample goes with --content")
    result = perform(settings_of(ctx), "fsck", {"repair": repair, "content": content, "sample": sample})
    show_result(result, as_json, _checked)
    if result["findings"]:
        ctx.exit(3)


def _checked(result: Mapping[str, Any]) -> str:
    if "what" in result:  # of the content, every finding was told when it was made
        return str(result["what"])
    return "\n".join(f"{found['place']}: {found['what']}" for found in result["findings"]) or "clean"


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--without-content", is_flag=True, help="Leave the packs out (they are append-only: copy them by other means)."
)
@as_json
@click.pass_context
def backup(ctx: click.Context, directory: Path, without_content: bool, as_json: bool) -> None:
    """Copy keys, index, ledger and packs into DIRECTORY, while the node runs or not."""
    arguments = {"to": str(directory.absolute()), "without_content": without_content}
    result = perform(settings_of(ctx), "backup", arguments)
    show_result(result, as_json, lambda r: f"backed up to {directory}; it holds the keys, keep it safe")


@main.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--erasures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What was erased since: `cairn study erasures --json` of the node. It is erased again at the next start.",
)
@as_json
@click.pass_context
def restore(ctx: click.Context, directory: Path, erasures: Path | None, as_json: bool) -> None:
    """Make an empty CAIRN_HOME into what DIRECTORY holds. No node may run on it."""
    from bridge.erasing import begin_again, tags_in
    from bridge.index.transfer import copy_in
    from bridge.ledger_reading import index_place
    from bridge.runlock import RunLock
    from bridge.services.backup import restore as run

    settings = settings_of(ctx)
    place = index_place(settings)
    fill_index = None if isinstance(place, Path) else partial(copy_in, place=place)
    tags = tags_in(erasures) if erasures is not None else []
    with RunLock(settings.home):
        run(directory, settings.home, say, fill_index=fill_index, replay=partial(begin_again, settings, tags))
    show_result({"restored": str(settings.home)}, as_json, lambda r: f"restored to {r['restored']}")


@main.command("rebuild-index")
@as_json
@click.pass_context
def rebuild_index(ctx: click.Context, as_json: bool) -> None:
    """Make the index again from packs and keys; the old one is set aside. No node may run."""
    from bridge.offline import rebuilt

    result = rebuilt(settings_of(ctx), say)
    show_result(
        result,
        as_json,
        lambda r: f"{r['instances']} instances, {r['blocks']} blocks; {r['not_opened']} could not be opened",
    )


@main.group("config")
def config_() -> None:
    """Settings."""


@config_.command()
@as_json
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Every setting, its value and where it came from."""
    settings, origins = config.load(ctx.obj, os.environ)
    rows = [{"name": "home", "value": str(settings.home), "origin": origins["home"]}]
    rows += [{"name": name, "value": value, "origin": origins[name]} for name, value in config.shown(settings)]
    show_result(
        {"settings": rows},
        as_json,
        lambda r: "\n".join(f"{s['name']} = {s['value']}  ({s['origin']})" for s in r["settings"]),
    )


@main.group()
def token() -> None:
    """Credentials for HTTP."""


@token.command()
@click.option("--role", type=ROLES, required=True)
@click.option("--name", help="Who holds it; the role by default.")
@click.option("--expires", help="When it ends: 2027-01-31, 2027-01-31T12:00:00Z, or a span such as 12h or 30d.")
@click.option("--study", metavar="UID", help="Good for the sealed blocks of this study alone (/ipfs/); role viewer.")
@as_json
@click.pass_context
def create(
    ctx: click.Context, role: str, name: str | None, expires: str | None, study: str | None, as_json: bool
) -> None:
    """Make a token; it is shown once and kept only as a hash."""
    arguments = {"role": role, "name": name, "expires": expires, "study": study}
    result = perform(settings_of(ctx), "token-create", arguments)
    show_result(result, as_json, lambda r: str(r["token"]))


@token.command("list")
@as_json
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Tokens by id, name, role and state; never the secrets."""
    result = perform(settings_of(ctx), "token-list", {})
    show_result(
        result, as_json, lambda r: "\n".join("  ".join(str(v) for v in t.values()) for t in r["tokens"]) or "no tokens"
    )


@token.command()
@click.argument("which")
@as_json
@click.pass_context
def revoke(ctx: click.Context, which: str, as_json: bool) -> None:
    """Revoke a token by its id or name; it stops working at once."""
    result = perform(settings_of(ctx), "token-revoke", {"which": which})
    show_result(result, as_json, lambda r: f"revoked {', '.join(r['revoked'])}")


@main.command("login-link")
@click.option("--name", help="Who will use it; the role by default.")
@click.option("--role", type=ROLES, default="viewer", show_default=True)
@as_json
@click.pass_context
def login_link(ctx: click.Context, name: str | None, role: str, as_json: bool) -> None:
    """A link that signs a browser in, once, within 10 minutes."""
    show_result(perform(settings_of(ctx), "login-link", {"name": name, "role": role}), as_json, lambda r: str(r["url"]))


@main.group()
def ledger() -> None:
    """The signed provenance log."""


@ledger.command()
@click.option("--after", type=int, default=0, help="Start after this many entries.")
@click.option("--limit", type=int, default=1000, show_default=True)
@as_json
@click.pass_context
def entries(ctx: click.Context, after: int, limit: int, as_json: bool) -> None:
    """Entries in order: id, type, time, study (resolved here), records, finality, and in a consortium the hospital.

    Finality: signed (by this node alone), witnessed (by others too), pending (until consensus has taken it), final.
    """
    result = perform(settings_of(ctx), "ledger-entries", {"after": after, "limit": limit})
    show_result(
        result,
        as_json,
        lambda r: "\n".join(
            f"{e['time']}  {e['type']:14}  {e['finality']:9}  {(e['hospital'] or ''):12}"
            f"  {len(e['records'])} records  {e['study'] or '-'}  {e['id']}"
            for e in r["entries"]
        ),
    )


@ledger.command()
@as_json
@click.pass_context
def key(ctx: click.Context, as_json: bool) -> None:
    """This log's verifier key (C2SP signed-note); where others cosign it, the trust policy (C2SP tlog-policy)."""
    result = perform(settings_of(ctx), "ledger-key", {})
    show_result(result, as_json, lambda r: str(r["policy" if "\nwitness " in r["policy"] else "key"]).rstrip("\n"))


@ledger.command()
@click.argument("which", metavar="ID")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--wait", type=click.FloatRange(0, 3600), default=0, help="Seconds to wait until it is sealed.")
@click.option(
    "--commit",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A second file to write: the consortium's commit, which proves the entry to who has the genesis alone.",
)
@as_json
@click.pass_context
def prove(ctx: click.Context, which: str, out: Path, wait: float, commit: Path | None, as_json: bool) -> None:
    """Write the proof of an entry or of one record, by its ID, to a file that anyone can verify offline.

    The proof of a record holds that record, its entry, and nothing of other records.
    """
    if not re.fullmatch("[0-9a-fA-F]{64}", which):
        raise click.BadParameter("the id of an entry or record is 64 hexadecimal digits", param_hint="ID")
    result = perform(settings_of(ctx), "ledger-prove", {"id": which.lower(), "wait": wait, "commit": bool(commit)})
    try:
        out.write_text(result["proof"], encoding="utf-8", newline="\n")
        if commit is not None:
            commit.write_bytes(base64.b64decode(result["commit"]))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    told = {"id": result["id"], "file": str(out), **({} if commit is None else {"commit": str(commit)})}
    alone = settings_of(ctx).ledger.engine == "solo"
    trusted = "--key VKEY" if alone else "--policy FILE (what cairn ledger key prints)"
    whom = trusted if commit is None else f"--commit {commit} --genesis FILE"
    show_result(told, as_json, lambda r: f"wrote {r['file']}; verify it with: cairn ledger verify {r['file']} {whom}")


@ledger.command()
@click.argument("file", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--key", "vkey", help="The verifier key of the log, as `cairn ledger key` prints it on the node.")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A trust policy (C2SP tlog-policy) instead of a key.",
)
@click.option(
    "--genesis",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The genesis of a consortium: FILE is a copy of a member's folder consortium/ledger, or of published files.",
)
@click.option(
    "--commit",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --genesis, of a proof: the consortium's commit, as `cairn ledger prove --commit` wrote it.",
)
@click.option(
    "--since",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An older checkpoint or proof, which the log must continue.",
)
@click.option(
    "--consistency",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What /ledger/consistency answers for the sizes of FILE and --since, when they differ.",
)
@click.option("--hashes", is_flag=True, help="Of this node: the tree and files alone, without signatures and records.")
@as_json
@click.pass_context
def verify(
    ctx: click.Context,
    file: Path | None,
    vkey: str | None,
    policy: Path | None,
    genesis: Path | None,
    commit: Path | None,
    since: Path | None,
    consistency: Path | None,
    hashes: bool,
    as_json: bool,
) -> None:
    """Check this node's ledger, or a FILE without any node. Exit 3 when anything does not hold.

    FILE is a proof, a checkpoint, or a directory with a copy of a log's published files. What is wrong is named by its
    place, of a proof by the step that failed.
    """
    if file is None:
        if vkey or policy or genesis or commit or consistency:
            raise click.UsageError("--key, --policy, --genesis, --commit and --consistency are for a FILE")
        arguments = {"since": since.read_text("utf-8", "replace") if since else None, "hashes": hashes}
        result = perform(settings_of(ctx), "ledger-verify", arguments)
        show_result(result, as_json, _verified)
    elif hashes:
        raise click.UsageError("--hashes is for this node's ledger")
    else:
        from bridge import ledger_offline

        try:
            if genesis is not None and (vkey or policy or since or consistency):
                raise click.UsageError("--genesis says by itself whom to trust")
            if (genesis is not None and not file.is_dir()) != (commit is not None):
                raise click.UsageError("a proof is verified with --commit and --genesis, a directory with --genesis")
            if genesis is not None and commit is not None:
                result = ledger_offline.verify_commit(file, commit, genesis)
            elif genesis is not None:
                result = ledger_offline.verify_from_genesis(file, genesis, say)
            else:
                result = ledger_offline.verify(file, ledger_offline.trusted(vkey, policy), since, consistency, say)
        except ConfigError as error:
            raise click.UsageError(error.detail) from error
        show_result(result, as_json, ledger_offline.sentences)
    if result["findings"]:
        ctx.exit(3)


def _findings(result: Mapping[str, Any]) -> str:
    return "\n".join(f"{f['place']}: {f['what']}" for f in result["findings"])


def _verified(result: Mapping[str, Any]) -> str:
    waiting = f", and {result['waiting']} that wait for consensus" if result["waiting"] else ""
    arriving = result["arriving"]
    of = f", {arriving} of them of a state that is being taken over from other members" if arriving else ""
    return _findings(result) or f"verified: {result['entries']} entries{of}{waiting}"


@ledger.command()
@as_json
@click.pass_context
def reindex(ctx: click.Context, as_json: bool) -> None:
    """Make the index that searches the ledger (audit.db) again from the ledger; it can be searched meanwhile."""
    result = perform(settings_of(ctx), "ledger-reindex", {})
    show_result(result, as_json, lambda r: f"{r['events']} events")


@ledger.command()
@click.option("--since", help="Look at what came after: 2027-01-31, 2027-01-31T12:00:00Z, or a span back such as 12h.")
@as_json
@click.pass_context
def alerts(ctx: click.Context, since: str | None, as_json: bool) -> None:
    """What the rules of [alerts] find in the ledger (of the last 7 days), and break-glass accesses to be reviewed."""
    result = perform(settings_of(ctx), "ledger-alerts", {"since": since})
    show_result(result, as_json, _alerts)


def _alerts(result: Mapping[str, Any]) -> str:
    found = [f"{alert['time']}  {alert['rule']:24}  {alert['what']}" for alert in result["alerts"]]
    waiting = [
        f"{entry['time']}  to be reviewed            {entry['what']}  {entry['id']}" for entry in result["unreviewed"]
    ]
    return "\n".join([*found, *waiting]) or "no alerts"


@ledger.command()
@click.argument("entry")
@click.option("--note", required=True, help="What the review found, in words.")
@as_json
@click.pass_context
def review(ctx: click.Context, entry: str, note: str, as_json: bool) -> None:
    """Record that ENTRY (its id), such as a break-glass access, was reviewed."""
    result = perform(settings_of(ctx), "ledger-review", {"entry": entry, "note": note})
    show_result(result, as_json, lambda r: f"reviewed: {r['what']}")


for group in (study_cli.key, study_cli.study, content_cli.content, consortium_cli.consortium, share_cli.share):
    main.add_command(group)

if __name__ == "__main__":
    main()
