"""What names a study, series or instance."""

import pytest

from bridge.dicom.uids import identifies


@pytest.mark.parametrize(
    "text", ["1", "1.2.840.10008", "2.25." + "9" * 39, "1.02.3", "dccc9599087131742838cc1162a630fe", "A" * 64]
)
def test_uids_and_hashes_are_taken(text: str) -> None:
    assert identifies(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "1.", ".1", "1..2", "1.2.x", "1/2", "../1", "abc", "g" * 32, "1" * 65, "a" * 65, "1.2\n"]
)
def test_other_text_is_not(text: str) -> None:
    assert not identifies(text)
