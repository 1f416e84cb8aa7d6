"""Nodes without a consortium watch over each other: each has its checkpoints cosigned by members (C2SP tlog-witness).

    (1) at most once a second: is there a checkpoint that a witness has not cosigned?
    (2) what leads there from the one that it cosigned last: a consistency proof
    (3) ask it, over mutual TLS; with another size than was thought, once more
    (4) what it answers is verified and kept; what it refuses is written down, and why

A witness that says that this log does not continue what it has seen says that somebody rewrote it, cut it short, or
restored an older copy: that is kept as evidence and raises an alert, at both ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from bridge.errors import EngineFault, RequestError, StorageFault
from bridge.services.provenance import Clock, now_us
from ledger import checkpoint, cosignature, keys
from ledger.alerts import Misconduct
from ledger.checkpoint import Checkpoint, Verifier
from ledger.errors import CodecError, SignatureInvalid, StoreFault
from ledger.witness import TEXT, Answer, Submission, WitnessingState, WitnessState, cosigned_size
from ledger.witness_store import WitnessStore

__all__ = ["OK", "Client", "OwnLog", "Watched", "Witness", "Witnessing"]

log = logging.getLogger(__name__)
PATH: Final = "/witness/add-checkpoint"
OK, SILENT, REFUSED, CONTRADICTED = "ok", "silent", "refused", "contradicted"
FRESH_US: Final = 3600 * 1_000_000
"""After so long a witness is asked again for the same checkpoint, so that its cosignature is not stale."""
PAUSES_US: Final = {SILENT: 5 * 1_000_000, REFUSED: 30 * 1_000_000, CONTRADICTED: 10 * 1_000_000}
_ODD: Final = "it answered what no witness answers"


class Client(Protocol):
    """A member's listener (`bridge.content.gateway_client.GatewayClient`)."""

    def post(self, path: str, body: bytes, kind: str) -> tuple[int, str, bytes]:
        """Status, media type and body. Raises EngineFault when it does not answer."""


class OwnLog(Protocol):
    """The log of this node."""

    def signed(self) -> str | None:
        """The newest checkpoint as the log signed it; None while there is no entry. Raises StorageFault."""

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        """The consistency proof between two sizes of the tree. Raises NotFound, StorageFault."""


class Witness(NamedTuple):
    """A member that cosigns this node's checkpoints: its name, its cosigner key, its listener."""

    name: str
    key: Verifier
    client: Client


class Watched(NamedTuple):
    """A member whose log is cosigned here, by its name and the log's key."""

    name: str
    key: Verifier


class Witnessing:
    """What a node witnesses and has witnessed. Thread-safe.

    Parameters
    ----------
    store
        What was cosigned.
    name, signer
        The key that this node cosigns with.
    watched
        Whose logs it cosigns.
    witnesses, threshold
        Who cosigns its own, and how many of them must.
    own
        Its own log's key.
    """

    def __init__(
        self,
        store: WitnessStore,
        name: str,
        signer: keys.Signer,
        watched: Sequence[Watched],
        witnesses: Sequence[Witness],
        threshold: int,
        own: Verifier,
        clock: Clock = now_us,
    ) -> None:
        self._store, self._clock = store, clock
        self._name, self._signer = name, signer
        self._watched, self.witnesses = tuple(watched), tuple(witnesses)
        self._keys = tuple(each.key for each in witnesses)
        self._threshold = threshold
        self._own = own
        self._tried: dict[Verifier, int] = {}

    def add_checkpoint(self, member: str, body: bytes) -> Answer:
        """What this node, as a witness, answers to a member that submits a checkpoint. Raises StorageFault."""
        logs = [each.key for each in self._watched]
        own = {each.key.name for each in self._watched if each.name == member}
        owned = _origin(body) in own
        with _stored():
            answer, _ = self._store.add_checkpoint(body, logs, self._name, self._signer, self._clock(), owned)
        if answer.status != 200:
            log.warning("a checkpoint was not cosigned", extra={"peer": member, "status": answer.status})
        return answer

    def lines(self, size: int) -> Sequence[str]:
        """The cosignature lines of this log's checkpoint of that size."""
        with _stored():
            return self._store.lines(size, self._keys)

    def newest(self, least: int = 0) -> int | None:
        """The largest size, of at least `least`, whose checkpoint enough witnesses have cosigned; None for none."""
        with _stored():
            return self._store.witnessed(self._threshold, self._keys, least)

    def policy(self, log_key: str) -> str:
        """The trust policy (C2SP tlog-policy) of this log: its key, its witnesses, and how many must have cosigned."""
        lines = [f"log {log_key}"]
        names = [f"witness-{number}" for number in range(1, len(self.witnesses) + 1)]
        lines += [f"witness {name} {key.vkey()}" for name, key in zip(names, self._keys, strict=True)]
        if self._threshold and names:
            lines += [f"group witnesses {self._threshold} {' '.join(names)}", "quorum witnesses"]
        else:
            lines.append("quorum none")
        return "\n".join([*lines, ""])

    def step(self, witness: Witness, own: OwnLog) -> bool:
        """(1) to (4) for one witness; whether it was asked. Raises StorageFault."""
        with _stored():
            return self._step(witness, own)

    def _step(self, witness: Witness, own: OwnLog) -> bool:
        note = own.signed()
        if note is None:
            return False
        head = checkpoint.parse(checkpoint.split_note(note)[0])
        if not self._due(witness, head):  # (1)
            return False
        self._tried[witness.key] = self._clock()
        before = self._store.asked(witness.key)
        size = before.size if before is not None else 0
        try:
            state, size, detail = self._ask(witness, own, head, note, size)
        except EngineFault as error:
            state, detail = SILENT, error.detail
        except (RequestError, CodecError, SignatureInvalid) as error:
            state, detail = REFUSED, error.detail
        if before is None or before.state != state:
            level = logging.INFO if state == OK else logging.WARNING
            log.log(level, "a witness of this node's log: %s", state, extra={"peer": witness.name})
        self._store.tell(witness.key, size, state, detail, self._clock())
        return True

    def state(self) -> WitnessingState:
        """How everything stands. Raises StorageFault."""
        with _stored():
            cosigned = {each.head.origin: each for each in self._store.cosigned()}
            states = []
            for each in self.witnesses:
                size, time_us = self._store.cosigned_at(each.key) or (0, 0)
                states.append(WitnessState(each.name, self._store.asked(each.key), size, time_us))
            watched = [(each.name, cosigned.get(each.key.name)) for each in self._watched]
            return WitnessingState(self._threshold, self.newest() or 0, states, watched, self._store.conflicts())

    def misconduct(self) -> Iterator[Misconduct]:
        """What of the contradictions raises an alert: one for each checkpoint that others do not continue.

        Raises StorageFault.
        """
        with _stored():
            conflicts = self._store.conflicts()
        for found in conflicts:
            place = f"after {found.cosigned:,} entries"
            if found.witness:
                who = next((each.name for each in self.witnesses if each.key.vkey() == found.witness), found.witness)
                node = keys.node_id(self._own.key)
                yield Misconduct("witness-refused", node, who, found.time_us, found.cosigned, place)
            else:
                of = next((each for each in self._watched if each.key.name == found.origin), None)
                node = keys.node_id(of.key.key) if of is not None else bytes(16)
                who = of.name if of is not None else found.origin
                yield Misconduct("second-history", node, who, found.time_us, found.cosigned, place)

    def close(self) -> None:
        """Close what is open."""
        self._store.close()

    def _due(self, witness: Witness, head: Checkpoint) -> bool:
        asked, now = self._store.asked(witness.key), self._clock()
        if asked is None:
            return True
        if asked.state != OK:
            return now - self._tried.get(witness.key, 0) >= PAUSES_US.get(asked.state, 0)
        newest = self._store.cosigned_at(witness.key)
        return asked.size != head.size or newest is None or now - newest[1] >= FRESH_US

    def _ask(self, witness: Witness, own: OwnLog, head: Checkpoint, note: str, size: int) -> tuple[str, int, str]:
        """State, size that the witness cosigned last, and detail, after a checkpoint was submitted."""
        for _ in range(2):
            if size > head.size:
                return self._contradicted(witness, head, note, size, f"it has cosigned {size:,} entries of this log")
            proof = own.consistency(size, head.size)  # (2)
            answer = _posted(witness.client, Submission(size, tuple(proof), note))  # (3)
            if answer.status == 200:
                self._take(witness, head, note, answer.body)  # (4)
                return OK, head.size, ""
            if answer.status == 422:
                return self._contradicted(witness, head, note, size, "this log does not continue what it cosigned")
            if answer.status != 409:
                return REFUSED, size, f"it answered {answer.status}: {answer.body.strip()[:200]}"
            told = cosigned_size(answer)
            if told == size == head.size:
                return self._contradicted(witness, head, note, size, "it has cosigned another tree of this size")
            if told == size:
                break
            size = told
        return REFUSED, size, "it cosigns other checkpoints of this log meanwhile"

    def _take(self, witness: Witness, head: Checkpoint, note: str, body: str) -> None:
        """Keep the lines of the witness's key that verify. Raises SignatureInvalid when there is none, CodecError."""
        text, signatures = checkpoint.split_note(note + body)
        if cosignature.cosigned(text, signatures, witness.key) is None:
            raise SignatureInvalid(_ODD)
        lines = [
            checkpoint.signature_line(witness.key, each) for each in checkpoint.signatures_of(witness.key, signatures)
        ]
        self._store.add_line(witness.key, head.size, lines[-1], self._clock())

    def _contradicted(self, witness: Witness, head: Checkpoint, note: str, size: int, why: str) -> tuple[str, int, str]:
        self._store.refused(witness.key, head, note, size, "", why, self._clock())
        return CONTRADICTED, size, why


@contextmanager
def _stored() -> Iterator[None]:
    """The store's failures as the node's own."""
    try:
        yield
    except StoreFault as error:
        raise StorageFault(f"what was cosigned cannot be read or written: {error.detail}") from error


def _posted(client: Client, submission: Submission) -> Answer:
    status, kind, body = client.post(PATH, submission.encode(), TEXT)
    return Answer(status, kind, body.decode("utf-8", "replace"))


def _origin(body: bytes) -> str:
    """The origin of a submitted checkpoint, unverified; empty when there is none."""
    return body.partition(b"\n\n")[2].partition(b"\n")[0].decode("utf-8", "replace")
