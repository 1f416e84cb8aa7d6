"""Bodies and references that entries of each type may have, for the ledger's tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ledger import terms
from ledger.terms import TERMS, Field
from ledger.types import ENTRY_TYPES


def example(type: str) -> dict[str, Any]:
    """A body (None where none is needed) and references that an entry of this type must at least have."""
    of = TERMS.get(type)
    if of is None:
        return {}
    refs = tuple(bytes([7]) * 32 for _ in range(of.refs.start))
    if of.variants is not None:
        word, fields = next(iter(of.variants.items()))
        return {"body": terms.encode(type, {"do": word, **_least(fields)}), "refs": refs}
    if of.fields is None or of.optional:
        return {"refs": refs}
    return {"body": terms.encode(type, _least(of.fields)), "refs": refs}


def _least(fields: Any) -> dict[str, Any]:
    return {name: _value(field) for name, field in fields.items() if not field.optional}


def _value(field: Field) -> Any:
    if field.kind is bytes:
        return bytes(field.allowed.start)
    if field.kind is str:
        return "x" * field.allowed.start
    return field.kind(field.allowed.start)


def _any_value(field: Field) -> st.SearchStrategy[Any]:
    if field.kind is bytes:
        return st.binary(min_size=field.allowed.start, max_size=min(field.allowed.stop - 1, 100))
    if field.kind is str:
        printable = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
        return st.text(printable, min_size=field.allowed.start, max_size=field.allowed.stop - 1)
    if field.kind is bool:
        return st.booleans()
    return st.integers(field.allowed.start, field.allowed.stop - 1)


def _any_fields(fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: _any_value(field) for name, field in fields.items() if not field.optional},
        optional={name: _any_value(field) for name, field in fields.items() if field.optional},
    )


@st.composite
def stated(draw: st.DrawFn) -> dict[str, Any]:
    """Type, body and references of any entry that there can be."""
    type = draw(st.sampled_from(sorted(ENTRY_TYPES)))
    of = TERMS.get(type, terms.Terms())
    some_refs = st.lists(
        st.binary(min_size=32, max_size=32), min_size=of.refs.start, max_size=min(of.refs.stop - 1, of.refs.start + 3)
    )
    found: dict[str, Any] = {"type": type, "body": None, "refs": tuple(draw(some_refs))}
    if of.variants is not None:
        word = draw(st.sampled_from(sorted(of.variants)))
        found["body"] = terms.encode(type, {"do": word, **draw(_any_fields(of.variants[word]))})
    elif of.fields is not None:
        fields = draw(_any_fields(of.fields))
        if fields or not of.optional:
            found["body"] = terms.encode(type, fields)
    return found
