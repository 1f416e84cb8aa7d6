"""The node as a process: what it costs at rest, how it ends, what it refuses to start with."""

import signal
from pathlib import Path

import pytest

from tests.node.instances import HIGHDICOM, stow
from tests.node.running_node import RunningNode

IDLE_BYTES = 250 << 20


def proportional_set_size(pid: int) -> int:
    """Bytes of memory of one process, shared pages divided among those that share them (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss line")


def test_an_idle_node_rests_below_250_megabytes(fresh_node: RunningNode) -> None:
    fresh_node.start()
    fresh_node.answer("import", str(HIGHDICOM))
    processes = fresh_node.processes()
    assert len(processes) >= 4
    assert sum(proportional_set_size(pid) for pid in processes) < IDLE_BYTES


def test_sigterm_ends_every_process(fresh_node: RunningNode) -> None:
    fresh_node.start()
    processes = fresh_node.processes()
    assert fresh_node.stop() == 0
    assert [pid for pid in processes if Path(f"/proc/{pid}/status").exists()] == []


def test_ctrl_c_ends_the_doors_first_and_the_ledger_when_it_has_sealed_what_they_closed(
    fresh_node: RunningNode,
) -> None:
    fresh_node.start()
    with fresh_node.http("clinician") as client:
        assert stow(client, [(HIGHDICOM / "ct_image.dcm").read_bytes()]).status_code == 200
        assert fresh_node.stop(signal.SIGINT) == 0, fresh_node.printed()
    assert "study.store" in {entry["type"] for entry in fresh_node.answer("ledger", "entries")["entries"]}
    assert fresh_node.answer("ledger", "verify")["findings"] == []


def test_a_second_node_on_the_same_home_is_refused(fresh_node: RunningNode) -> None:
    fresh_node.start()
    refused = fresh_node.cairn("serve", code=None)
    assert refused.returncode in (1, 2)
    assert "Traceback" not in refused.stderr
    assert fresh_node.is_ready()


@pytest.mark.parametrize("name", ["CAIRN_WEB__PROT", "CAIRN_WEBB__PORT", "CAIRN_NONSENSE"])
def test_an_unknown_setting_is_refused_by_name(fresh_node: RunningNode, name: str) -> None:
    fresh_node.settings = {name: "1"}
    refused = fresh_node.cairn("serve", code=2)
    assert name in refused.stderr


def test_an_anonymous_role_beyond_loopback_is_refused(fresh_node: RunningNode) -> None:
    fresh_node.settings = {"CAIRN_WEB__HOST": "0.0.0.0", "CAIRN_ACCESS__ANONYMOUS_ROLE": "viewer"}
    fresh_node.cairn("serve", code=2)


def test_config_show_says_where_each_value_comes_from(fresh_node: RunningNode) -> None:
    rows = {row["name"]: row for row in fresh_node.answer("config", "show")["settings"]}
    assert rows["web.port"] == {
        "name": "web.port",
        "value": str(fresh_node.web_port),
        "origin": "environment CAIRN_WEB__PORT",
    }
    assert rows["dimse.ae_title"]["origin"] == "default"


def test_the_first_start_prints_how_to_use_it(fresh_node: RunningNode) -> None:
    fresh_node.start()
    fresh_node.wait_printed("\nready\n")
    assert "/login?token=" in fresh_node.printed()
    assert f"127.0.0.1:{fresh_node.web_port}/dicom-web" in fresh_node.printed()
    assert "storescu" in fresh_node.printed()
