"""What a verification found wrong: values, so that all of them are collected and not only the first."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that does not hold: where ("entry 17", "tile/0/000", "ledger.db page 4"), and what, in words."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"
