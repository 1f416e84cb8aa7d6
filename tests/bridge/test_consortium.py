"""The Consortium port over the shared log's database, which may not be there yet and grows by another's hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.consortium import SharedConsortium, read_genesis
from bridge.control import exit_code
from bridge.errors import ConfigError, DatabaseDamaged, StorageFault
from bridge.ports import Consortium
from ledger import entry, genesis, keys, terms
from tests.contract.consortium import ConsortiumContract, State
from tests.ledger.shared_log import Network


def seen_by(network: Network, name: str, home: Path, *more: bytes) -> SharedConsortium:
    """What the node of a hospital sees; its copy of the log lies where a home has it."""
    folder = home / "consortium"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "genesis.json").write_text(genesis.to_json(network.genesis), "utf-8")
    if not (folder / "ledger").exists():
        (folder / "ledger").symlink_to(network[name].home, target_is_directory=True)
    return SharedConsortium(home, [keys.raw(network[name].signer.public_key()), *more])


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path / "copies", copies=1)
    made.join()
    yield made
    made.close()


class TestConsortium(ConsortiumContract):
    @pytest.fixture
    def consortium(self, network: Network, tmp_path: Path) -> Iterator[Consortium]:
        seen = seen_by(network, "east", tmp_path / "home")
        yield seen
        seen.close()

    @pytest.fixture
    def state(self, network: Network) -> State:
        names = list(network.hospitals)

        def state(hospital: int, type: str, body: Mapping[str, object] | None, refs: Sequence[bytes] = ()) -> bytes:
            encoded = None if body is None else terms.encode(type, body)
            envelope = network.sign(names[hospital], type, body=encoded, refs=tuple(refs))
            assert network.decide([[envelope]]) == [0]
            return entry.leaf_hash(envelope)

        return state


def test_before_the_first_block_the_genesis_is_the_state(tmp_path: Path) -> None:
    network = Network(tmp_path / "copies", copies=0)
    home = tmp_path / "home"
    (home / "consortium").mkdir(parents=True)
    (home / "consortium" / "genesis.json").write_text(genesis.to_json(network.genesis), "utf-8")
    seen = SharedConsortium(home, [keys.raw(network["north"].signer.public_key())])
    own = seen.own()
    assert own is not None and own.name == "north" and seen.height() == 0
    assert [member.name for member in seen.members()] == ["east", "north", "south", "west"]
    assert seen.entry(bytes(32)) is None and list(seen.follow(-1, ["app.start"])) == []
    assert seen.made(bytes(32), False) is None and list(seen.proposals()) == []
    seen.close()


def test_proposals_decisions_and_the_height_are_seen_as_blocks_come(network: Network, tmp_path: Path) -> None:
    seen = seen_by(network, "east", tmp_path / "home")
    propose = network.sign(
        "north", "gov.propose", body=terms.encode("gov.propose", {"do": "retire", "m": network["west"].node})
    )
    network.decide([[propose]])
    (proposal,) = seen.proposals()
    assert (proposal.name, proposal.outcome, seen.height()) == ("west", None, network.height)
    yes = terms.encode("gov.vote", {"y": True})
    network.decide([[network.sign(name, "gov.vote", body=yes, refs=(proposal.id,))] for name in ("east", "south")])
    assert [(member.name, member.active) for member in seen.members()][-1] == ("west", False)
    assert seen.proposals()[0].outcome == "accepted" and len(seen.state().active) == 3
    seen.close()


def test_what_waits_is_sealed_but_not_final(network: Network, tmp_path: Path) -> None:
    seen = seen_by(network, "east", tmp_path / "home")
    envelope = network.sign("east", root=b"r" * 32)
    network["east"].wait(envelope)
    assert seen.made(b"r" * 32, True) is None and seen.made(b"r" * 32, False) == entry.leaf_hash(envelope)
    network.decide([[envelope]])
    assert seen.made(b"r" * 32, True) == entry.leaf_hash(envelope)
    seen.close()


def test_a_root_that_another_member_copied_is_not_this_nodes_entry(network: Network, tmp_path: Path) -> None:
    seen = seen_by(network, "east", tmp_path / "home")
    copied = network.sign("north", root=b"r" * 32)
    network.decide([[copied]])
    assert seen.made(b"r" * 32, False) is None
    own = network.sign("east", root=b"r" * 32)
    network.decide([[own]])
    assert seen.made(b"r" * 32, True) == entry.leaf_hash(own)
    seen.close()


def test_a_node_knows_itself_by_the_key_that_is_to_follow(network: Network, tmp_path: Path) -> None:
    stranger = keys.raw(Ed25519PrivateKey.generate().public_key())
    seen = SharedConsortium(seen_home(network, tmp_path), [stranger])
    assert seen.own() is None and seen.made(bytes(32), False) is None
    seen.close()
    both = seen_by(network, "south", tmp_path / "home")
    own = both.own()
    assert own is not None and own.name == "south"
    both.close()


def seen_home(network: Network, tmp_path: Path) -> Path:
    seen_by(network, "east", tmp_path / "home").close()
    return tmp_path / "home"


def test_a_log_that_cannot_be_read_is_a_fault_and_read_again_when_it_can(network: Network, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "consortium" / "ledger").mkdir(parents=True)
    database = home / "consortium" / "ledger" / "ledger.db"
    database.write_bytes(b"not a database" * 100)
    (home / "consortium" / "genesis.json").write_text(genesis.to_json(network.genesis), "utf-8")
    seen = SharedConsortium(home, [keys.raw(network["east"].signer.public_key())])
    for asked in (seen.members, seen.proposals, lambda: seen.entry(bytes(32)), lambda: seen.follow(-1, ["app.start"])):
        with pytest.raises(StorageFault, match=r"ledger\.db"):
            asked()
    database.unlink()
    source, target = sqlite3.connect(network["east"].home / "ledger.db"), sqlite3.connect(database)
    source.backup(target)
    source.close()
    target.close()
    assert len(seen.members()) == 4 and len(seen.follow(-1, ["ledger.join"])) == 4
    seen.close()


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", "\udcff"])
def test_a_home_without_a_genesis_is_in_no_consortium(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "consortium").mkdir()
    if text is not None:
        (tmp_path / "consortium" / "genesis.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError):
        read_genesis(tmp_path)


def test_a_flip_in_the_header_of_the_shared_logs_file_is_damage_which_ends_a_command_with_3(
    network: Network, tmp_path: Path
) -> None:
    """SQLite's header is of 100 bytes; some of them say nothing about what is in the file."""
    network["east"].publish()
    seen_by(network, "east", tmp_path / "home").close()
    file = network["east"].home / "ledger.db"
    network.close()
    kept, damaged = file.read_bytes(), set()
    for at in range(104):
        file.write_bytes(kept[:at] + bytes([kept[at] ^ 0x40]) + kept[at + 1 :])
        seen = seen_by(network, "east", tmp_path / "home")
        try:
            assert seen.own() is not None
        except StorageFault as fault:
            assert isinstance(fault, DatabaseDamaged) and exit_code(fault) == 3, (at, fault.detail)
            assert "ledger.db" in fault.detail
            damaged.add(at)
        finally:
            seen.close()
    assert {*range(18), 60, 63, 68, 71, 100} <= damaged
    file.write_bytes(kept)
    seen = seen_by(network, "east", tmp_path / "home")
    assert seen.own() is not None
    seen.close()
