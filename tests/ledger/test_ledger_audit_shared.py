"""A shared log is audited with its genesis alone: what anybody changed, forged or reordered is found and named."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from shared_log import Hospital, Network, seed_of

from ledger import block, entry, keys, members, run_reader, terms
from ledger.audit_shared import SharedReport, audit_shared
from ledger.block_store import BlockStore
from ledger.entry import leaf_hash
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.replay import Replay, SharedTrust
from ledger.verify_shared import SharedLogCheck, verify_shared


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Four members: entries, a vote that gives one a new key, evidence, a grant and its revocation."""
    network = Network(tmp_path_factory.mktemp("story"), copies=2)
    network.join()
    network.decide([[network.sign("east"), network.sign("east")], [network.sign("west")]])
    rotated = Ed25519PrivateKey.from_private_bytes(seed_of("south", "second"))
    south = network["south"]
    card = south.card_of(rotated, south.cosigner).signed
    proposal = network.sign(
        "south", "gov.propose", body=terms.encode("gov.propose", {"do": "rotate", "m": south.node, "c": card})
    )
    yes = terms.encode("gov.vote", {"y": True})
    ref = (leaf_hash(proposal),)
    votes = [[network.sign(name, "gov.vote", body=yes, refs=ref)] for name in ("east", "north")]
    assert network.decide([[proposal]]) == [0]
    assert network.decide(votes, lies=[network.lie("west")]) == [0, 0]
    south.signer = rotated
    grant = network.sign(
        "south", "consent.grant", study=bytes(16), body=terms.encode("consent.grant", {"to": network["north"].node})
    )
    assert network.decide([[grant], [network.sign("north")]]) == [0, 0]
    revoke = network.sign("south", "consent.revoke", study=bytes(16), refs=(leaf_hash(grant),))
    assert network.decide([[revoke]], lies=[network.lie("west", 2), network.lie("east", 3)]) == [0]
    assert network.decide([[network.sign("east", at_s=9)], [network.sign("south")]]) == [0, 0]
    for one in network.copies:
        one.publish()
    network.close()
    return network


@pytest.fixture
def home(story: Network, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(story["east"].home, tmp_path / "ledger")


def find(story: Network, home: Path, own: bool = True) -> SharedReport:
    return audit_shared(home, story.genesis, story["east"].node if own else None)


def told(report: SharedReport) -> list[str]:
    return [str(found) for found in report.findings]


def test_an_untouched_copy_has_no_findings_for_its_member_nor_for_an_outsider(story: Network, home: Path) -> None:
    for own in (True, False):
        report = find(story, home, own)
        assert report.findings == []
        assert report.entries == 15 and report.waiting == 0
        assert report.state is not None and len(report.state.evidence) == 3


def test_another_members_copy_holds_the_same_blocks_under_its_own_signature(story: Network) -> None:
    assert audit_shared(story["north"].home, story.genesis, story["north"].node).findings == []
    swapped = audit_shared(story["north"].home, story.genesis, story["east"].node).findings
    assert {found.place.partition(" ")[0] for found in swapped} == {"checkpoint"}


def test_another_genesis_knows_none_of_the_members(story: Network, home: Path, tmp_path: Path) -> None:
    other = Network(tmp_path / "other", ("a", "b"), copies=0)
    findings = audit_shared(home, other.genesis).findings
    assert Finding("entry 0", "it is of a node that was no member then") in findings


def rewrite(home: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as database:
        assert database.execute(sql, values).rowcount > 0


def of_blocks(report: SharedReport) -> list[str]:
    """What was found but for the pages, which any write changes."""
    return [text for text in told(report) if not text.startswith("ledger.db")]


def test_a_forged_entry_is_found_with_the_block_that_it_is_in(story: Network, home: Path) -> None:
    with closing(BlockStore(home / "ledger.db", readonly=True)) as store:
        stored = store.entry(5)
    assert stored is not None
    said = entry.read(stored.envelope)
    forged = entry.sign(entry.encode(said), Ed25519PrivateKey.from_private_bytes(seed_of("nobody")))
    rewrite(home, "UPDATE entries SET envelope = ?, leaf = ? WHERE idx = 5", forged, leaf_hash(forged))
    found = of_blocks(find(story, home))
    assert "entry 5: it is signed with a key that was not its member's then" in found
    assert "block 2: its root is not that of the entries" in found


def test_a_former_key_signs_nothing_after_its_successor(story: Network) -> None:
    with closing(BlockStore(story["east"].home / "ledger.db", readonly=True)) as store:
        envelopes = [stored.envelope for stored in store.all_entries()]
    south = story["south"].node
    last = max(at for at, envelope in enumerate(envelopes) if entry.read(envelope).node == south)
    old = Ed25519PrivateKey.from_private_bytes(seed_of("south"))
    envelopes[last] = entry.sign(entry.encode(entry.read(envelopes[last])), old)
    report, _ = verify_shared(envelopes, [], SharedTrust(story.genesis))
    assert Finding(f"entry {last}", "it is signed with a key that was not its member's then") in report.findings


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("hash", bytes(32), "its hash is not that of its record"),
        ("time", 5_000_000, "it is stored under another height, time or entries than its record says"),
        ("size", 4, "it is stored under another height, time or entries than its record says"),
    ],
)
def test_a_changed_column_of_a_block_is_found(
    story: Network, home: Path, column: str, value: object, words: str
) -> None:
    rewrite(home, f"UPDATE block SET {column} = ? WHERE height = 2", value)
    assert f"block 2: {words}" in of_blocks(find(story, home))


def test_a_block_that_is_gone_breaks_the_chain_of_records(story: Network, home: Path) -> None:
    rewrite(home, "DELETE FROM block WHERE height = 3")
    assert "block 4: it does not continue the block before it" in of_blocks(find(story, home))


def test_a_record_with_another_state_is_found_once(story: Network, home: Path) -> None:
    with closing(BlockStore(home / "ledger.db", readonly=True)) as store:
        row = store.blocks()[2]
    lied = block.encode(block.decode(row.record)._replace(state=bytes(32)))
    rewrite(home, "UPDATE block SET record = ?, hash = ? WHERE height = 3", lied, block.app_hash(lied))
    found = of_blocks(find(story, home))
    assert found[:2] == [
        "block 3: the state after it is another than its entries give",
        "block 4: it does not continue the block before it",
    ]


def test_evidence_that_was_taken_away_is_missed_in_the_state(story: Network, home: Path) -> None:
    rewrite(home, "DELETE FROM evidence WHERE id = 1")
    assert "block 4: the state after it is another than its entries give" in of_blocks(find(story, home))


def test_the_state_must_be_that_of_the_entries(story: Network, home: Path) -> None:
    other = members.rows(members.initial(story.genesis))["mb", story["east"].node]
    rewrite(home, "UPDATE state_row SET row = ? WHERE kind = 'mb' AND key = ?", other, story["west"].node)
    assert of_blocks(find(story, home)) == ["consensus state: it is not what the entries lead to"]


def test_hashes_alone_find_what_the_tree_shows(story: Network, home: Path) -> None:
    assert audit_shared(home, story.genesis, story["east"].node, signatures=False).findings == []
    rewrite(home, "UPDATE entries SET envelope = x'00' WHERE idx = 5")
    found = told(audit_shared(home, story.genesis, story["east"].node, signatures=False))
    assert any(text.startswith("checkpoint") for text in found)


def test_a_copy_without_blocks_is_verified_from_the_genesis_too(story: Network) -> None:
    with closing(BlockStore(story["east"].home / "ledger.db", readonly=True)) as store:
        envelopes = [stored.envelope for stored in store.all_entries()]
        notes = [*store.checkpoints()]
    report, state = verify_shared(envelopes, notes, SharedTrust(story.genesis))
    assert report.findings == [] and len(state.members) == 4
    swapped = [*envelopes[:4], envelopes[5], envelopes[4], *envelopes[6:]]
    report, _ = verify_shared(swapped, [], SharedTrust(story.genesis))
    assert Finding("entry 4", "sequence 2, where 1 comes next") in report.findings


def test_only_who_granted_may_revoke(tmp_path: Path) -> None:
    network = Network(tmp_path, copies=1)
    network.join()
    with closing(network["east"].store) as store:
        joins = [stored.envelope for stored in store.all_entries()]
    grant = network.sign(
        "south", "consent.grant", study=bytes(16), body=terms.encode("consent.grant", {"to": network["north"].node})
    )
    forged = network.sign("west", "consent.revoke", study=bytes(16), refs=(leaf_hash(grant),))
    report, _ = verify_shared([*joins, grant, forged], [], SharedTrust(network.genesis))
    assert Finding("entry 5", "consent.revoke of what another member granted") in report.findings


@pytest.fixture
def east(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path, copies=1)
    network.join()
    yield network
    network.close()


def test_what_waits_in_the_outbox_is_pending_and_continues_the_chain(east: Network) -> None:
    one = east["east"]
    for _ in range(3):
        one.wait(east.sign("east"))
    one.publish()
    report = audit_shared(one.home, east.genesis, one.node)
    assert (report.findings, report.waiting, report.entries) == ([], 3, 4)


def test_an_outbox_that_does_not_continue_the_chain_is_found(east: Network) -> None:
    one = east["east"]
    east.sign("east")  # lost
    one.wait(east.sign("east"))
    one.publish()
    (found,) = audit_shared(one.home, east.genesis, one.node).findings
    assert found == Finding("outbox 0", "it does not continue this member's chain")


class Newcomer:
    """A hospital that follows a consortium which has not accepted it yet: all it holds is signed with its own key."""

    def __init__(self, home: Path) -> None:
        self.network = Network(home, copies=1)
        self.hospital = Hospital("new")
        self.hospital.open(home / "new", self.network.genesis)
        self.network.copies.append(self.hospital)
        self.network.join()
        self.network.decide([[self.network.sign("west")]])
        self.hospital.wait(self.hospital.sign(self.network.ledger))

    def enroll(self) -> None:
        network = self.network
        body = {"do": "enroll", "c": self.hospital.card.signed}
        proposal = network.sign("north", "gov.propose", body=terms.encode("gov.propose", body))
        yes, ref = terms.encode("gov.vote", {"y": True}), (leaf_hash(proposal),)
        votes = [[network.sign(name, "gov.vote", body=yes, refs=ref)] for name in ("east", "west")]
        assert network.decide([[proposal]]) == [0] and network.decide(votes) == [0, 0]

    def audit(self, signer: str | None, **given: Any) -> SharedReport:
        """As by who holds the key of that name."""
        key = Ed25519PrivateKey.from_private_bytes(seed_of(signer)) if signer is not None else None
        raw = None if key is None else keys.raw(key.public_key())
        self.hospital.publish()
        home, own = self.hospital.home, self.hospital.node
        return audit_shared(home, self.network.genesis, own, raw, run=2, processes=1, **given)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    one = Newcomer(tmp_path)
    yield one
    one.network.close()


@pytest.mark.parametrize("signatures", [True, False])
def test_a_newcomers_own_key_counts_before_the_log_has_it(newcomer: Newcomer, signatures: bool) -> None:
    report = newcomer.audit("new", signatures=signatures)
    assert (report.findings, report.entries) == ([], 5)
    newcomer.enroll()
    assert newcomer.audit("new", signatures=signatures).findings == []


@pytest.mark.parametrize("holder", ["east", "nobody", None])
def test_for_a_newcomers_copy_no_other_key_counts_than_its_own(newcomer: Newcomer, holder: str | None) -> None:
    places = {found.place for found in newcomer.audit(holder).findings}
    assert "checkpoint 5" in places and ("outbox 0" in places) == (holder is not None)


def test_a_members_checkpoint_is_none_of_a_newcomers_copy(newcomer: Newcomer) -> None:
    """Without a key in the state, those of all members used to count."""
    notes = newcomer.network["east"].store
    newcomer.hospital.publish()
    for size in (4, 5):
        rewrite(newcomer.hospital.home, "UPDATE checkpoints SET note = ? WHERE size = ?", notes.checkpoint(size), size)
    found = newcomer.audit("new").findings
    assert {"checkpoint 4", "checkpoint 5"} <= {one.place for one in found}
    newcomer.enroll()
    assert {"checkpoint 4", "checkpoint 5"} <= {one.place for one in newcomer.audit("new").findings}


def test_a_member_that_retired_itself_ends_its_transaction_and_says_no_more(tmp_path: Path) -> None:
    network = Network(tmp_path, copies=1)
    network.join()
    west = network["west"].node
    proposal = network.sign("north", "gov.propose", body=terms.encode("gov.propose", {"do": "retire", "m": west}))
    ref, yes = (leaf_hash(proposal),), terms.encode("gov.vote", {"y": True})
    assert network.decide([[proposal]]) == [0]
    assert network.decide([[network.sign("east", "gov.vote", body=yes, refs=ref)]]) == [0]
    last = [network.sign("west", "gov.vote", body=yes, refs=ref), network.sign("west")]
    assert network.decide([last]) == [0]
    network["east"].publish()
    network.close()
    assert audit_shared(network["east"].home, network.genesis).findings == []


def test_bytes_that_are_no_entry_are_told_and_passed_over(story: Network) -> None:
    replay = Replay(SharedTrust(story.genesis))
    said, faults = replay.open(b"\x00")
    assert said is None and len(faults) == 1
    with pytest.raises(LedgerError):
        replay.head("no note")


COLUMNS = st.sampled_from(["leaf", "envelope", "type", "study", "time", "root", "epoch", "batch", "seq", "node"])
PLACES, HEIGHTS, BYTES = st.integers(0, 14), st.integers(0, 8), st.integers(0, 255)
DAMAGE = st.one_of(
    st.builds("UPDATE OR IGNORE entries SET {} = zeroblob({}) WHERE idx = {}".format, COLUMNS, PLACES, PLACES),
    st.builds("UPDATE OR IGNORE entries SET idx = {} WHERE idx = {}".format, st.integers(-5, 20), PLACES),
    st.builds("DELETE FROM entries WHERE idx = {}".format, PLACES),
    st.builds("UPDATE checkpoints SET note = replace(note, 'a', 'b') WHERE size = {}".format, PLACES),
    st.builds("DELETE FROM checkpoints WHERE size = {}".format, PLACES),
    st.builds("UPDATE block SET size = size - 1, first = first - 1 WHERE height = {}".format, HEIGHTS),
    st.builds("UPDATE block SET record = zeroblob(9) WHERE height = {}".format, HEIGHTS),
    st.builds("DELETE FROM block WHERE height = {}".format, HEIGHTS),
    st.builds("DELETE FROM evidence WHERE height = {}".format, HEIGHTS),
    st.builds("UPDATE state_row SET row = zeroblob(3) WHERE kind = '{}'".format, st.sampled_from(["mb", "ch", "pp"])),
    st.builds("UPDATE state_row SET row = replace(row, x'{:02x}', x'{:02x}') WHERE kind = 'mb'".format, BYTES, BYTES),
)


def find_in_runs(story: Network, home: Path, run: int, own: bool, **given: Any) -> tuple[list[Finding], list[int]]:
    """The findings, and the progress that was told."""
    seen: list[int] = []
    node = story["east"].node if own else None
    report = audit_shared(
        home, story.genesis, node, progress=lambda done, total: seen.append(done), run=run, **{"processes": 1, **given}
    )
    return report.findings, seen


@hypothesis.given(st.lists(DAMAGE, max_size=3), st.booleans(), st.booleans())
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_what_is_found_does_not_depend_on_how_many_entries_are_read_at_a_time(
    story: Network, monkeypatch: pytest.MonkeyPatch, changes: list[str], own: bool, signatures: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = shutil.copytree(story["east"].home, Path(folder) / "ledger")
        with closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as database:
            for change in changes:
                database.execute(change)
        with monkeypatch.context() as patched:
            patched.setattr(run_reader.Reader, "read", lambda *run: None)  # entry by entry
            alone = find_in_runs(story, home, 2048, own, signatures=signatures)
        assert changes or alone == ([], list(range(1, 16)))
        for run in (1, 2, 4, 8, 64):
            assert find_in_runs(story, home, run, own, signatures=signatures) == alone


def test_processes_of_their_own_find_the_same(story: Network, home: Path) -> None:
    assert find_in_runs(story, home, 4, True, processes=2) == ([], list(range(1, 16)))
    rewrite(home, "UPDATE entries SET time = 0 WHERE idx IN (2, 9)")
    alone = find_in_runs(story, home, 2048, True)
    assert {found.place for found in alone[0]} >= {"entry 2", "entry 9"}
    assert find_in_runs(story, home, 4, True, processes=2) == alone


def test_a_sound_log_is_read_in_runs_alone(story: Network, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry is looked at by itself, but where a member's new key is used for the first time."""
    opened = []
    monkeypatch.setattr(SharedLogCheck, "opened", lambda self, index, envelope: opened.append(index))
    assert find_in_runs(story, home, 2048, False)[0] == [] and opened == []
