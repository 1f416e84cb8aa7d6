"""The statuses that C-ECHO and C-STORE answer here, with the clauses that define them.

A permanent fault is never A700: senders repeat what failed for want of resources, so it would be sent for ever.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Status (0000,0900) of a response, PS3.7 Annex C and PS3.4 Table B.2-1."""

    SUCCESS = 0x0000  # PS3.7 C.1.1: for C-STORE the instance is durable and visible
    PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.14: a fault of ours
    DUPLICATE_INSTANCE = 0x0111  # PS3.7 C.5.6: other bytes under a held UID, where policy refuses versions
    NO_SUCH_INSTANCE = 0x0112  # PS3.7 C.5.17
    INVALID_INSTANCE = 0x0117  # PS3.7 C.5.9: the command's UID violates the rules of UIDs
    CLASS_NOT_SUPPORTED = 0x0122  # PS3.7 C.5.18: not the class of this presentation context, or not storable
    NOT_AUTHORISED = 0x0124  # PS3.7 C.5.13
    DUPLICATE_INVOCATION = 0x0210  # PS3.7 C.5.3: the Message ID is still in use
    UNRECOGNISED_OPERATION = 0x0211  # PS3.7 C.5.21
    MISTYPED_ARGUMENT = 0x0212  # PS3.7 C.5.11: a request that lacks what its command must carry
    OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1: transient, sending again later may work
    DATA_SET_MISMATCH = 0xA900  # PS3.4 Table B.2-1: the data set does not match its SOP Class or the command
    ELEMENTS_DISCARDED = 0xB006  # PS3.4 Table B.2-1, a warning: stored
    DATA_SET_DOUBTFUL = 0xB007  # PS3.4 Table B.2-1, a warning: stored although it does not match its class
    CANNOT_UNDERSTAND = 0xC000  # PS3.4 Table B.2-1: unreadable, truncated, or without identity


SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018

ERROR_COMMENT_LENGTH = 64
"""Error Comment (0000,0902) is VR LO: 64 characters at most (PS3.5 section 6.2)."""


def error_comment(detail: str) -> str:
    """`detail` as an Error Comment: ASCII, no control characters, no backslash, at most 64 characters.

    The command set has no character set of its own (PS3.7 section 6.3.1), and LO forbids backslash and controls.
    """
    clean = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in detail)
    return clean[:ERROR_COMMENT_LENGTH].strip()
