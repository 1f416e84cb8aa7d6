"""What `cairn share grant` and `list` tell while the ledger has a grant, and while it does not come to that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge import share_cli, share_commands
from bridge.config import Replication
from bridge.consortium_model import Hindrance
from bridge.errors import ConfigError
from bridge.node import Node
from tests.bridge.consortium_in_memory import Consortium
from tests.bridge.services.conftest import SENDER, instance, part10

STUDY = "1.2.826.0.1.3680043.8.498.94"
NO_QUORUM = Hindrance("No quorum: h2 and h3 are not heard", "Ask there.", 5)


class Giver:
    """h0 with a study, and the ledger that takes its entries, or only seals them."""

    def __init__(self, folder: Path) -> None:
        self.consortium = Consortium(folder, [Replication()] * 2)
        self.hospital = self.consortium.hospitals["h0"]
        self.node: Node = self.hospital.node
        self.quorum = True
        self.node.statements._made = self._made
        membership: Any = self
        self.node.membership = membership
        with self.node.store.reception(SENDER) as reception:
            incoming = reception.begin()
            incoming.write(part10(instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.1.1")))
            incoming.commit()

    def hindrances(self) -> list[Hindrance]:
        return [] if self.quorum else [NO_QUORUM]

    def grant(self, wait: float = 5.0) -> Any:
        asked = {"study": STUDY, "to": "h1", "purpose": "TREAT", "wait": wait}
        return share_commands.grant(self.node, asked, lambda text: None)

    def _made(self, root: bytes, final: bool) -> bytes | None:
        self.consortium.seal()
        return self.hospital.made(root, final)


@pytest.fixture
def giver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Giver]:
    made = Giver(tmp_path)
    known = made.hospital.entry
    monkeypatch.setattr(made.hospital, "entry", lambda id: known(id) if made.quorum else None)
    yield made
    made.consortium.close()


def printed(monkeypatch: pytest.MonkeyPatch, result: object, *command: str) -> str:
    """What a command prints of the node's answer."""
    monkeypatch.setattr(share_cli, "perform", lambda settings, name, arguments: result)
    monkeypatch.setattr(share_cli, "settings_of", lambda ctx: None)
    done = CliRunner().invoke(share_cli.share, [*command])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_grant_that_is_on_the_ledger_is_told_as_final(giver: Giver, monkeypatch: pytest.MonkeyPatch) -> None:
    told = giver.grant()
    assert (told["finality"], told["waits"]) == ("final", [])
    said = printed(monkeypatch, told, "grant", STUDY, "--to", "h1")
    assert said.startswith("on the ledger: h1 gets it") and f"grant {told['grant']}" in said


def test_a_grant_that_waits_says_that_it_is_not_on_the_ledger_and_why(
    giver: Giver, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver.quorum = False
    monkeypatch.setattr(share_commands, "HINDERED_S", 0.0)
    told = giver.grant(wait=600.0)  # for nothing that is known not to come
    assert (told["finality"], told["waits"]) == ("pending", [{"what": NO_QUORUM.what, "advice": NO_QUORUM.advice}])
    said = printed(monkeypatch, told, "grant", STUDY, "--to", "h1")
    assert said.startswith("waiting: not yet on the ledger; h1 gets nothing before")
    assert "waits: No quorum: h2 and h3 are not heard. Ask there." in said and f"grant {told['grant']}" in said
    listed = share_commands.every(giver.node, {}, lambda text: None)
    assert "waiting, not yet on the ledger" in printed(monkeypatch, listed, "list")


def test_it_is_waited_no_longer_than_asked_when_no_cause_is_known(
    giver: Giver, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver.quorum = False
    monkeypatch.setattr(giver, "hindrances", list)
    told = giver.grant(wait=0.0)
    assert (told["finality"], told["waits"]) == ("pending", [])


def test_a_node_that_is_in_no_consortium_gives_nothing(giver: Giver) -> None:
    giver.node.sharing = None
    with pytest.raises(ConfigError):
        giver.grant()
