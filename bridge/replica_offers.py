"""What a member is told when it asks what it is to keep: a list by position, and what this node refuses of its own.

    {"accepts": true,                      whether this node keeps sealed blocks for others
     "refused": [{"entry", "why"}],        assignments of the asking member that are not kept here
     "replicas": [{"entry", "tag", "salt", "root", "bytes",      what it is to keep, in the order of changes
                   "beside": [{"entry", "kept"}]}],             who else is to keep the same, and has signed
     "next": 1767225600000000, "more": false}

Bytes are hexadecimal, roots CIDs as text. A root is told to nobody else: the ledger has its commitment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bridge.config import Replication
from bridge.content import cid as cids
from bridge.errors import NotFound, RequestError
from bridge.index.index import SqlIndex
from bridge.index.replicas import OutRow
from bridge.index.replicas_kept import Wanted
from bridge.ports import Consortium

__all__ = ["PATH", "Offer", "ReplicaOffers", "read"]

PATH: Final = "/consortium/replicas"
AT_ONCE: Final = 500
MOST_REFUSED: Final = 2000
MOST_BESIDE: Final = 16
_ID, _TAG, _SALT = 32, 16, 16


class Offer(NamedTuple):
    """An answer, read."""

    accepts: bool
    refused: tuple[tuple[bytes, str], ...]
    replicas: tuple[Wanted, ...]
    next: int
    more: bool


class ReplicaOffers:
    """Answers members. Thread-safe."""

    def __init__(self, index: SqlIndex, consortium: Consortium, settings: Replication) -> None:
        self._index = index
        self._consortium = consortium
        self._settings = settings

    def told(self, member: str, after: int) -> Mapping[str, object]:
        """The answer to a member, by its name, of what changed after a position. Raises NotFound, StorageFault."""
        node = next((one.node for one in self._consortium.members() if one.name == member and one.active), None)
        if node is None:
            raise NotFound("this is for members of the consortium")
        rows = self._index.replicas_out.listed(node, after, AT_ONCE)
        refused = self._index.replicas_in.refused(node)[:MOST_REFUSED]
        return {
            "accepts": self._settings.accept == "on",
            "refused": [{"entry": entry.hex(), "why": why} for entry, why in refused],
            "replicas": [
                {
                    "entry": (row.entry or b"").hex(),
                    "tag": row.tag.hex(),
                    "salt": row.salt.hex(),
                    "root": cids.to_text(row.root),
                    "bytes": row.octets,
                    "beside": self._beside(row),
                }
                for row in rows
            ],
            "next": rows[-1].changed if rows else after,
            "more": len(rows) == AT_ONCE,
        }

    def _beside(self, row: OutRow) -> list[dict[str, object]]:
        others = [one for one in self._index.replicas_out.held(row.tag) if one.node != row.node]
        return [{"entry": one.entry.hex(), "kept": one.kept is not None} for one in others if one.entry][:MOST_BESIDE]


def read(answer: Any) -> Offer:
    """An answer as another member gave it, strictly. Raises RequestError for anything else."""
    try:
        replicas = tuple(
            Wanted(
                _octets(one["tag"], _TAG),
                _octets(one["entry"], _ID),
                _octets(one["salt"], _SALT),
                cids.from_text(one["root"]),
                _number(one["bytes"]),
                tuple((_octets(also["entry"], _ID), also["kept"] is True) for also in one["beside"][:MOST_BESIDE]),
            )
            for one in answer["replicas"][:AT_ONCE]
        )
        told = answer["refused"][:MOST_REFUSED]
        refused = tuple((_octets(one["entry"], _ID), str(one["why"])[:200]) for one in told)
        return Offer(answer["accepts"] is True, refused, replicas, _number(answer["next"]), answer["more"] is True)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RequestError("the member's answer is not one about replicas") from None


def _octets(text: str, size: int) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != size:
        raise ValueError("of another size")
    return found


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("no such number")
    return value
