"""The table of bulk values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.dicom.bulk import BulkTable, BulkValue

VALUES = st.builds(BulkValue, st.sampled_from(["OB", "OW", "UN"]), st.integers(0, 2**50), st.integers(0, 2**32))


@given(st.dictionaries(st.from_regex(r"[0-9A-F]{8}(\.[0-9]{1,3}\.[0-9A-F]{8}){0,2}", fullmatch=True), VALUES))
def test_a_table_survives_its_encoding(values: dict[str, BulkValue]) -> None:
    table = BulkTable.decode(BulkTable(values).encode())
    assert dict(table) == values
    assert table.get("nothing") is None
    assert len(table) == len(values)
