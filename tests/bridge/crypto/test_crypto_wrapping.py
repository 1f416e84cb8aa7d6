"""The key-encryption key is replaced: keys open as before, for whoever has them open too, and none by the former."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bridge import crash
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Cost, Keystore, open_keystore
from bridge.crypto.next_key import adopt_next, make_next, read_next
from bridge.crypto.wrapping import candidates, finish_replacing, replace_key
from bridge.errors import ConfigError, StorageFault

CHEAP = Cost(64, 1, 1)
STUDIES = [f"1.2.{number}" for number in range(20)]


def keystore(home: Path) -> Keystore:
    return open_keystore(home, None, {}, CHEAP)


def ring_of(home: Path, opened: Keystore | None = None) -> Keyring:
    newer = partial(candidates, home, None, {})
    return Keyring(home / "keys" / "keys.db", opened or keystore(home), newer)


def replaced(home: Path) -> int:
    return replace_key(home, None, {}, CHEAP)


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Keyring]:
    found = ring_of(tmp_path)
    yield found
    found.close()


def test_every_key_opens_as_before_also_for_who_had_them_open(ring: Keyring, tmp_path: Path) -> None:
    keys = [ring.study_key(study) for study in STUDIES]
    other = ring_of(tmp_path)
    assert other.study_key(STUDIES[0]) == keys[0]
    assert replaced(tmp_path) == len(keys)
    for each in (ring, other):
        assert [each.study_key(study) for study in STUDIES] == keys
        assert [each.open(key.tag, 0) for key in keys] == keys
        assert [each.held(key.study) for key in keys] == [[key] for key in keys]
    assert replaced(tmp_path) == len(keys)
    assert other.held(STUDIES[1]) == [keys[1]]
    other.close()
    with closing(ring_of(tmp_path)) as again:
        assert [again.study_key(study) for study in STUDIES] == keys


def test_a_key_made_by_who_has_the_former_open_is_wrapped_under_the_new_one(ring: Keyring, tmp_path: Path) -> None:
    ring.study_key(STUDIES[0])
    replaced(tmp_path)
    made = ring.study_key("1.9")
    with closing(ring_of(tmp_path)) as again:
        assert again.study_key("1.9") == made


def test_only_the_key_that_wraps_is_another_and_the_former_opens_nothing(ring: Keyring, tmp_path: Path) -> None:
    before = keystore(tmp_path)
    ring.study_key(STUDIES[0])
    replaced(tmp_path)
    after = keystore(tmp_path)
    assert after.key_encryption_key != before.key_encryption_key
    assert replace(after, key_encryption_key=before.key_encryption_key) == before
    with pytest.raises(StorageFault, match="another key-encryption key"):
        Keyring(tmp_path / "keys" / "keys.db", before)


def test_the_former_keystores_bytes_are_overwritten(ring: Keyring, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keystore.json"
    with path.open("rb") as former:
        assert b"sealed" in former.read()
        replaced(tmp_path)
        former.seek(0)
        assert set(former.read()) == {0}
    assert b"sealed" in path.read_bytes() and path.stat().st_mode & 0o777 == 0o600


def test_the_ledger_key_that_is_to_follow_keeps_the_key_that_wraps(ring: Keyring, tmp_path: Path) -> None:
    """Else it would bring back, with the next start, one that opens nothing."""
    key = ring.study_key(STUDIES[0])
    seed = make_next(tmp_path, None, {}, CHEAP)
    replaced(tmp_path)
    assert read_next(tmp_path, None, {}) == seed
    adopt_next(tmp_path)
    with closing(ring_of(tmp_path)) as again:
        assert again.study_key(STUDIES[0]) == key
    assert keystore(tmp_path).signing_seed == seed


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_at_a_step_it_is_ended_or_undone_and_no_key_is_lost(tmp_path: Path, number: int) -> None:
    with closing(ring_of(tmp_path)) as ring:
        keys = [ring.study_key(study) for study in STUDIES]
    make_next(tmp_path, None, {}, CHEAP)
    before = keystore(tmp_path)
    child = os.fork()
    if not child:
        try:
            crash._name, crash._left = f"replace_key.{number}", 1
            replaced(tmp_path)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with closing(ring_of(tmp_path)) as found:  # before anybody has ended it
        assert [found.study_key(study) for study in STUDIES] == keys
    finish_replacing(tmp_path, None, {}, CHEAP)
    assert not (tmp_path / "keys" / "replacing.json").exists()
    assert (keystore(tmp_path).key_encryption_key == before.key_encryption_key) is (number == 1)
    adopt_next(tmp_path)
    with closing(ring_of(tmp_path)) as again:
        assert [again.study_key(study) for study in STUDIES] == keys
    assert replaced(tmp_path) == len(keys)


def test_a_key_that_does_not_unwrap_leaves_all_as_it_was(ring: Keyring, tmp_path: Path) -> None:
    key = ring.study_key(STUDIES[0])
    damaged = ring.study_key(STUDIES[1])
    with ring.database.write():
        ring.database.connection.execute("UPDATE study_key SET wrapped = zeroblob(60) WHERE tag = ?", (damaged.tag,))
    before = keystore(tmp_path)
    with pytest.raises(StorageFault, match="unwrap"):
        replaced(tmp_path)
    assert keystore(tmp_path) == before
    with closing(ring_of(tmp_path)) as again:
        assert again.study_key(STUDIES[0]) == key


def test_without_the_passphrase_nothing_is_begun(ring: Keyring, tmp_path: Path) -> None:
    ring.study_key(STUDIES[0])
    (tmp_path / "keys" / "unlock").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        replaced(tmp_path)
    assert not (tmp_path / "keys" / "replacing.json").exists()
