"""A person says in a real Chromium why they look; what they then open is recorded with it."""

import json
import os
import subprocess
from pathlib import Path

from tests.node.instances import PYDICOM, sendable
from tests.node.running_node import RunningNode

HERE = Path(__file__).resolve().parent
CT = next(sent for sent in sendable([PYDICOM]) if sent.file.name == "CT_small.dcm")


def test_the_purpose_chosen_in_a_browser_is_recorded_with_what_is_seen(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.start()
    assert fresh_node.storescu(CT.file).returncode == 0
    link = fresh_node.answer("login-link", "--name", "Dr Who", "--role", "clinician")["url"]
    picture = Path(os.environ.get("CAIRN_TEST_PICTURES", str(tmp_path))) / "purpose.png"
    metadata = f"{fresh_node.url}/dicom-web{CT.path}/metadata"
    done = subprocess.run(
        ["node", HERE / "purpose.mjs", link, f"{fresh_node.url}/purpose", metadata, picture],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["chosen"], seen["posted"], seen["then"]) == ("TREAT", 303, "ETREAT")
    assert seen["reason"] == "unconscious, no relatives" and seen["image"] == 200
    assert set(seen["faults"]) <= {"no header", "no footer", "no nav"}  # one form is all there is
    assert fresh_node.stop() == 0
    (waiting,) = fresh_node.answer("ledger", "alerts")["unreviewed"]
    assert "Dr Who (clinician" in waiting["what"] and "unconscious, no relatives" in waiting["what"]
