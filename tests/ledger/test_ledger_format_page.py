"""docs/ledger-format.md says what the code does: its example and its table of types are checked against it."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

from test_ledger_entry import GOLDEN, KEY, ORIGIN

from ledger import checkpoint, entry, merkle, proof, record
from ledger.record import Record
from ledger.types import ENTRY_TYPES

PAGE = (Path(__file__).parents[2] / "docs/ledger-format.md").read_text(encoding="utf-8")
START = 1_700_000_000_000_000
JOINED = PAGE.replace("\n", "")


def test_the_example_is_what_the_code_makes() -> None:
    payload = entry.encode(GOLDEN)
    envelope = entry.sign(payload, KEY)
    leaf = entry.leaf_hash(envelope)
    fact = record.encode(Record("study.store", START, bytes(range(16)), {"actor": "ct-1", "instances": ["1.2.3"]}))
    for stated in (payload, envelope, leaf, fact, record.leaf_hash(fact)):
        assert f"```{stated.hex()}" in JOINED or f"{stated.hex()}```" in JOINED
    assert checkpoint.make(ORIGIN, 1, merkle.root([leaf]), KEY) in PAGE
    assert checkpoint.vkey(ORIGIN, KEY.public_key()) in PAGE


def test_the_examples_proof_is_what_the_code_makes_and_verifies() -> None:
    made = [
        Record("study.store", START, bytes(range(16)), {"actor": "ct-1", "instances": ["1.2.3"]}),
        Record("study.store", START + 500_000, bytes(range(16, 32)), {"actor": "ct-1", "instances": ["1.2.4"]}),
    ]
    facts = [record.encode(each) for each in made]
    leaves = [record.leaf_hash(fact) for fact in facts]
    first = entry.sign(entry.encode(GOLDEN), KEY)
    second = replace(
        GOLDEN,
        sequence=1,
        previous=entry.envelope_hash(first),
        time_us=START + 1_000_000,
        records_root=merkle.root(leaves),
    )
    envelope = entry.sign(entry.encode(second), KEY)
    tree = [entry.leaf_hash(first), entry.leaf_hash(envelope)]
    note = checkpoint.make(ORIGIN, 2, merkle.root(tree), KEY)
    of = proof.record_path(leaves, 0, facts[0])
    text = proof.make(1, envelope, note, merkle.node_reader(tree), of)
    top, extra, rest = text.split("\n", 2)
    assert f"`{top}`" in PAGE and f"```\n{rest}```" in PAGE
    for stated in (facts[1], leaves[1], envelope, base64.b64decode(extra.partition(" ")[2])):
        assert f"```{stated.hex()}" in JOINED or f"{stated.hex()}```" in JOINED
    assert proof.verify(text, ORIGIN, KEY.public_key()).record == made[0]


def test_the_steps_of_a_proof_are_named_as_the_code_names_them() -> None:
    section = PAGE.partition("| step |")[2].partition("\n\n")[0]
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == list(proof.STEPS)


def test_the_table_of_types_is_that_of_the_code() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and ("| yes |" in line or "| no |" in line)]
    assert rows == [
        f"| `{row.name}` | {row.action} | {'yes' if row.study else 'no'} | {row.event} | {row.meaning} |"
        for row in ENTRY_TYPES.values()
    ]
