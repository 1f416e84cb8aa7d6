"""Settings: sources, precedence, and refusal of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import config
from bridge.errors import ConfigError
from bridge.model import Role


def test_later_sources_win_and_each_value_names_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[dimse]\nport = 104\nae_title = "ONE"\n[web]\nport = 80\n')
    settings, origins = config.load(file, {"CAIRN_DIMSE__PORT": "105", "CAIRN_HOME": "/h"}, {"web.port": "81"})
    assert (settings.dimse.port, settings.dimse.ae_title, settings.web.port) == (105, "ONE", 81)
    assert settings.home == Path("/h")
    assert origins["dimse.port"] == "environment CAIRN_DIMSE__PORT"
    assert origins["dimse.ae_title"] == f"file {file}"
    assert origins["web.port"] == "flag"
    assert origins["web.host"] == "default"


def test_a_nodes_own_settings_file_is_read_before_the_one_that_is_given(tmp_path: Path) -> None:
    own, file = tmp_path / "cairn.toml", tmp_path / "given.toml"
    own.write_text('[ledger]\nengine = "cometbft"\n[ledger.cometbft]\np2p_port = 18056\n')
    file.write_text("[ledger.cometbft]\np2p_port = 26656\n")
    settings, origins = config.load(file, {"CAIRN_HOME": str(tmp_path)})
    assert (settings.ledger.engine, settings.ledger.cometbft.p2p_port) == ("cometbft", 26656)
    assert (origins["ledger.engine"], origins["ledger.cometbft.p2p_port"]) == (f"file {own}", f"file {file}")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CAIRN_DIMSE__PROT": "1"}, "did you mean dimse.port"),
        ({"CAIRN_NOTHING": "1"}, "there is no setting nothing"),
        ({"CAIRN_DIMSE__PORT": "many"}, "dimse.port"),
        ({"CAIRN_DIMSE__PORT": "70000"}, "between 0 and 65535"),
        ({"CAIRN_CONTENT__HASH": "md5"}, "blake3, sha2-256"),
        ({"CAIRN_ACCESS__ANONYMOUS_ROLE": "king"}, "access.anonymous_role"),
        ({"CAIRN_WEB__HOST": "0.0.0.0"}, "trusted_proxies"),
        (
            {
                "CAIRN_WEB__HOST": "0.0.0.0",
                "CAIRN_WEB__TRUSTED_PROXIES": "10.0.0.1",
                "CAIRN_ACCESS__ANONYMOUS_ROLE": "viewer",
            },
            "loopback only",
        ),
        ({"CAIRN_DIMSE__AE_TITLE": "SEVENTEEN_LETTERS"}, "ae_title"),
    ],
)
def test_what_is_wrong_is_refused_with_its_cause(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.load(None, environment)


@pytest.mark.parametrize("text", ["[dimse]\nprot = 1", "port = 1", "[dimse]\nport = [", '[[dimse.peers]]\nae = "X"'])
def test_a_file_with_a_fault_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        config.load(file, {})


def test_peers_and_lists_and_roles_are_read(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[[dimse.peers]]\nae_title = "CT1"\nhost = "10.0.0.5"\nport = 104\nallow = ["store", "query"]\n')
    settings, _ = config.load(
        file, {"CAIRN_ACCESS__ANONYMOUS_ROLE": "viewer", "CAIRN_WEB__TRUSTED_PROXIES": "::1, 10.1.1.1"}
    )
    assert settings.dimse.peers == (config.Peer("CT1", "10.0.0.5", 104, ("store", "query")),)
    assert settings.web.trusted_proxies == ("::1", "10.1.1.1")
    assert settings.access.anonymous_role is Role.VIEWER


def test_members_are_read_and_one_may_have_two_certificates(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[[members.peers]]\nname = "A"\ncertificate = "old.pem"\n'
        '[[members.peers]]\nname = "A"\ncertificate = "/etc/new.pem"\nurl = "https://192.0.2.1:8043"\n'
    )
    old, new = config.load(file, {})[0].members.peers
    assert (old.name, old.certificate.is_absolute(), old.url) == ("A", True, None)
    assert (new.name, new.certificate, new.url) == ("A", Path("/etc/new.pem"), "https://192.0.2.1:8043")


@pytest.mark.parametrize(
    "member",
    [
        'name = "A"',
        'certificate = "a.pem"',
        'name = "A"\ncertificate = "a.pem"\nurl = "http://192.0.2.1"',
        'name = "A"\ncertificate = "a.pem"\nrole = "admin"',
    ],
)
def test_a_member_that_is_not_well_described_is_refused(tmp_path: Path, member: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"[[members.peers]]\n{member}\n")
    with pytest.raises(ConfigError, match=r"members\.peers"):
        config.load(file, {})


@pytest.mark.parametrize("name", ["CERTIFICATE", "KEY"])
def test_a_certificate_towards_members_needs_its_key(name: str) -> None:
    with pytest.raises(ConfigError, match="go together"):
        config.load(None, {f"CAIRN_MEMBERS__{name}": "/etc/member.pem"})


def test_every_setting_has_an_explanation() -> None:
    assert all(text for _, _, text in config.table())
