"""PS3.8 9.3.3.2, PS3.7 D.3: what is accepted, in which syntax, and who may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dicom.storage_classes import is_storable
from bridge.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from bridge.dimse.negotiation import (
    LOSSLESS,
    REFUSED_CALLED,
    VERIFICATION,
    Proposed,
    Result,
    choose_transfer_syntax,
    negotiate,
    refuse_called,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PRIVATE = "1.3.12.2.1107.5.9.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
JPEG, JPEG_LOSSLESS, JPEG_2000 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.91"
PRIVATE_SYNTAX = "1.2.840.113619.5.2"


@pytest.mark.parametrize("sop_class", [VERIFICATION, CT, PRIVATE, "1.2.840.10008.5.1.4.1.1.999.1"])
def test_verification_and_every_storage_class_is_accepted_private_and_future_ones_too(sop_class: str) -> None:
    assert negotiate([Proposed(1, sop_class, (IMPLICIT,))], is_storable)[0].result is Result.ACCEPTED


@pytest.mark.parametrize("sop_class", [WORKLIST_FIND, STUDY_ROOT_FIND, "1.2.840.10008.1.20.1"])
def test_classes_of_other_services_are_refused_one_by_one(sop_class: str) -> None:
    answers = negotiate([Proposed(1, sop_class, (IMPLICIT,)), Proposed(3, CT, (IMPLICIT,))], is_storable)
    assert [a.result for a in answers] == [Result.ABSTRACT_SYNTAX_NOT_SUPPORTED, Result.ACCEPTED]


@pytest.mark.parametrize("syntax", [*TRANSFER_SYNTAXES, PRIVATE_SYNTAX])
def test_every_transfer_syntax_is_accepted_when_it_is_the_only_one(syntax: str) -> None:
    answer = negotiate([Proposed(1, CT, (syntax,))], is_storable)[0]
    assert (answer.result, answer.transfer_syntax) == (Result.ACCEPTED, syntax)


@pytest.mark.parametrize("name", ["", "CT Image Storage", "1.2..3", "1." + "2" * 63, "../1.2"])
def test_what_is_no_uid_is_not_accepted_as_class_or_syntax(name: str) -> None:
    proposed = [Proposed(1, name, (EXPLICIT,)), Proposed(3, CT, (name,)), Proposed(5, CT, (name, EXPLICIT))]
    answers = negotiate(proposed, is_storable)
    assert [answer.result for answer in answers] == [
        Result.ABSTRACT_SYNTAX_NOT_SUPPORTED,
        Result.TRANSFER_SYNTAXES_NOT_SUPPORTED,
        Result.ACCEPTED,
    ]
    assert answers[2].transfer_syntax == EXPLICIT


def test_a_context_without_transfer_syntaxes_is_refused() -> None:
    assert negotiate([Proposed(1, CT, ())], is_storable)[0].result is Result.TRANSFER_SYNTAXES_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ((EXPLICIT, IMPLICIT), EXPLICIT),
        ((IMPLICIT, EXPLICIT), IMPLICIT),
        ((JPEG, IMPLICIT), IMPLICIT),
        ((JPEG, JPEG_LOSSLESS, IMPLICIT), JPEG_LOSSLESS),
        ((JPEG_2000, JPEG), JPEG_2000),
        ((PRIVATE_SYNTAX, EXPLICIT), EXPLICIT),
    ],
)
def test_the_senders_order_decides_but_what_cannot_lose_goes_first(proposed: tuple[str, ...], chosen: str) -> None:
    assert choose_transfer_syntax(proposed) == chosen


@given(st.lists(st.sampled_from([*TRANSFER_SYNTAXES, PRIVATE_SYNTAX]), min_size=1, unique=True))
def test_a_lossy_syntax_is_chosen_only_when_no_other_is_proposed(syntaxes: list[str]) -> None:
    chosen = choose_transfer_syntax(tuple(syntaxes))
    assert chosen in syntaxes
    assert chosen in LOSSLESS or not LOSSLESS & set(syntaxes)


def test_every_syntax_taken_for_lossless_is_in_the_standards_table() -> None:
    assert set(TRANSFER_SYNTAXES) >= LOSSLESS


def test_another_called_ae_title_is_refused_only_when_strict() -> None:
    assert refuse_called("ORTHANC", "CAIRN", strict=True) is REFUSED_CALLED
    assert refuse_called("ORTHANC", "CAIRN", strict=False) is None
    assert refuse_called("CAIRN   ", "CAIRN", strict=True) is None
