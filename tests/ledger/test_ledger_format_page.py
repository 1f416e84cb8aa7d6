"""docs/ledger-format.md says what the code does: its example and its table of types are checked against it."""

from __future__ import annotations

from pathlib import Path

from test_ledger_entry import GOLDEN, KEY, ORIGIN

from ledger import checkpoint, entry, merkle, record
from ledger.record import Record
from ledger.types import ENTRY_TYPES

PAGE = (Path(__file__).parents[2] / "docs/ledger-format.md").read_text(encoding="utf-8")
JOINED = PAGE.replace("\n", "")


def test_the_example_is_what_the_code_makes() -> None:
    payload = entry.encode(GOLDEN)
    envelope = entry.sign(payload, KEY)
    leaf = entry.leaf_hash(envelope)
    fact = record.encode(
        Record("study.store", 1_700_000_000_000_000, bytes(range(16)), {"actor": "ct-1", "instances": ["1.2.3"]})
    )
    for stated in (payload, envelope, leaf, fact, record.leaf_hash(fact)):
        assert f"```{stated.hex()}" in JOINED or f"{stated.hex()}```" in JOINED
    assert checkpoint.make(ORIGIN, 1, merkle.root([leaf]), KEY) in PAGE
    assert checkpoint.vkey(ORIGIN, KEY.public_key()) in PAGE


def test_the_table_of_types_is_that_of_the_code() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and ("| yes |" in line or "| no |" in line)]
    assert rows == [
        f"| `{row.name}` | {row.action} | {'yes' if row.study else 'no'} | {row.event} | {row.meaning} |"
        for row in ENTRY_TYPES.values()
    ]
