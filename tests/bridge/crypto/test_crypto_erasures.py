"""What the key database knows of erasures: of one that goes on everything, of one that has ended no name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.crypto.erasures import Asked, Erasures
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.crypto.unlock import Protection
from bridge.errors import Busy
from bridge.model import StudyKey

KEYS = Keystore(
    bytes(32), bytes(32), bytes(range(32)), bytes(32), bytes(32), bytes(16), bytes(16), Protection.UNPROTECTED
)
STUDY = "1.2.276.0.7230010.471142"
ASKED = Asked("system", "operator", "command", "why")
THEIRS = StudyKey(STUDY, 0, b"their study tag.", bytes(range(32)))


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Keyring]:
    found = Keyring(tmp_path / "keys.db", KEYS)
    yield found
    found.close()


@pytest.fixture
def erasures(ring: Keyring) -> Erasures:
    return Erasures(ring, bytes(range(32)))


def test_one_that_was_begun_tells_everything_until_it_has_ended(ring: Keyring, erasures: Erasures) -> None:
    own = ring.study_key(STUDY).tag
    ring.adopt(THEIRS, b"their node's id.")
    begun = erasures.begin(STUDY, ASKED, 5)
    assert begun is not None and set(begun.tags) == {own, THEIRS.tag}
    assert erasures.going_on() == [begun] and erasures.begin(STUDY, ASKED, 6) == begun
    assert erasures.erased(STUDY) == 5
    ring.delete(STUDY)
    erasures.note_roots(begun.id, [b"root"])
    erasures.stated(begun.id, own, b"e" * 32)
    assert erasures.unreleased() == []
    erasures.end(begun.id, 7)
    assert erasures.going_on() == [] and erasures.unreleased() == [(begun.id, (b"root",))]
    assert erasures.erased(STUDY) == 7 and erasures.erased(STUDY + "1") is None
    assert sorted(erasures.tags_of(STUDY)) == sorted([own, THEIRS.tag])
    assert (own, 7, b"e" * 32) in erasures.ended()
    erasures.note_roots(begun.id, [])
    assert erasures.unreleased() == []


def test_one_that_has_ended_leaves_no_name_in_any_file(ring: Keyring, erasures: Erasures, tmp_path: Path) -> None:
    ring.study_key(STUDY)
    begun = erasures.begin(STUDY, ASKED, 5)
    assert begun is not None
    assert any(STUDY.encode() in file.read_bytes() for file in tmp_path.iterdir())
    ring.delete(STUDY)
    erasures.end(begun.id, 7)
    assert not any(STUDY.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_of_a_study_of_which_no_key_was_ever_held_none_is_begun(erasures: Erasures) -> None:
    assert erasures.begin(STUDY, ASKED, 5) is None
    assert erasures.begin_again([b"a tag of nobody."], ASKED, 5) == 0 and erasures.going_on() == []


def test_while_it_goes_on_no_key_comes_and_then_a_new_one(ring: Keyring, erasures: Erasures) -> None:
    former = ring.study_key(STUDY)
    begun = erasures.begin(STUDY, ASKED, 5)
    assert begun is not None and ring.study_key(STUDY) == former  # until it is deleted
    ring.delete(STUDY)
    for make in (lambda: ring.study_key(STUDY), lambda: ring.next_generation(STUDY), lambda: ring.adopt(THEIRS, b"n")):
        with pytest.raises(Busy):
            make()
    ring.study_key("1.9")
    erasures.end(begun.id, 7)
    assert ring.study_key(STUDY).tag != former.tag


def test_a_tag_is_gone_until_its_keys_are_held_again(ring: Keyring, erasures: Erasures) -> None:
    ring.adopt(THEIRS, b"their node's id.")
    begun = erasures.begin(STUDY, ASKED, 5)
    assert begun is not None and not erasures.is_gone(THEIRS.tag)
    ring.delete(STUDY)
    assert erasures.is_gone(THEIRS.tag) and not erasures.is_gone(bytes(16))
    erasures.end(begun.id, 7)
    assert erasures.is_gone(THEIRS.tag, STUDY)
    ring.study_key(STUDY)
    assert erasures.is_gone(THEIRS.tag) and not erasures.is_gone(THEIRS.tag, STUDY)
    ring.adopt(THEIRS, b"their node's id.")
    assert not erasures.is_gone(THEIRS.tag)
    assert erasures.begin_again([THEIRS.tag], ASKED, 8) == 1
