"""The log of a node in a consortium: proofs of anybody's entries, accepted offline by the members' policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import ledger_offline
from bridge.consortium import SharedConsortium
from bridge.consortium_log import ConsortiumLog, MemberCosignatures, SharedFiles, hospitals, misconduct
from bridge.errors import ConfigError, NotFound
from bridge.index.record_leaves import RecordLeaves
from bridge.index.sqlite import SqliteDatabase
from bridge.ledger_log import LedgerFiles
from ledger import genesis as ledger_genesis
from ledger import keys, policy, proof
from ledger.engine.solo import SoloEngine
from ledger.errors import SignatureInvalid
from ledger.sealer import Sealer
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles
from tests.ledger.ledger_source import Source
from tests.ledger.shared_log import Network, witnessed


class Home:
    """East's home: its former log of three entries, and the shared one."""

    def __init__(self, folder: Path) -> None:
        self.network = Network(folder / "members", copies=2)
        self.network.join()
        self.network.decide([[self.network.sign("west")], [self.network.sign("east")]])
        for one in self.network.copies:
            one.publish()
        east = self.network["east"]
        self.home = folder / "home"
        (self.home / "consortium").mkdir(parents=True)
        (self.home / "consortium" / "ledger").symlink_to(east.home)
        self.genesis = self.home / "consortium" / "genesis.json"
        self.genesis.write_text(ledger_genesis.to_json(self.network.genesis))
        engine = SoloEngine(self.home / "ledger", east.signer, "cairn/east")
        source = Source()
        for _ in range(3):
            source.close()
        Sealer(source, engine, east.signer).step()
        engine.close()
        self.consortium = SharedConsortium(self.home, [keys.raw(east.signer.public_key())])
        self.index = SqliteDatabase(self.home / "index.db")
        leaves, origin = RecordLeaves(self.index), self.network.genesis.origin
        cosigned = MemberCosignatures(east.home / "ledger.db", origin, self.consortium)
        shared = SharedFiles(
            east.home, origin, east.signer.public_key(), leaves, lambda study, record: None, cosignatures=cosigned
        )
        shared.node = east.node
        former = LedgerFiles(
            self.home / "ledger", "cairn/east", east.signer.public_key(), leaves, lambda study, record: None
        )
        self.log = ConsortiumLog(shared, former, cosigned)

    def leaf(self, index: int) -> bytes:
        stored = self.network["east"].store.entry(index)
        assert stored is not None
        return stored.leaf

    def cosign(self, size: int) -> None:
        """Two more members cosign: with east's own, more than two thirds of four."""
        note = self.log.signed(size)
        assert note is not None
        for name in ("north", "south"):
            line = witnessed(note, self.network[name]).removeprefix(note)
            self.network["east"].store.add_cosignature(size, name, line)

    def close(self) -> None:
        for one in (self.log, self.consortium, self.index, self.network):
            one.close()


@pytest.fixture
def east(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.close()


def test_a_proof_of_any_members_entry_holds_under_the_policy_once_a_quorum_cosigned(east: Home) -> None:
    trust = policy.parse(east.log.policy().encode())
    with pytest.raises(SignatureInvalid, match="not the quorum members"):
        proof.verify_under(east.log.prove(east.leaf(4)), trust)
    east.cosign(6)
    for index in range(6):
        proved = proof.verify_under(east.log.prove(east.leaf(index)), trust)
        assert (proved.index, len(proved.cosigned)) == (index, 3)
    assert proof.verify_under(east.log.prove(east.leaf(4)), trust).entry.node == east.network["west"].node


def test_proofs_are_under_the_newest_checkpoint_that_a_quorum_cosigned(east: Home) -> None:
    east.cosign(6)
    east.network.decide([[east.network.sign("west")]])
    assert proof.parse(east.log.prove(east.leaf(0))).note.splitlines()[1] == "6"
    assert proof.parse(east.log.prove(east.leaf(6))).note.splitlines()[1] == "7"


def test_the_log_before_joining_is_proved_under_its_own_key(east: Home) -> None:
    store = LedgerStore(east.home / "ledger" / "ledger.db", readonly=True)
    former = [stored.leaf for stored in store.all_entries()]
    store.close()
    text = east.log.prove(former[1])
    assert east.log.key(former[1]).startswith("cairn/east+") and east.log.key(east.leaf(0)) == east.log.key()
    assert proof.verify(text, "cairn/east", east.network["east"].signer.public_key()).index == 1
    assert east.log.envelope(former[1])
    with pytest.raises(NotFound):
        east.log.prove(bytes(32))


def test_members_are_named_and_evidence_is_told_with_the_name(east: Home) -> None:
    name = hospitals(east.consortium)
    assert name(east.network["west"].node) == "west" and name(bytes(16)) == "00" * 16
    assert hospitals(None)(bytes(16)) == ""
    east.network.decide([[east.network.sign("east")]], lies=[east.network.lie("west", 5)])
    (wrong,) = misconduct(east.consortium)
    assert (wrong.rule, wrong.who, wrong.height) == ("double-sign", "west", 5)


def told(text: str) -> None:
    """Nothing is listened to."""


def test_an_outsider_verifies_a_copy_of_the_folder_with_the_genesis_alone(east: Home, tmp_path: Path) -> None:
    folder = east.network["east"].home
    refused = ledger_offline.verify_from_genesis(folder, east.genesis, told)
    assert not refused["valid"] and refused["step"] == "witnesses"
    east.cosign(6)
    east.network["east"].publish()
    found = ledger_offline.verify_from_genesis(folder, east.genesis, told)
    assert found["valid"] and (found["size"], found["cosigned_size"]) == (6, 6)
    assert found["members"] == ["east", "north", "south", "west"]
    assert "from its genesis on" in ledger_offline.sentences(found)


def test_an_outsider_verifies_published_files_alone_when_their_checkpoint_is_cosigned(
    east: Home, tmp_path: Path
) -> None:
    copy = tmp_path / "mirror"
    store = east.network["east"].store
    note = store.checkpoint(6)
    assert note is not None
    for name in ("north", "south"):
        note = witnessed(note, east.network[name])
    TileFiles(copy).publish(6, 0, note, store.leaves, store.envelopes)
    found = ledger_offline.verify_from_genesis(copy, east.genesis, told)
    assert found["valid"] and len(found["cosigned"]) == 3
    bundle = copy / "tile" / "entries" / "000.p" / "6"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"\x00")
    assert not ledger_offline.verify_from_genesis(copy, east.genesis, told)["valid"]


def test_a_genesis_that_is_none_is_a_matter_of_usage(east: Home, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(ConfigError, match="--genesis"):
        ledger_offline.verify_from_genesis(east.network["east"].home, tmp_path / "none.json", told)
