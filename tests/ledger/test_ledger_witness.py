"""A witness (C2SP tlog-witness v1.0): each status of add-checkpoint, what it keeps, what two requests at once do."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_source import KEY, ORIGIN, START, octets

from ledger import checkpoint, cosignature, keys, merkle, witness
from ledger.checkpoint import Checkpoint, Verifier
from ledger.errors import CodecError, LedgerError
from ledger.witness import SIZE, TEXT, Answer, Submission
from ledger.witness_store import MOST_CONFLICTS, MOST_LINES, WitnessStore

LOG = Verifier(ORIGIN, keys.raw(KEY.public_key()))
OWN = Ed25519PrivateKey.from_private_bytes(octets("the witness", 32))
NAME = "witness.example/w1"
WITNESS = cosignature.cosigner(NAME, OWN.public_key())
LEAVES = [octets(f"leaf {number}", 32) for number in range(300)]


class Tree(NamedTuple):
    """A log's tree, and what it submits of it."""

    leaves: Sequence[bytes]

    def head(self, size: int) -> Checkpoint:
        return Checkpoint(ORIGIN, size, merkle.root(self.leaves[:size]))

    def note(self, size: int, signer: keys.Signer = KEY) -> str:
        return checkpoint.sign_note(self.head(size).body(), ORIGIN, signer)

    def submission(self, old: int, size: int) -> Submission:
        proof = merkle.consistency_proof(old, size, merkle.node_reader(self.leaves[:size]))
        return Submission(old, tuple(proof), self.note(size))


TREE = Tree(LEAVES)
OTHER = Tree([*LEAVES[:4], octets("another", 32), *LEAVES[5:]])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WitnessStore]:
    with closing(WitnessStore(tmp_path / "witness.db")) as opened:
        yield opened


def add(store: WitnessStore, submission: Submission | bytes, *, owned: bool = True, now_us: int = START) -> Answer:
    body = submission if isinstance(submission, bytes) else submission.encode()
    return store.add_checkpoint(body, [LOG], NAME, OWN, now_us, owned)[0]


def test_a_checkpoint_that_continues_the_last_one_is_cosigned_and_remembered(store: WitnessStore) -> None:
    for old, size in ((0, 3), (3, 4), (4, 300), (300, 300)):
        answer = add(store, TREE.submission(old, size))
        assert (answer.status, answer.type) == (200, TEXT)
        text, signatures = checkpoint.split_note(TREE.note(size) + answer.body)
        assert cosignature.cosigned(text, signatures, WITNESS) == START // 1_000_000
        assert checkpoint.verify(TREE.note(size) + answer.body, ORIGIN, KEY.public_key()).size == size
        ((head, note, time_us),) = store.cosigned()
        assert (head, note, time_us) == (TREE.head(size), TREE.note(size), START)
    assert store.conflicts() == []


def test_the_example_of_the_specification_is_read() -> None:
    hashes = [octets(f"hash {number}", 32) for number in range(4)]
    submission = Submission(20852014, tuple(hashes), TREE.note(5))
    assert witness.parse(submission.encode()) == submission
    assert submission.encode().startswith(b"old 20852014\n")


def test_what_is_no_request_is_answered_400(store: WitnessStore) -> None:
    good = TREE.submission(0, 5).encode()
    hash_line = b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
    for body in (
        b"",
        b"old 0\n",
        good.replace(b"old 0", b"old 00"),
        good.replace(b"old 0", b"old -1"),
        good.replace(b"old 0", b"old"),
        good.replace(b"old 0", b"new 0"),
        good.replace(b"old 0\n", b"old 0\n" + hash_line * 64),
        good.replace(b"old 0\n", b"old 0\nAAAA\n"),
        good.replace(b"old 0\n", b"old 0\nnot base64\n"),
        good.replace(b"old 0\n\n", b"old 0\n"),
        good[:-1],
        good.replace(b"\n5\n", b"\n05\n"),
        good.replace(b"\n5\n", b"\n9223372036854775808\n"),
        b"\xff" + good,
        good + b" " * witness.MAX_REQUEST,
        TREE.submission(0, 5)._replace(old=6).encode(),  # the old size is beyond the checkpoint's
    ):
        assert add(store, body).status == 400
    assert store.cosigned() == []


def test_a_log_that_is_not_known_is_answered_404(store: WitnessStore) -> None:
    other = Checkpoint("other.example/log", 1, LEAVES[0])
    note = checkpoint.sign_note(other.body(), other.origin, KEY)
    assert add(store, Submission(0, (), note)).status == 404


def test_a_checkpoint_that_the_logs_key_has_not_signed_is_answered_403(store: WitnessStore) -> None:
    for note in (
        TREE.note(5, OWN),
        TREE.note(5, OWN).replace(checkpoint.vkey(ORIGIN, OWN.public_key()), ORIGIN),
        TREE.head(5).body() + "\n" + checkpoint.signature_line(LOG, bytes(64)),
        TREE.note(5) + checkpoint.signature_line(LOG, bytes(64)),
    ):
        assert add(store, Submission(0, (), note)).status == 403
    text = TREE.head(5).body()
    both = checkpoint.sign_note(text, ORIGIN, KEY) + checkpoint.signature_line(WITNESS._replace(name="x"), bytes(72))
    assert add(store, Submission(0, (), both)).status == 200  # lines of unknown keys are passed over


def test_another_old_size_than_the_one_cosigned_last_is_answered_409_with_that(store: WitnessStore) -> None:
    for old in (1, 5):
        assert add(store, TREE.submission(old, 5)) == Answer(409, SIZE, "0\n")
    add(store, TREE.submission(0, 5))
    for old, size in ((0, 5), (0, 9), (4, 9), (2, 4)):
        answer = add(store, TREE.submission(old, size))
        assert answer == Answer(409, SIZE, "5\n")
        assert witness.cosigned_size(answer) == 5
    assert store.conflicts() == []


def test_two_trees_of_one_size_are_answered_409_and_both_notes_are_kept(store: WitnessStore) -> None:
    add(store, TREE.submission(0, 5))
    for _ in range(2):
        answer = add(store, Submission(5, (), OTHER.note(5)), owned=False)
        assert answer == Answer(409, SIZE, "5\n")
    (conflict,) = store.conflicts()
    assert (conflict.origin, conflict.witness, conflict.size, conflict.root) == (ORIGIN, "", 5, OTHER.head(5).root)
    assert (conflict.note, conflict.kept) == (OTHER.note(5), TREE.note(5))


def test_a_tree_that_does_not_continue_the_last_is_answered_422_and_kept_when_it_comes_from_its_owner(
    store: WitnessStore,
) -> None:
    add(store, TREE.submission(0, 5))
    rewritten = OTHER.submission(5, 9)
    assert add(store, rewritten, owned=False).status == 422
    assert store.conflicts() == []  # anyone might have sent a true checkpoint with a false proof
    assert add(store, rewritten).status == 422
    (conflict,) = store.conflicts()
    assert (conflict.size, conflict.note, conflict.kept) == (9, OTHER.note(9), TREE.note(5))
    assert add(store, TREE.submission(5, 9)._replace(proof=())).status == 422
    assert add(store, Submission(0, (octets("x", 32),), TREE.note(9))).status == 409
    assert add(store, TREE.submission(5, 9)).status == 200


def test_a_first_submission_with_a_proof_is_answered_422(store: WitnessStore) -> None:
    assert add(store, Submission(0, (octets("x", 32),), TREE.note(9))).status == 422


def test_every_flipped_byte_of_a_submission_is_refused(store: WitnessStore) -> None:
    add(store, TREE.submission(0, 5))
    body = TREE.submission(5, 9).encode()
    for at in range(len(body)):
        damaged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert add(store, damaged).status != 200
    assert add(store, body).status == 200


def test_what_was_cosigned_is_there_after_the_database_was_closed_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    with closing(WitnessStore(path)) as store:
        add(store, TREE.submission(0, 5))
    with closing(WitnessStore(path)) as store:
        assert [each.head for each in store.cosigned()] == [TREE.head(5)]
        assert add(store, TREE.submission(0, 4)).status == 409


def test_of_two_submissions_at_once_no_smaller_tree_is_cosigned_after_a_larger_one(tmp_path: Path) -> None:
    """The race that the specification describes, by two connections as two processes have them."""
    path = tmp_path / "witness.db"
    sizes = [2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233]
    answers: list[tuple[int, int]] = []
    with closing(WitnessStore(path)) as first, closing(WitnessStore(path)) as second:
        ready = threading.Barrier(2)

        def submit(store: WitnessStore, turn: int) -> None:
            old = 0
            ready.wait(30)
            while old < sizes[-1]:
                size = next(each for each in sizes[turn:] if each > old) if old < sizes[-1 - turn] else sizes[-1]
                answer = add(store, TREE.submission(old, size))
                if answer.status == 200:
                    answers.append((old, size))
                    old = size
                else:
                    old = witness.cosigned_size(answer)

        threads = [threading.Thread(target=submit, args=each) for each in ((first, 0), (second, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [each.head.size for each in first.cosigned()] == [sizes[-1]]
    last = 0
    for old, size in sorted(answers, key=lambda each: each[1]):
        assert old <= last <= size  # each began where another had ended
        last = size


def test_conflicts_of_a_log_are_bounded(store: WitnessStore) -> None:
    add(store, TREE.submission(0, 5))
    for number in range(MOST_CONFLICTS + 5):
        forged = Checkpoint(ORIGIN, 5, octets(f"root {number}", 32))
        add(store, Submission(5, (), checkpoint.sign_note(forged.body(), ORIGIN, KEY)))
    kept = store.conflicts()
    assert len(kept) == MOST_CONFLICTS
    assert store.conflicts(kept[-2].id) == kept[-1:]


def test_the_largest_size_that_enough_witnesses_cosigned_is_known(store: WitnessStore) -> None:
    second = cosignature.cosigner("w2", KEY.public_key())
    stranger = cosignature.cosigner("w3", KEY.public_key())
    for by, size in ((WITNESS, 3), (second, 3), (WITNESS, 5), (stranger, 9)):
        store.add_line(by, size, f"{by.name} {size}\n", START)
    both = [WITNESS, second]
    assert [store.witnessed(threshold, both) for threshold in (0, 1, 2, 3)] == [None, 5, 3, None]
    assert store.witnessed(2, both, least=4) is None
    assert store.lines(3, both) == [f"{NAME} 3\n", "w2 3\n"]
    assert store.lines(9, both) == []
    assert store.cosigned_at(WITNESS) == (5, START)
    assert store.cosigned_at(cosignature.cosigner("w4", KEY.public_key())) is None
    for size in range(10, 10 + MOST_LINES):
        store.add_line(WITNESS, size, "line\n", START)
    assert store.lines(5, both) == []
    assert store.lines(3, [second]) == ["w2 3\n"]


def test_how_it_stands_with_a_witness_is_known_since_when(store: WitnessStore) -> None:
    assert store.asked(WITNESS) is None
    for size, state, now in ((0, "silent", 1), (0, "silent", 2), (3, "ok", 3), (5, "ok", 4)):
        store.tell(WITNESS, size, state, "", now)
    assert store.asked(WITNESS) == (WITNESS.vkey(), 5, "ok", "", 3)


def test_another_database_is_not_taken_for_a_witnesss(tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    path.write_bytes(b"no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(LedgerError):
        WitnessStore(path)


def test_a_conflict_that_names_no_size_is_refused() -> None:
    for answer in (Answer(409, TEXT, "5\n"), Answer(409, SIZE, "\n"), Answer(409, SIZE, "05\n")):
        with pytest.raises(CodecError):
            witness.cosigned_size(answer)
    assert witness.cosigned_size(Answer(409, SIZE + "; charset=utf-8", "5\n")) == 5
