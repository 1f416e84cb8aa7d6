"""The locks pin everything by hash, agree with one another and with pyproject.toml, and name no place to fetch from."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-postgresql.lock")
NAME = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def pinned(lock: str) -> set[tuple[str, str]]:
    return set(NAME.findall((ROOT / lock).read_text("utf-8")))


def normal(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_has_a_version_and_a_hash(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) >= 4
    for line in lines:
        assert NAME.match(line), line
        assert "--hash=sha256:" in line, line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text("utf-8")
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_the_locks_cover_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"]
    runtime = {name for name, _ in pinned("requirements.lock")}
    development = {name for name, _ in pinned("requirements-dev.lock")}
    assert {normal(item) for item in project["project"]["dependencies"] + groups["build"]} <= runtime
    extra = groups["postgresql"]
    assert {normal(item) for item in groups["dev"] if isinstance(item, str)} | {
        normal(item) for item in extra
    } <= development
    assert {"include-group": "postgresql"} in groups["dev"]
    assert project["project"]["optional-dependencies"] == {"postgresql": extra}


def test_the_tests_run_on_the_versions_that_are_shipped() -> None:
    assert pinned("requirements.lock") <= pinned("requirements-dev.lock")
    assert pinned("requirements-postgresql.lock") <= pinned("requirements-dev.lock")


def test_development_tools_are_not_installed_with_the_node() -> None:
    runtime = {name for name, _ in pinned("requirements.lock")}
    assert runtime.isdisjoint({"pytest", "mypy", "ruff", "hypothesis", "numpy", "import-linter"})


def test_the_browser_driver_is_locked_by_hash_and_without_address() -> None:
    lock = json.loads((ROOT / "tests/browser/package-lock.json").read_text("utf-8"))
    wanted = json.loads((ROOT / "tests/browser/package.json").read_text("utf-8"))["devDependencies"]
    installed = {path.removeprefix("node_modules/"): entry for path, entry in lock["packages"].items() if path}
    assert {name: installed[name]["version"] for name in wanted} == wanted
    for entry in installed.values():
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry


def test_go_itself_is_locked_by_hash_and_without_address() -> None:
    text = (ROOT / "tests/tools/go.lock").read_text("utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if line.strip()]
    assert NAME.match(line)
    assert "--hash=sha256:" in line
    assert "://" not in text


@pytest.mark.parametrize(
    ("tool", "module"),
    [("kubo", "github.com/ipfs/kubo v0.42.0"), ("cluster", "github.com/ipfs-cluster/ipfs-cluster v1.1.6")],
)
def test_a_tool_is_built_from_the_version_and_sums_that_are_written_down(tool: str, module: str) -> None:
    wanted = (ROOT / f"tests/tools/{tool}/go.mod").read_text("utf-8")
    sums = (ROOT / f"tests/tools/{tool}/go.sum").read_text("utf-8").splitlines()
    assert re.search(rf"^(require |\t){re.escape(module)}$", wanted.replace(" // indirect", ""), re.MULTILINE)
    assert "replace" not in wanted
    assert all(re.fullmatch(r"\S+ v\S+ h1:[A-Za-z0-9+/]{43}=", line) for line in sums)
    assert any(line.startswith(f"{module} h1:") for line in sums)
