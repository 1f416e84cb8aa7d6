"""Statements: entries of this node that say something beyond it, with a body that every member reads.

1. the body is checked against the table of its type              ledger.terms
2. a record of it, with what only this node keeps, is durable     Index.append
3. its batch is closed: the ledger seals one entry over it        Index.close_batch
4. the entry is found by the record's root, sealed or final       the ledger
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bridge.crypto import derive
from bridge.errors import Busy, RequestError
from bridge.model import Actor, StudyKey
from bridge.services.close_batch import Batches
from bridge.services.provenance import Provenance, by
from ledger import merkle, terms
from ledger.errors import CodecError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.25
Made = Callable[[bytes, bool], bytes | None]
"""(records root, final) -> the id (leaf hash) of this node's entry over it; one that is sealed only unless `final`."""
RESERVED: Final = frozenset({"actor", "study", "purpose", "body", "refs"})


class Statements:
    """Makes statements in one process. Thread-safe.

    Parameters
    ----------
    batches, provenance
        The process's own.
    audit_key
        The node's key for records about no study.
    made
        Finds the entry over a records root.
    """

    def __init__(self, batches: Batches, provenance: Provenance, audit_key: bytes, made: Made) -> None:
        self._batches = batches
        self._provenance = provenance
        self._node_key = derive.node_record_key(audit_key)
        self._made = made

    def make(
        self,
        kind: str,
        actor: Actor,
        body: Mapping[str, object] | None = None,
        refs: Sequence[bytes] = (),
        study: StudyKey | None = None,
        purpose: str = "HOPERAT",
        detail: Mapping[str, object] | None = None,
        *,
        tag: bytes | None = None,
        outcome: int = 0,
    ) -> bytes:
        """State something; durable when it returns. The records root, by which `entry_id` finds the entry.

        Parameters
        ----------
        kind
            An entry type of `ledger.types`.
        body, refs
            What the entry states and refers to (`ledger.terms`): every member reads it. Ids, never names or UIDs.
        study
            What it is about: the entry bears the study's tag, and the record is gone with the study's key.
        detail
            What the record holds besides, sealed on this node; not named as the record's own fields are.
        tag
            The study's tag at another member, to be borne in the place of that of `study`: of a study received from it.
        outcome
            0, or 4, 8, 12 for what failed (PS3.15 A.5 EventOutcomeIndicator).

        Raises RequestError for a body or references that the type does not have, and as `Index.append`.
        """
        encoded = None if body is None else self._encoded(kind, body)  # (1)
        try:
            terms.check(kind, encoded, tuple(refs))
        except CodecError as error:
            raise RequestError(error.detail) from error
        if detail is not None and RESERVED & set(detail):
            raise ValueError(f"a record has fields of its own: {', '.join(sorted(RESERVED & set(detail)))}")
        told: dict[str, object] = {"actor": by(actor), "purpose": purpose, **(detail or {})}
        if study is not None:
            told["study"] = study.study
        if body is not None:
            told["body"] = {name: value for name, value in body.items() if value is not None}
        if refs:
            told["refs"] = list(refs)
        named = study if study is None or tag is None else study._replace(tag=tag)
        batch = self._batches.open(kind, actor, named, purpose, outcome, body=encoded, refs=tuple(refs))
        record = self._provenance.seal(kind, told, self._node_key if study is None else derive.record_key(study))  # (2)
        if not self._batches.append(batch, [record]):
            raise Busy("the statement's batch was closed before it was made")
        self._batches.close(batch)  # (3)
        return merkle.root([record.leaf])

    def entry_id(self, root: bytes, timeout_s: float, final: bool = True) -> bytes | None:
        """(4) The id (leaf hash) of the entry over a records root, once it is sealed, or `final`; None when it is not.

        Waits for `timeout_s` seconds at most; final needs consensus, which may be away for as long as it likes. Without
        a consortium every sealed entry is final. Raises StorageFault.
        """
        until, wait = time.monotonic() + timeout_s, FIRST_WAIT_S
        while (found := self._made(root, final)) is None:
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(wait, left))
            wait = min(wait * 1.5, LONGEST_WAIT_S)
        return found

    def _encoded(self, kind: str, body: Mapping[str, object]) -> bytes:
        try:
            return terms.encode(kind, {name: value for name, value in body.items() if value is not None})
        except CodecError as error:
            raise RequestError(error.detail) from error
