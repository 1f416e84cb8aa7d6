"""`cairn study`: what is mistyped is a matter of usage, and told before any node is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "FILE", "--key", "FILE", "--from", "garbage"], "not a verifier key"),
        (["import", "FILE", "--from", "garbage"], "not a verifier key"),
        (["export", "1.2.3", "--out", "OUT", "--to", "garbage", "--key-out", "KEY"], "--to"),
        (["export", "1.2.3", "--out", "OUT", "--key-out", "KEY"], "go together"),
    ],
)
def test_a_key_that_is_none_is_refused_as_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "none"))
    (tmp_path / "FILE").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["study", *arguments])
    assert result.exit_code == 2
    assert said in result.output
