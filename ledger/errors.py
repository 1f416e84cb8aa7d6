"""What the ledger raises on purpose; each error says where.

LedgerError
├── CodecError           bytes that are not the one canonical encoding, or a value that has none
├── SignatureInvalid     a signature that the key does not verify, or a key that is not the one expected
├── ProofInvalid         an inclusion or consistency proof that does not lead to the root
├── ChainBroken          sequence, previous hash, ledger or epoch do not continue what went before
└── TreeMismatch         leaves, frontier, checkpoint or tiles disagree
"""

from __future__ import annotations


class LedgerError(Exception):
    """The root of the ledger's errors.

    `detail` is the cause in words, `place` where it was found ("entry 17", "checkpoint"), empty when not known.
    Neither ever holds PHI.
    """

    def __init__(self, detail: str, place: str = "") -> None:
        super().__init__(f"{place}: {detail}" if place else detail)
        self.detail = detail
        self.place = place


class CodecError(LedgerError):
    """Not the one strict encoding of a value of the data model."""


class SignatureInvalid(LedgerError):
    """A signature does not verify under the key expected."""


class ProofInvalid(LedgerError):
    """A Merkle proof does not lead to the root it claims."""


class ChainBroken(LedgerError):
    """An entry does not continue its node's chain."""


class TreeMismatch(LedgerError):
    """The tree, its checkpoint and its tiles disagree."""


class RecordUnreadable(LedgerError):
    """A record's stored bytes are damaged."""


class NotMadeYet(LedgerError):
    """The ledger's database is being made: its file is there, and nothing is in it yet."""


class StoreFault(LedgerError):
    """The ledger's database failed, or is damaged."""
