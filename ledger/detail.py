"""What the records of an event say, as rules ask for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ledger.event import Detail


def items_of(details: Sequence[Detail]) -> Iterator[tuple[Sequence[str], int]]:
    """The items of a session's records: their words, and how often."""
    for detail in details:
        items = detail.body.get("items") if detail.body is not None else None
        for item in items if isinstance(items, list | tuple) else ():
            if isinstance(item, list | tuple) and item and isinstance(item[-1], int):
                yield [str(word) for word in item[:-1]], item[-1]


def refs_of(details: Sequence[Detail]) -> Iterator[bytes]:
    """The entries that a statement refers to."""
    for detail in details:
        refs = detail.body.get("refs") if detail.body is not None else None
        yield from (ref for ref in refs if isinstance(ref, bytes)) if isinstance(refs, list | tuple) else ()


def values_of(details: Sequence[Detail], name: str) -> Iterator[str]:
    """What records say under a name: texts, and byte strings in hexadecimal."""
    for detail in details:
        value = detail.body.get(name) if detail.body is not None else None
        if isinstance(value, bytes):
            yield value.hex()
        elif isinstance(value, str):
            yield value
