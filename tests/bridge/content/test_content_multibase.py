"""CIDs as other tools write them; the forms of one CID are those that `ipfs cid format -b` gives."""

from __future__ import annotations

import pytest

from bridge.content import cid as cids
from bridge.content.multibase import cid_from_text

# The CID of "hello world" as one raw block.
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
FORMS = [
    HELLO,
    HELLO.upper(),
    "f01551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
    "F01551220B94D27B9934D3E08A52E52D7DA7DABFAC484EFE37A5380EE9088F7ACE2EFCDE9",
    "zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn",
    "k2cwued9o1pvrt3q271rrqbo49x30tbxwpoeaq75z14e5ui2rzygpbe1",
    "uAVUSILlNJ7mTTT4IpS5S19p9q_rEhO_jelOA7pCI96zi783p",
]
PROBE = ["bafkqaaa", "BAFKQAAA", "z2yYDV", "kdaznk", "KDAZNK", "uAVUAAA", "f01550000", "F01550000"]


@pytest.mark.parametrize("text", FORMS)
def test_every_base_spells_the_same_cid(text: str) -> None:
    assert cid_from_text(text) == cids.from_text(HELLO)


@pytest.mark.parametrize("text", PROBE)
def test_the_identity_of_nothing_in_every_base(text: str) -> None:
    assert cid_from_text(text) == bytes((1, cids.RAW, cids.IDENTITY, 0))


def test_version_0_is_its_multihash() -> None:
    assert cid_from_text("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG")[:2] == bytes((cids.SHA2_256, 32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        HELLO[:-1],
        HELLO + "a",
        HELLO.capitalize(),
        HELLO + "=",
        "f0155",
        "f0g",
        "f01550000" + "00",
        "f00550000",
        "z0",
        "k!",
        "u=",
        "uAVUAAA=",
        "m" + HELLO,
        "Qm",
        "b" + "a" * 600,
        "bé",
    ],
)
def test_what_is_no_cid_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        cid_from_text(text)
