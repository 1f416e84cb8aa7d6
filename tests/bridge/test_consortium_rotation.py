"""A ledger key that is to follow: sealed beside the one in use, and in use only once the members have accepted it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge import config, consortium_rotation
from bridge import consortium_setup as setup
from bridge.consortium import SharedConsortium
from bridge.crypto.keystore import Cost, Keystore, open_keystore
from bridge.crypto.next_key import adopt_next, make_next, read_next
from bridge.errors import ConfigError
from ledger import keys
from ledger.genesis import Genesis
from ledger.members import MemberKey, State
from tests.ledger.ledger_hospitals import Hospital, Ledger

CHEAP = Cost(64, 1, 1)


def public(seed: bytes) -> bytes:
    return keys.raw(Ed25519PrivateKey.from_private_bytes(seed).public_key())


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return open_keystore(tmp_path, None, {}, CHEAP)


def test_the_key_that_follows_is_made_once_sealed_and_private(tmp_path: Path, keystore: Keystore) -> None:
    assert read_next(tmp_path, None, {}) is None
    seed = make_next(tmp_path, None, {}, CHEAP)
    assert seed == make_next(tmp_path, None, {}, CHEAP) == read_next(tmp_path, None, {})
    assert seed != keystore.signing_seed
    path = tmp_path / "keys" / "next.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not {text for text in (seed, seed.hex().encode()) if text in path.read_bytes()}


def test_taking_it_into_use_changes_the_signing_key_alone(tmp_path: Path, keystore: Keystore) -> None:
    seed = make_next(tmp_path, None, {}, CHEAP)
    adopt_next(tmp_path)
    after = open_keystore(tmp_path, None, {}, CHEAP)
    assert after.signing_seed == seed and read_next(tmp_path, None, {}) is None
    for name in ("agreement_seed", "key_encryption_key", "actor_tag_key", "audit_key", "node_id", "ledger_id"):
        assert getattr(after, name) == getattr(keystore, name)
    with pytest.raises(ConfigError):
        adopt_next(tmp_path)


def test_without_the_passphrase_it_is_neither_made_nor_read(tmp_path: Path, keystore: Keystore) -> None:
    make_next(tmp_path, None, {}, CHEAP)
    (tmp_path / "keys" / "unlock").unlink()
    for use in (lambda: read_next(tmp_path, None, {}), lambda: make_next(tmp_path, None, {}, CHEAP)):
        with pytest.raises(ConfigError):
            use()


@pytest.fixture
def founded(tmp_path: Path, keystore: Keystore) -> Genesis:
    """A consortium of this home and another hospital."""
    settings = config.load(None, {"CAIRN_HOME": str(tmp_path)})[0]
    card = setup.make_card(settings, keystore, setup.place_of(settings, "h0"))
    genesis = setup.found("north", 1, [card, Hospital("h1").card()])
    setup.join(settings, genesis)
    return genesis


def test_it_is_in_use_from_the_first_start_after_it_was_accepted(
    tmp_path: Path, keystore: Keystore, founded: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load(None, {"CAIRN_HOME": str(tmp_path)})[0]
    ledger = Ledger(founded)
    monkeypatch.setattr(SharedConsortium, "state", _of(ledger))
    assert consortium_rotation.open_keys(settings).signing_seed == keystore.signing_seed
    seed = make_next(tmp_path, None, {}, CHEAP)
    card = setup.make_card(settings, keystore, setup.place_of(settings, "h0"), seed)
    assert card.key == public(seed) and card.consensus == founded.cards[0].consensus
    assert consortium_rotation.open_keys(settings).signing_seed == keystore.signing_seed  # not accepted yet

    ledger.state = _accepted(ledger.state, card.node, founded.cards[0].node, public(seed))
    assert consortium_rotation.accepted(settings, keystore)
    after = consortium_rotation.open_keys(settings)
    assert after.signing_seed == seed and not consortium_rotation.accepted(settings, after)
    assert consortium_rotation.open_keys(settings).signing_seed == seed


def test_a_home_in_no_consortium_keeps_its_key(tmp_path: Path, keystore: Keystore) -> None:
    settings = config.load(None, {"CAIRN_HOME": str(tmp_path)})[0]
    make_next(tmp_path, None, {}, CHEAP)
    assert consortium_rotation.open_keys(settings).signing_seed == keystore.signing_seed


def _of(ledger: Ledger) -> Callable[[SharedConsortium], State]:
    return lambda consortium: ledger.state


def _accepted(state: State, new: bytes, node: bytes, key: bytes) -> State:
    """The state after the members have accepted this key of a member."""
    assert new != node
    member = state.members[node]
    return state.with_members(replace(member, keys=(*member.keys, MemberKey(key, None))))
