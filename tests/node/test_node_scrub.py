"""Content is read back on a real node with a real Kubo: each copy is mended from the other, and the ledger tells it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge.content import cid as cids
from tests.kubo_daemon import KuboDaemon
from tests.node.instances import HIGHDICOM, all_there, sendable, stow
from tests.node.running_node import RunningNode

INSTANCE = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
READY_S = 90.0


def until(what: Callable[[], bool], said: str) -> None:
    """Wait for something that must come true."""
    end = time.monotonic() + READY_S
    while not what():
        assert time.monotonic() < end, said
        time.sleep(0.1)


def damage(file: Path, at: int) -> None:
    """Flip a bit of a byte."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)


class Stored:
    """What the index of a node says of the instance's sealed object."""

    def __init__(self, node: RunningNode) -> None:
        with closing(sqlite3.connect(node.home / "index.db")) as index:
            query = "SELECT i.root, b.pack, b.offset FROM instance i JOIN block b ON b.cid = i.root WHERE i.sop = ?"
            self.cid, pack, self.offset = index.execute(query, (INSTANCE.path.rpartition("/")[2],)).fetchone()
        self.pack = node.home / "packs" / f"{pack:08d}.car"

    @property
    def text(self) -> str:
        return cids.to_text(self.cid)


def tree(node: RunningNode) -> dict[str, Any]:
    """The one tree of the study, as `cairn study show` tells it."""
    (found,) = node.answer("study", "show", INSTANCE.study)["trees"]
    assert isinstance(found, dict)
    return found


def scrubs(node: RunningNode) -> list[dict[str, Any]]:
    """The records of type content.scrub that the ledger has sealed, oldest first."""
    with node.http("auditor") as client:
        entries = client.get("/ledger/entries", params={"type": "content.scrub"}).json()["entries"]
        details = [client.get(f"/ledger/entries/{entry['id']}").json()["details"] for entry in entries]
    return [record["body"] for records in reversed(details) for record in records]


@pytest.fixture
def beside_kubo(fresh_node: RunningNode, fresh_kubo: KuboDaemon) -> Iterator[RunningNode]:
    """A node whose one study lies in its packs and in a running Kubo, pinned and read back."""
    fresh_kubo.start()
    fresh_node.settings |= {"CAIRN_CONTENT__ENGINE": "kubo", "CAIRN_CONTENT__KUBO__API": fresh_kubo.api}
    fresh_node.start()
    with fresh_node.http("admin") as client:
        assert stow(client, [INSTANCE.file.read_bytes()]).status_code == 200
    until(lambda: tree(fresh_node)["verified"] is not None, "the study was not pinned and read back")
    yield fresh_node


def test_fsck_mends_each_copy_from_the_other(beside_kubo: RunningNode, fresh_kubo: KuboDaemon) -> None:
    stored, root = Stored(beside_kubo), tree(beside_kubo)["root"]
    before = stored.pack.read_bytes()
    damage(fresh_kubo.block_file(stored.cid), 100)
    found = beside_kubo.answer("fsck", "--content")
    assert [(one["block"], one["place"], one["mended"]) for one in found["repaired"]] == [
        (stored.text, "Kubo's datastore", "packs")
    ]
    damage(stored.pack, stored.offset + 100)
    found = beside_kubo.answer("fsck", "--content")
    assert [(one["block"], one["mended"]) for one in found["repaired"]] == [(stored.text, "kubo")]
    assert stored.pack.read_bytes() == before and found["findings"] == []
    assert beside_kubo.answer("fsck", "--content")["wrong"] == 0
    assert root in fresh_kubo.pins()
    assert beside_kubo.answer("fsck")["findings"] == []
    until(lambda: len(scrubs(beside_kubo)) == 3, "not all was recorded")
    assert [(said["wrong"], said["mended"]) for said in scrubs(beside_kubo)] == [(1, 1), (1, 1), (0, 0)]


def test_the_background_scrub_mends_what_was_damaged_while_the_node_was_down(
    beside_kubo: RunningNode, fresh_kubo: KuboDaemon
) -> None:
    beside_kubo.stop()
    stored = Stored(beside_kubo)
    before = stored.pack.read_bytes()
    damage(stored.pack, stored.offset + 7)
    beside_kubo.start()
    until(lambda: bool(scrubs(beside_kubo)), "the scrub has not found it")
    (said,) = scrubs(beside_kubo)
    assert (said["did"], said["wrong"], said["mended"]) == ("background", 1, 1)
    assert said["actor"]["how"] == "node" and said["findings"][0]["block"] == stored.text
    assert stored.pack.read_bytes() == before


def test_what_nobody_has_is_flagged_and_heals_when_it_is_sent_again(fresh_node: RunningNode) -> None:
    fresh_node.start()
    with fresh_node.http("admin") as client:
        assert stow(client, [INSTANCE.file.read_bytes()]).status_code == 200
        until(lambda: tree(fresh_node)["root"] is not None, "the batch was not closed")
        stored = Stored(fresh_node)
        damage(stored.pack, stored.offset + 100)
        found = fresh_node.answer("fsck", "--content", code=3)
        assert [one["block"] for one in found["findings"]] == [stored.text] and not found["repaired"]
        until(lambda: client.get("/readyz").json()["status"] == "degraded", "it does not say that it is degraded")
        assert client.get("/readyz").json()["reasons"] == [
            "1 study is not whole: cairn fsck --content says which blocks"
        ]
        assert stow(client, [INSTANCE.file.read_bytes()]).status_code == 200
        all_there(client, [INSTANCE])
        healed = Stored(fresh_node)
        until(lambda: healed.text in str(tree(fresh_node)["pages"]), "the page still names what was damaged")
        assert fresh_node.answer("fsck", "--content", "--sample", "100")["wrong"] == 0
        until(lambda: client.get("/readyz").json() == {"status": "ready"}, "it still says that it is degraded")
