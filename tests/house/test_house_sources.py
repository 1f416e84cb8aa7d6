"""The rules of the house that no linter knows: where sources lie, how large they are, what they are called."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "ledger", "dicomweb")
VAGUE = {"manager", "helper", "helpers", "util", "utils", "common", "misc", "processor"}
MAX_LINES = 500
MAX_FUNCTION_LINES = 60
MEDIAN_LINES = 250


def sources() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_module_is_longer_than_the_ceiling() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= MEDIAN_LINES


def test_no_function_is_longer_than_the_ceiling() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_modules_bear_names_that_say_something() -> None:
    vague = [str(path.relative_to(ROOT)) for path in sources() if VAGUE & set(path.stem.split("_"))]
    assert vague == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.read_text("utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_nothing_is_left_to_do_in_the_sources() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|type: ignore(?!\[)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_whoever_catches_everything_logs_it_passes_it_on_or_raises() -> None:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            catches_all = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            if catches_all and not _accounts_for(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def _accounts_for(handler: ast.ExceptHandler) -> bool:
    """Whether a handler raises, logs with the trace, or hands the caught error to somebody."""
    for node in (inner for statement in handler.body for inner in ast.walk(statement)):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Attribute) and node.attr == "exception":
            return True
        if isinstance(node, ast.keyword) and node.arg == "exc_info":
            return True
        if handler.name and isinstance(node, ast.Name) and node.id == handler.name:
            return True
    return False


def test_no_test_is_skipped() -> None:
    marks = re.compile(r"pytest\.(skip|xfail|importorskip)|mark\.(skip|skipif|xfail)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_the_tree_names_no_registry_and_no_place_of_one_machine() -> None:
    hosts = re.compile(
        "|".join([r"pypi\.o" + "rg", "python" + "hosted", r"registry\.npm" + "js", r"/ho" + "me/", "/ro" + "ot/"])
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # an image file
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in hosts.finditer(text)]
    assert found == []
