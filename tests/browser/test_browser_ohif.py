"""A person opens the viewer in a real Chromium: login link, study list, study, first picture; nothing goes wrong."""

import json
import os
import subprocess
from pathlib import Path

from tests.node.instances import PYDICOM, sendable
from tests.node.running_node import RunningNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CT = next(sent for sent in sendable([PYDICOM]) if sent.file.name == "CT_small.dcm")
PATIENT = "CompressedSamples, CT1"


def test_the_viewer_shows_a_study_without_one_error(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.settings = {"CAIRN_WEB__VIEWER_DIR": str(ROOT / ".cache" / "viewer")}
    fresh_node.start()
    assert fresh_node.storescu(CT.file).returncode == 0
    link = fresh_node.answer("login-link", "--name", "reader", "--role", "viewer")["url"]
    pictures = Path(os.environ.get("CAIRN_TEST_PICTURES", str(tmp_path)))
    done = subprocess.run(
        ["node", HERE / "ohif.mjs", link, f"{fresh_node.url}/ohif/", PATIENT, pictures / "ohif"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout, done.stderr
    seen = json.loads(done.stdout)
    assert done.returncode == 0, seen
    assert seen["listed"]
    assert seen["greyLevels"] >= 16
    assert seen["frames"] >= 1
    assert seen["consoleErrors"] == []
    assert seen["failedRequests"] == []
    assert seen["badAnswers"] == []
    assert seen["foreign"] == []
    assert "OPTIONS" not in seen["methods"]
    assert (pictures / "ohif-study.png").stat().st_size > 10_000
