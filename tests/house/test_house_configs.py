"""Every settings file that comes with the sources loads, with settings that exist."""

import re
from pathlib import Path

import pytest

from bridge import config

FILES = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_settings_file_that_comes_with_the_sources_loads(file: Path) -> None:
    _, origins = config.load(file, {})
    assert f"file {file}" in origins.values()


def test_there_is_one() -> None:
    assert FILES


def test_the_container_s_settings_exist() -> None:
    text = (FILES[0].parent / "compose.yaml").read_text("utf-8")
    environment = dict(re.findall(r"^      (CAIRN_\w+): \"?([^\"\n]+)\"?$", text, re.MULTILINE))
    settings, origins = config.load(None, environment)
    assert (settings.content.engine, settings.members.host) == ("kubo", "0.0.0.0")
    assert sum(origin.startswith("environment") for origin in origins.values()) == len(environment)


def test_what_the_image_is_built_from_exists_and_is_given_to_the_build() -> None:
    root = FILES[0].parents[1]
    kept = {line[1:] for line in (root / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    dockerfile = (FILES[0].parent / "Dockerfile").read_text("utf-8")
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied
    for source in copied:
        assert (root / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in kept), source
