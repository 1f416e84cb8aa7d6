"""The published files of a shared log show by themselves that more than two thirds of the members hold it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from shared_log import Network

from ledger import checkpoint, policy, published, tiles
from ledger.audit_shared import audit_shared
from ledger.block_store import BlockStore
from ledger.finding import Finding
from ledger.policy import Policy
from ledger.publication import Publication
from ledger.shared_policy import cosignature_of, policy_text
from ledger.tile_files import TileFiles


class Exchanged:
    """East's copy, and the others' lines as they come."""

    def __init__(self, home: Path) -> None:
        self.network = Network(home)
        self.network.join()
        self.east = self.network["east"]
        self.opened()

    def opened(self) -> None:
        """As after a start."""
        note = self.east.store.checkpoint()
        assert note is not None
        self.published = Publication(self.east.store, TileFiles(self.east.home))
        with self.east.store.writing():
            self.published.recover(note)
            self.published.settle()

    def cosigned(self, size: int, *names: str) -> str:
        """East's checkpoint of a size with the lines of these."""
        note = self.east.store.checkpoint(size)
        assert note is not None
        for name in names:
            theirs = self.network[name].store.checkpoint(size)
            member = self.east.application.state.members[self.network[name].node]
            line = cosignature_of(theirs or "", member, self.network.genesis.origin)[1]
            self.east.store.add_cosignature(size, name, line)
            note += line
        return note

    def publish(self, size: int | None = None, *names: str) -> None:
        """Publish what is new; when a size is given, with its cosigned checkpoint."""
        with self.east.store.writing():
            self.published.publish()
            if size is not None:
                self.published.publish_cosigned(size, self.cosigned(size, *names))
            self.published.settle()

    @property
    def size(self) -> int:
        """The size that the checkpoint file is of."""
        return checkpoint.parse(checkpoint.split_note((self.east.home / "checkpoint").read_text())[0]).size

    def findings(self) -> list[Finding]:
        """What the member itself finds."""
        return audit_shared(self.east.home, self.network.genesis, self.east.node).findings

    def copy(self, to: Path) -> Path:
        """What a mirror has: checkpoint, tiles, bundles."""
        to.mkdir()
        shutil.copytree(self.east.home / "tile", to / "tile")
        shutil.copy(self.east.home / "checkpoint", to)
        return to

    def policy(self) -> Policy:
        """As `cairn ledger key` prints it."""
        return policy.parse(policy_text(self.east.application.state, self.network.genesis.origin).encode())

    def close(self) -> None:
        with suppress(Exception):
            self.network.close()


@pytest.fixture
def exchanged(tmp_path: Path) -> Iterator[Exchanged]:
    with closing(Exchanged(tmp_path / "members")) as made:
        yield made


def test_files_alone_show_the_quorum_by_policy_and_by_genesis(exchanged: Exchanged, tmp_path: Path) -> None:
    exchanged.publish()
    early = published.verify(exchanged.copy(tmp_path / "early"), exchanged.policy())
    assert [finding.place for finding in early.findings] == ["witnesses"]
    exchanged.publish(4, "north", "south")
    copy = exchanged.copy(tmp_path / "copy")
    found = published.verify(copy, exchanged.policy())
    assert found.findings == [] and found.accepted is not None
    assert sorted(one.witness for one in found.accepted.cosigned) == ["east", "north", "south"]
    by_genesis = published.verify_shared_copy(copy, exchanged.network.genesis)
    assert by_genesis.findings == [] and by_genesis.cosigned is not None
    assert exchanged.findings() == []


def test_where_one_member_is_the_quorum_the_newest_checkpoint_is_published_and_none_before(
    exchanged: Exchanged,
) -> None:
    exchanged.publish(4)
    exchanged.network.decide([[exchanged.network.sign("west")]])
    exchanged.publish()
    assert exchanged.size == 5 and exchanged.findings() == []
    exchanged.publish(4)
    assert exchanged.size == 5 and exchanged.findings() == []


def test_the_published_checkpoint_never_goes_back(exchanged: Exchanged, tmp_path: Path) -> None:
    exchanged.network.decide([[exchanged.network.sign("west")]])
    exchanged.publish(5, "north", "south")
    exchanged.publish(4, "north", "south")
    assert exchanged.size == 5
    exchanged.network.decide([[exchanged.network.sign("west")]])
    exchanged.publish()
    assert exchanged.size == 5  # until the quorum is there for the next
    assert exchanged.findings() == []
    assert published.verify(exchanged.copy(tmp_path / "copy"), exchanged.policy()).findings == []
    exchanged.opened()
    exchanged.publish()
    assert exchanged.size == 5
    exchanged.publish(6, "north", "west")
    assert exchanged.size == 6
    exchanged.publish(6, "north", "south", "west")
    assert len((exchanged.east.home / "checkpoint").read_text().splitlines()) == 4 + 5
    assert exchanged.findings() == []


def test_lines_in_the_file_that_nobody_gave_are_found(exchanged: Exchanged) -> None:
    exchanged.publish(4, "north", "south")
    path = exchanged.east.home / "checkpoint"
    path.write_text(path.read_text().replace("— south ", "— wouth "))
    assert [finding.place for finding in exchanged.findings()] == ["checkpoint"]


@pytest.mark.parametrize("which", ["tile/entries/000.p/4", "tile/0/000.p/4"])
def test_a_file_that_was_changed_is_named_by_who_has_the_policy(
    exchanged: Exchanged, tmp_path: Path, which: str
) -> None:
    exchanged.publish(4, "north", "south")
    copy = exchanged.copy(tmp_path / "copy")
    content = bytearray((copy / which).read_bytes())
    content[-1] ^= 1
    (copy / which).write_bytes(content)
    places = {finding.place for finding in published.verify(copy, exchanged.policy()).findings}
    assert places >= ({"entry 3"} if "entries" in which else {which})


def test_an_entry_of_a_key_that_the_policy_does_not_name_or_out_of_its_chain_is_named(
    exchanged: Exchanged, tmp_path: Path
) -> None:
    exchanged.publish(4, "north", "south")
    copy = exchanged.copy(tmp_path / "copy")
    whole = exchanged.policy()
    west = exchanged.network["west"].card.key
    fewer = Policy(tuple(log for log in whole.logs if log.key != west), whole.witnesses, whole.groups, whole.quorum)
    what = "it is signed with a key that the policy does not name"
    assert [finding.what for finding in published.verify(copy, fewer).findings] == [what]
    with closing(BlockStore(exchanged.east.home / "ledger.db", readonly=True)) as store:
        envelopes = store.envelopes(0, 4)
    twice = [*envelopes[:3], envelopes[0]]
    (copy / "tile/entries/000.p/4").write_bytes(tiles.bundle_bytes(twice))
    assert Finding("entry 3", "it does not continue its node's chain") in published.verify(copy, whole).findings
