"""What is accepted when an association is requested: who may, which presentation contexts, which syntax. Pure.

PS3.8 sections 7.1.1 and 9.3.3.2; PS3.7 section D.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from bridge.dicom.transfer_syntaxes import is_uid

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

LOSSLESS = frozenset(
    (
        "1.2.840.10008.1.2",  # Implicit VR Little Endian
        "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
        "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.2",  # Explicit VR Big Endian (retired)
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless, Process 14
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, Process 14, selection value 1
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 (Lossless Only)
        "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Multi-component (Lossless Only)
        "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
        "1.2.840.10008.1.2.4.201",  # HTJ2K (Lossless Only)
        "1.2.840.10008.1.2.4.202",  # HTJ2K with RPCL options (Lossless Only)
        "1.2.840.10008.1.2.5",  # RLE Lossless
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    )
)
"""Transfer syntaxes that cannot lose (PS3.5 Annex A): choosing one of these never makes a sender compress lossily."""


class Result(IntEnum):
    """Result/Reason of a presentation context, PS3.8 Table 9-18."""

    ACCEPTED = 0
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class Proposed(NamedTuple):
    """A presentation context as proposed: its odd id, abstract syntax, transfer syntaxes in the sender's order."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class Answered(NamedTuple):
    """What becomes of a proposed context; `transfer_syntax` means something only when it is accepted."""

    id: int
    result: Result
    abstract_syntax: str
    transfer_syntax: str


class Rejection(NamedTuple):
    """Result, Source and Reason of an A-ASSOCIATE-RJ, PS3.8 Table 9-21, and why, in words for the log."""

    result: int
    source: int
    reason: int
    why: str


REFUSED_CONTEXT = Rejection(1, 1, 2, "the application context is not DICOM's")
REFUSED_CALLING = Rejection(1, 1, 3, "the calling AE title is not known at this address")
REFUSED_CALLED = Rejection(1, 1, 7, "the called AE title is not ours")
CONGESTED = Rejection(2, 3, 1, "the node is stopping or cannot take more for now")
LIMIT_REACHED = Rejection(2, 3, 2, "the limit of associations is reached")


def choose_transfer_syntax(proposed: tuple[str, ...]) -> str:
    """The one to accept of those proposed (at least one).

    The sender's order decides, but a syntax that cannot lose goes before one that may: a sender that holds
    uncompressed pixels and offers both must not compress them lossily because we said so.
    """
    return next((uid for uid in proposed if uid in LOSSLESS), proposed[0])


def negotiate(proposed: Iterable[Proposed], storable: Callable[[str], bool]) -> list[Answered]:
    """Accept Verification and whatever is `storable`, in any transfer syntax; private and future ones too.

    What is no UID is not accepted: a C-STORE on it could only be refused.
    """
    answers = []
    for id_, abstract_syntax, names in proposed:
        syntaxes = tuple(filter(is_uid, names))
        if abstract_syntax != VERIFICATION and not (is_uid(abstract_syntax) and storable(abstract_syntax)):
            result, chosen = Result.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
        elif not syntaxes:
            result, chosen = Result.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""
        else:
            result, chosen = Result.ACCEPTED, choose_transfer_syntax(syntaxes)
        answers.append(Answered(id_, result, abstract_syntax, chosen))
    return answers


def refuse_called(called: str, ae_title: str, strict: bool) -> Rejection | None:
    """Refuse a called AE title that is not `ae_title` when `strict`; spaces around it mean nothing (PS3.5 6.2 AE)."""
    return REFUSED_CALLED if strict and called.strip(" ") != ae_title.strip(" ") else None
