"""A witness of other nodes' logs: C2SP tlog-witness v1.0, `add-checkpoint`. Pure.

A witness cosigns a checkpoint of a log that it knows when it continues the last one that it cosigned. So a log whose
owner signs a second history, or cuts it short, gets no more cosignatures, and what it signed is kept as evidence.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ledger import checkpoint, keys, merkle
from ledger.checkpoint import Checkpoint, Verifier, decode_base64
from ledger.errors import CodecError, LedgerError, ProofInvalid

MAX_REQUEST: Final = checkpoint.MAX_NOTE + 8 * 1024  # bytes: a note, and 63 hashes of 45 characters
MAX_PROOF: Final = 63  # hashes
_LARGEST: Final = 2**63 - 1
TEXT: Final = "text/plain; charset=utf-8"
SIZE: Final = "text/x.tlog.size"


class Submission(NamedTuple):
    """What a log asks to be cosigned: the size of the one cosigned before, the proof from there, and the note."""

    old: int
    proof: tuple[bytes, ...]
    note: str

    def encode(self) -> bytes:
        """The body of a request."""
        hashes = "".join(base64.b64encode(each).decode() + "\n" for each in self.proof)
        return f"old {self.old}\n{hashes}\n{self.note}".encode()


class Answer(NamedTuple):
    """What is answered over HTTP: status, media type, body."""

    status: int
    type: str
    body: str


class Judged(NamedTuple):
    """What becomes of a submission.

    `status` is 200 when the `note` with this `head` may be cosigned; else it is refused, for `why`. A refusal that
    `contradicts` is of a signed checkpoint of the same size and another root as the one cosigned before: two histories
    were signed. `cosigned` is the size cosigned before, 0 for none.
    """

    status: int
    why: str = ""
    head: Checkpoint | None = None
    note: str = ""
    cosigned: int = 0
    contradicts: bool = False

    def refusal(self) -> Answer:
        """The answer to what is refused."""
        if self.status == 409:
            return Answer(409, SIZE, f"{self.cosigned}\n")
        return Answer(self.status, TEXT, f"{self.why}\n")


class Cosigned(NamedTuple):
    """The last checkpoint of a log that was cosigned here: its head, the note as the log signed it, and when."""

    head: Checkpoint
    note: str
    time_us: int


class Conflict(NamedTuple):
    """A signed checkpoint that does not continue one that was cosigned before.

    `witness` is empty when it was refused here, else the vkey of the witness that refused this node's own. `note` is
    what was refused; `cosigned` is the size of what was cosigned before, `kept` that, as far as it is known here.
    """

    id: int
    origin: str
    witness: str
    size: int
    root: bytes
    note: str
    cosigned: int
    kept: str
    why: str
    time_us: int


class Asked(NamedTuple):
    """How it stands with a witness of this node's log, by its vkey: the size that it cosigned last, and a word since
    when: "ok", "silent", "refused" or "contradicted"."""

    witness: str
    size: int
    state: str
    detail: str
    since_us: int


class WitnessState(NamedTuple):
    """How it stands with a witness: its member's name, the last that it was asked, the newest size it cosigned, when.

    `asked` is None before it was asked; `size` and `time_us` are 0 before it cosigned.
    """

    name: str
    asked: Asked | None
    size: int
    time_us: int


class WitnessingState(NamedTuple):
    """Both sides, for the console: the threshold, the largest size that is witnessed (0: none), this node's witnesses,
    the logs cosigned here with their members' names, and all contradictions."""

    threshold: int
    witnessed: int
    witnesses: Sequence[WitnessState]
    watched: Sequence[tuple[str, Cosigned | None]]
    conflicts: Sequence[Conflict]


Last = Callable[[str], Checkpoint | None]


def parse(body: bytes) -> Submission:
    """The submission in a request's body. Raises CodecError."""
    if len(body) > MAX_REQUEST:
        raise CodecError("longer than a checkpoint and its proof can be", "request")
    try:
        top, separator, note = body.decode().partition("\n\n")
    except UnicodeDecodeError as error:
        raise CodecError("not UTF-8", "request") from error
    first, *lines = top.split("\n")
    label, _, digits = first.partition(" ")
    if not separator or label != "old" or len(lines) > MAX_PROOF or not _is_size(digits):
        raise CodecError("a line with the old size, at most 63 hashes and an empty line are expected", "request")
    proof = tuple(decode_base64(line, "request") for line in lines)
    if any(len(each) != merkle.HASH_SIZE for each in proof):
        raise CodecError("a hash of the proof is not 32 bytes", "request")
    return Submission(int(digits), proof, note)


def judge(body: bytes, logs: Sequence[Verifier], last: Last) -> Judged:
    """Whether a submission may be cosigned; in the order of the specification's checks.

    (1) it can be read (400)    (2) its log is known (404)    (3) and has signed it (403)    (4) its old size is not
    beyond it (400)    (5) and is that of the checkpoint cosigned last (409)    (6) which it continues (409 when a tree
    of the same size has another root, else 422)

    `last` gives the checkpoint of an origin that was cosigned last; the caller keeps others from changing it until what
    comes of this is stored.
    """
    try:
        submission = parse(body)  # (1)
        text, signatures = checkpoint.split_note(submission.note)
        head = checkpoint.parse(text)
    except LedgerError as error:
        return Judged(400, f"{error}")
    if head.size > _LARGEST:
        return Judged(400, "a tree larger than any can be")
    known = [log for log in logs if log.name == head.origin]
    if not known:  # (2)
        return Judged(404, "the log is not known here")
    if not _signed(text, signatures, known):  # (3)
        return Judged(403, "it is not signed by the log")
    if submission.old > head.size:  # (4)
        return Judged(400, "the old size is beyond the checkpoint's")
    before = last(head.origin) or Checkpoint(head.origin, 0, merkle.EMPTY_ROOT)
    if submission.old != before.size:  # (5)
        return Judged(409, "another checkpoint was cosigned last", head, submission.note, before.size)
    if head.size == before.size and head.root != before.root:  # (6)
        return Judged(
            409, "a tree of this size and another root was cosigned", head, submission.note, before.size, True
        )
    try:
        merkle.verify_consistency(before.size, head.size, before.root, head.root, submission.proof)
    except ProofInvalid as error:
        return Judged(422, error.detail, head, submission.note, before.size)
    return Judged(200, "", head, submission.note, before.size)


def cosigned_size(answer: Answer) -> int:
    """The size that a witness says it cosigned last, in an answer of status 409. Raises CodecError."""
    digits = answer.body.removesuffix("\n")
    if answer.type.partition(";")[0].strip() != SIZE or not _is_size(digits):
        raise CodecError("a conflict without the size that was cosigned", "witness")
    return int(digits)


def _is_size(digits: str) -> bool:
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= 19
    return plain and (digits == "0" or not digits.startswith("0"))


def _signed(text: str, signatures: Sequence[checkpoint.Signature], known: Sequence[Verifier]) -> bool:
    """Whether a known key has signed; signed-note rejects the whole when a line of a known key does not verify."""
    signed = False
    for log in known:
        for signature in checkpoint.signatures_of(log, signatures):
            try:
                keys.check(log.key, signature, text.encode())
            except LedgerError:
                return False
            signed = True
    return signed
