"""The documents say what the code does: generated pages are current, links lead somewhere, commands exist."""

import re
import runpy
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from bridge.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES: Mapping[str, Callable[[], str]] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(?:sh|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == PAGES[name](), f"docs/{name} is stale: run make docs"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_tree_leads_to_a_file(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_cairn_command_in_a_document_exists_with_its_options(page: Path) -> None:
    for block in BLOCK.findall(page.read_text("utf-8")):
        for line in block.splitlines():
            said = line.removeprefix("$ ").removesuffix("\\")
            if said.startswith(("cairn ", ".venv/bin/cairn ")):
                check_command(shlex.split(said, comments=True)[1:])


def check_command(words: list[str]) -> None:
    """Follow the words through the groups; every option given must be one of the command's."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"cairn {' '.join(words)}: no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    given = {word.split("=")[0] for word in rest if word.startswith("--")}
    assert given <= options, f"cairn {' '.join(words)}"


def test_every_command_explains_itself() -> None:
    def walk(command: click.Command, path: str) -> list[str]:
        silent = [] if command.help else [path]
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                silent += walk(child, f"{path} {name}")
        return silent

    assert walk(main, "cairn") == []


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    versions = re.findall(r"^## \[?([0-9][^\]\s]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == version


def test_the_readme_names_every_make_target_it_uses() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in MARKDOWN:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")):
            assert target in targets, f"{page.name}: make {target}"


def test_every_decision_is_listed() -> None:
    listed = set(LINK.findall((ROOT / "docs/adr/README.md").read_text("utf-8")))
    assert {path.name for path in (ROOT / "docs/adr").glob("0*.md")} == listed
