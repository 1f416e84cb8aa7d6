"""Specific Character Set against pydicom's samples, and what those leave out (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from dicom_samples import EXPLICIT, element, instance, pydicom_read, scan
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import decode_bytes, python_encoding
from pydicom.data import get_charset_files

from bridge.dicom.charset import CODE_EXTENSIONS_ASSUMED, UNDECODABLE, UNKNOWN_TERM, charset

SAMPLES = [Path(name) for name in get_charset_files() if name.endswith(".dcm")]
NAMED = [path for path in SAMPLES if "PatientName" in pydicom_read(path)]


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.name)
def test_names_of_the_samples_are_those_that_pydicom_reads(path: Path) -> None:
    theirs = pydicom_read(path)
    terms = theirs.get("SpecificCharacterSet", "")
    terms = [terms] if isinstance(terms, str) else list(terms)
    found: set[str] = set()
    text = charset(terms).decode(theirs.PatientName.original_string, found)
    assert text.rstrip(" \0") == str(theirs.PatientName)
    assert found == set()


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("ISO_IR 100", "Müller"),
        ("ISO_IR 101", "Łódź"),
        ("ISO_IR 109", "Ĥ"),
        ("ISO_IR 110", "Ē"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 127", "قباني"),
        ("ISO_IR 126", "Διονυσιος"),
        ("ISO_IR 138", "שרון"),
        ("ISO_IR 148", "İğ"),
        ("ISO_IR 203", "Œ€"),
        ("ISO_IR 166", "นามสกุล"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ"),
        ("ISO_IR 192", "王小東 Müller"),
        ("GB18030", "王小东"),
        ("GBK", "王小东"),
        ("ISO 2022 IR 149", "홍길동"),
        ("ISO 2022 IR 58", "张小东"),
    ],
)
def test_every_term_without_escapes(term: str, text: str) -> None:
    raw = text.encode(python_encoding.get(term, "iso8859_15"))
    found: set[str] = set()
    assert charset([term]).decode(raw, found) == text
    assert found == set()


def test_misspelled_terms_are_understood() -> None:
    for term in ("ISO-IR 100", "ISO IR 100", "iso_ir_100", "ISO_IR100"):
        assert charset([term]).decode("Müller".encode("latin-1"), set()) == "Müller"


def test_japanese_with_a_backslash_in_its_bytes_is_not_cut() -> None:
    raw = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
    assert charset(["", "ISO 2022 IR 87"]).decode(raw, set()) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    coded = b"\x1b$B\x30\x5c\x3d\x5e\x1b(B"  # a backslash, "=" and "^" among the bytes of two characters
    declared = element(0x00080005, b"CS", b"\\ISO 2022 IR 87 ")
    found = scan(EXPLICIT, instance(element(0x00100010, b"PN", b"A^B=" + coded), early=declared))
    want = {"Alphabetic": "A^B", "Ideographic": coded.decode("iso2022_jp")}
    assert found.attributes_json["00100010"]["Value"] == [want]


def test_a_delimiter_goes_back_to_the_first_term() -> None:
    raw = b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab\r\nM\xfcller"
    assert charset(["ISO 2022 IR 100", "ISO 2022 IR 58"]).decode(raw, set()) == "Wang^XiaoDong=王^小东\r\nMüller"


@given(st.binary(max_size=60), st.lists(st.sampled_from([*python_encoding, "nonsense", ""]), max_size=3))
def test_nothing_fails_and_what_is_lost_is_told(raw: bytes, terms: list[str]) -> None:
    found: set[str] = set()
    text = charset(terms).decode(raw, found)
    assert text.encode("utf-8").decode("utf-8") == text
    assert ("\ufffd" not in text) or UNDECODABLE in found or "\ufffd".encode() in raw or b"\x1b" in raw


@given(st.text("ab^=\\", max_size=8))
def test_ascii_is_ascii_in_every_set(text: str) -> None:
    for term in python_encoding:
        assert charset([term]).decode(text.encode("ascii"), set()) == text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert decode_bytes(text.encode("ascii"), [python_encoding[term]], set()) == text


def test_undeclared_text_is_guessed_with_a_warning_and_json_says_utf8() -> None:
    for raw in ("Müller".encode(), "Müller".encode("latin-1")):
        found = scan(EXPLICIT, instance(element(0x00100010, b"PN", raw)))
        assert found.attributes_json["00100010"]["Value"] == [{"Alphabetic": "Müller"}]
        assert found.attributes_json["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
        assert next(iter(found.attributes_json)) == "00080005"
        assert found.warnings == (CODE_EXTENSIONS_ASSUMED,)


def test_a_broken_or_unknown_set_is_a_warning() -> None:
    declared = element(0x00080005, b"CS", b"ISO_IR 192")
    found = scan(EXPLICIT, instance(element(0x00100010, b"PN", b"M\xfcller"), early=declared))
    assert found.attributes_json["00100010"]["Value"] == [{"Alphabetic": "M\ufffdller"}]
    assert found.warnings == (UNDECODABLE,)
    unknown = element(0x00080005, b"CS", b"KOI8-R")
    assert scan(EXPLICIT, instance(early=unknown)).warnings == (UNKNOWN_TERM,)
