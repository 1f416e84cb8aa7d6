"""Writes the pages that are made from the code: errors.md, configuration.md, cli.md, and tables of three more.

`python docs/generate.py` writes them; `python docs/generate.py --check` only says which are not current, and fails.
The truth lies in `bridge/errors.py`, `bridge/config.py`, `bridge/cli.py`; for the tables of dicomweb.md in
`bridge/dicom/attributes.py` and `dicomweb/app.py`, for those of audit.md in `ledger/types.py` and `ledger/alerts.py`,
for that of ledger-http.md in `dicomweb/ledger_api/`. What is made from them is never edited by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from bridge import config, errors
from bridge.dicom import attributes
from bridge.errors import CairnError
from ledger.alerts import RULES
from ledger.types import ENTRY_TYPES, EVENT_NAMES, TYPE_NAMES

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Made by `make docs` from {source}; change it there. -->\n"


def errors_page() -> str:
    """One section per slug: cause, advice, and how each protocol is answered."""
    lines = [
        NOTE.format(source="bridge/errors.py"),
        "# Errors\n",
        "Every error that Cairn answers on purpose has a stable slug. Over HTTP it is the last part of `type` in an",
        "`application/problem+json` document (RFC 9457), on the command line it stands in the `--json` answer. The",
        "statuses are those of PS3.4 Table B.2-1 and PS3.7 Annex C (C-STORE), PS3.18 Table I.2-2 (STOW Failure Reason",
        "(0008,1197)), PS3.18 8.5 and RFC 9110 (HTTP). Anything else is a fault in Cairn: `internal-error`.\n",
    ]
    causes = _causes()
    for name, kind in sorted(_by_slug().items()):
        answer = kind.answer
        lines.append(f"## {name}\n")
        if kind.__name__ in causes:
            lines.append(f"Cause: {causes[kind.__name__]}.\n")
        lines.append(f"What to do: {kind.advice}\n")
        lines.append("| C-STORE status | STOW Failure Reason | HTTP status |")
        lines.append("|---|---|---|")
        lines.append(f"| {answer.c_store:04X} | {answer.stow:04X} | {answer.http} |\n")
    return "\n".join(lines)


def configuration_page() -> str:
    """Every setting: its default, its environment variable, what it means."""
    lines = [
        NOTE.format(source="bridge/config.py"),
        "# Configuration\n",
        "No setting is needed. A value comes from, in rising order: the default, the file given by `--config`, the",
        "variable `CAIRN_SECTION__KEY`, a flag. An unknown key or variable is an error that names the nearest known",
        "one. `cairn config show` prints every value and where it came from.\n",
        "`CAIRN_HOME` is the directory of everything the node keeps (default `./data`). Variables whose names do not",
        f"follow the pattern: {', '.join(f'`{name}`' for name in sorted(config.ENVIRONMENT_ONLY))}",
        "(`CAIRN_CRASH_AT` is for tests of crashes alone).",
    ]
    section = ""
    for name, default, text in config.table():
        head, _, key = name.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"## [{section}]\n", "| key | default | meaning | variable |", "|---|---|---|---|"]
        variable = "" if "TOML only" in text else f"`CAIRN_{name.upper().replace('.', '__')}`"
        lines.append(f"| `{key}` | {_value(default)} | {text} | {variable} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with the text of its `--help`."""
    from bridge.cli import main  # the command line loads the whole node; the other pages do not need it

    lines = [
        NOTE.format(source="bridge/cli.py"),
        "# Commands\n",
        "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 integrity violated. Where a command takes `--json`",
        "its answer is one JSON document on standard output.\n",
    ]
    for path, command in _commands(main, ("cairn",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=100, terminal_width=100)
        lines += [f"## {' '.join(path)}\n", "```", command.get_help(context), "```\n"]
    return "\n".join(lines)


def dicomweb_page() -> str:
    """The page as it is, with its tables of resources and search keys made anew."""
    from dicomweb.app import RESOURCES

    resources = ["| path | method | transaction |", "|---|---|---|"]
    for resource in RESOURCES:
        path = resource.path.replace(":uid", "").replace(":path", "")
        resources += [f"| `{path}` | {method} | {row.name} |" for method, row in resource.methods.items()]
    keys = ["| level | matching keys, by keyword or tag |", "|---|---|"]
    for level in attributes.LEVELS:
        rows = [row for row in attributes.TABLE if row.level is level and row.matching is not None]
        keys.append(f"| {level.value} | {', '.join(f'{row.keyword} ({row.tag})' for row in rows)} |")
    text = (DOCS / "dicomweb.md").read_text("utf-8")
    return _between(_between(text, "resources", resources), "keys", keys)


def audit_page() -> str:
    """The page as it is, with its tables of types and of rules made anew."""
    types = ["| type | it states | of a study | message | type code | profile |", "|---|---|---|---|---|---|"]
    for row in ENTRY_TYPES.values():
        code = f"{row.type_code} {TYPE_NAMES[row.type_code]}" if row.type_code else ""
        message = f"{row.event} {EVENT_NAMES[row.event]}, {row.message_action}"
        of_study = "yes" if row.study else "no"
        types.append(f"| `{row.name}` | {row.meaning} | {of_study} | {message} | {code} | {row.profile or ''} |")
    rules = ["| rule | it means | severity | type code |", "|---|---|---|---|"]
    rules += [
        f"| `{rule.name}` | {rule.meaning} | {rule.severity} | {rule.type_code} {TYPE_NAMES[rule.type_code]} |"
        for rule in RULES.values()
    ]
    text = (DOCS / "audit.md").read_text("utf-8")
    return _between(_between(text, "types", types), "rules", rules)


def ledger_http_page() -> str:
    """The page as it is, with its table of resources made anew."""
    from dicomweb import ledger_api

    lines = ["| resource | needs | answers |", "|---|---|---|"]
    for resource in ledger_api.RESOURCES:
        path = ledger_api.LEDGER_ROOT + resource.path.replace(":path", "")
        for row in resource.methods.values():
            needs = "a credential" if row.action is None else f"`{row.action}`"
            lines.append(f"| `{path}` | {needs} | `{', '.join(row.gives)}` |")
    return _between((DOCS / "ledger-http.md").read_text("utf-8"), "ledger", lines)


def _between(text: str, name: str, lines: list[str]) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    before, begin, rest = text.partition(f"<!-- begin {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not begin or not end:
        raise ValueError(f"the page has no markers for {name}")
    return before + begin + "\n".join(lines) + "\n" + end + after


PAGES: Mapping[str, Callable[[], str]] = {
    "errors.md": errors_page,
    "configuration.md": configuration_page,
    "cli.md": cli_page,
    "dicomweb.md": dicomweb_page,
    "ledger-http.md": ledger_http_page,
    "audit.md": audit_page,
}


def _by_slug() -> dict[str, type[CairnError]]:
    """Each slug with the highest class that bears it."""
    found: dict[str, type[CairnError]] = {}

    def walk(kind: type[CairnError]) -> None:
        found.setdefault(kind.slug, kind)
        for child in kind.__subclasses__():
            walk(child)

    walk(CairnError)
    return found


def _causes() -> dict[str, str]:
    """Class name -> the words beside it in the tree that opens `bridge/errors.py`."""
    rows = re.findall(r"[├└]── (\w+) {2,}(\S.*)", errors.__doc__ or "")
    return {name: words.strip().rstrip(".") for name, words in rows}


def _value(default: object) -> str:
    if default is None or default == ():
        return ""
    return f"`{default}`"


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            if not child.hidden:
                yield from _commands(child, (*path, name))


def main() -> int:
    """Write the pages, or with --check name those that differ and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not current")
    check = parser.parse_args().check
    stale = []
    for name, page in PAGES.items():
        text, file = page(), DOCS / name
        if not file.exists() or file.read_text("utf-8") != text:
            stale.append(name)
            if not check:
                file.write_text(text, "utf-8")
    for name in stale:
        sys.stdout.write(f"docs/{name}: {'not current; run make docs' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
