"""What the ledger raises on purpose; each error says where.

LedgerError
├── CodecError           bytes that are not the one canonical encoding, or a value that has none
├── SignatureInvalid     a signature that the key does not verify, or a key that is not the one expected
├── ProofInvalid         an inclusion or consistency proof that does not lead to the root
├── ChainBroken          sequence, previous hash, ledger or epoch do not continue what went before
├── TreeMismatch         leaves, frontier, checkpoint or tiles disagree
├── RecordUnreadable     a record's stored bytes are damaged
├── NotMadeYet           the database is being made
└── StoreFault           the database failed
    └── StoreDamaged         the database's file is not what SQLite wrote
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


_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


class StoreDamaged(StoreFault):
    """The database's file is no database, or not what SQLite wrote: reading it again gives nothing else."""


def store_fault(error: Exception, database: str) -> StoreFault:
    """What a database says when it fails, by its result code (https://www.sqlite.org/rescode.html).

    Statements are the ledger's own: when one is in error (SQLITE_ERROR), tables or file format are others than it made.
    """
    damaged = getattr(error, "sqlite_errorname", "").startswith(_DAMAGED)
    return (StoreDamaged if damaged else StoreFault)(str(error), database)
