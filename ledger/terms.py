"""What entries of a type may state in their body, and to which entries they must refer: one closed table.

A body is a canonical CBOR map of a few fields. It holds ids, keys, numbers and words of closed lists, never free text,
names, UIDs or CIDs. Everything that the consortium decides by stands here; the rest is in an entry's records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ledger import codec
from ledger.errors import CodecError

MAX_REFS: Final = 16
REF_SIZE: Final = 32  # bytes of an entry's id
MAX_CARD: Final = 8 * 1024  # bytes of a member's card
MAX_POWER: Final = 1 << 20  # of one validator; CometBFT's limit of all together is 2**60
ENROLL, ROTATE, RETIRE, POWER = "enroll", "rotate", "retire", "power"
"""What can be proposed (`do`)."""
SHARE_REFUSALS: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "the blocks that came are not what they must be",
        2: "the package does not open, or is not one of this study",
        3: "the grant did not hold any more when the study had come",
    }
)
"""Why a study that was granted was not taken in, by the number in an entry."""
_ORIGIN: Final = re.compile(r"[!-~]{1,255}")


class Field(NamedTuple):
    """A field of a body: its type, the sizes (bytes) or values (integers) it may have, whether it may be absent."""

    kind: type
    allowed: range
    optional: bool = False


class Terms(NamedTuple):
    """What a type's entries state.

    `fields` are those of the body, None where there is no body; with `variants` they depend on the word in `do`.
    `optional`: the body may be absent. `refs` is how many entries may be referred to.
    """

    fields: Mapping[str, Field] | None = None
    optional: bool = False
    refs: range = range(MAX_REFS + 1)
    variants: Mapping[str, Mapping[str, Field]] | None = None


_NODE: Final = Field(bytes, range(16, 17))
_TAG: Final = Field(bytes, range(16, 17), optional=True)
_HASH: Final = Field(bytes, range(32, 33))
_COMMITMENT: Final = Field(bytes, range(32, 33), optional=True)
_TIME: Final = Field(int, range(2**63))
_EXPIRES: Final = Field(int, range(2**63), optional=True)
_CARD: Final = Field(bytes, range(1, MAX_CARD + 1))
_ONE: Final = range(1, 2)

_NONE: Final = Terms()
TERMS: Final[Mapping[str, Terms]] = MappingProxyType(
    {
        # origin, size and root of the log that the node kept before
        "ledger.join": Terms(
            {"o": Field(str, range(1, 256)), "s": Field(int, range(2**63)), "r": _HASH}, refs=range(0, 1)
        ),
        # what is proposed: a card to take in, a member's new card, a member to retire, a validator's power
        "gov.propose": Terms(
            refs=range(0, 1),
            variants={
                ENROLL: {"c": _CARD},
                ROTATE: {"m": _NODE, "c": _CARD},
                RETIRE: {"m": _NODE},
                POWER: {"m": _NODE, "w": Field(int, range(MAX_POWER + 1))},
            },
        ),
        # yes or no to the proposal referred to
        "gov.vote": Terms({"y": Field(bool, range(2))}, refs=_ONE),
        # to whom, until when (none: until it is revoked), the study's key generation
        "consent.grant": Terms(
            {"to": _NODE, "x": _EXPIRES, "g": Field(int, range(2**31), optional=True)}, optional=True
        ),
        "consent.revoke": Terms(),
        # the grant; c: the commitment of the grant, as the receiver found it; w, with outcome 8: why it was not taken
        "share.receipt": Terms(
            {"c": _COMMITMENT, "w": Field(int, range(1, len(SHARE_REFUSALS) + 1), optional=True)},
            optional=True,
            refs=_ONE,
        ),
        # the grant, whose keys are gone
        "share.end": Terms(refs=_ONE),
        # whose study, until when, its tag there
        "emergency.start": Terms({"of": _NODE, "x": _TIME, "s": _TAG}),
        "emergency.end": Terms(refs=_ONE),
        # who is to keep the sealed blocks, its tag there, the commitment to the StudyRoot
        "replica.assign": Terms({"to": _NODE, "s": _TAG, "c": _COMMITMENT}),
        "replica.receipt": Terms({"c": _COMMITMENT}, optional=True, refs=_ONE),
        "replica.release": Terms(refs=_ONE),
    }
)
DEMANDING: Final = frozenset(
    name
    for name, of in TERMS.items()
    if of.variants is not None or (of.fields is not None and not of.optional) or 0 not in of.refs
)
"""Types whose entries are none without a body or a reference."""


def encode(type: str, body: Mapping[str, object]) -> bytes:
    """The canonical encoding of a body; raises CodecError when it is not one of this type."""
    encoded = codec.encode(body)
    read(type, encoded)
    return encoded


def read(type: str, body: bytes) -> Mapping[str, codec.Value]:
    """The fields of an encoded body; raises CodecError when it is not one of this type in its one encoding."""
    value: Any = codec.decode(body)
    of = TERMS.get(type, _NONE)
    fields = of.fields
    if of.variants is not None and builtin(value, dict):
        word = value.get("do")
        fields = of.variants.get(word) if builtin(word, str) else None
        if fields is None:
            raise CodecError(f"{type} proposes what is not known")
        value = {name: item for name, item in value.items() if name != "do"}
    if fields is None:
        raise CodecError(f"{type} has no body")
    if not builtin(value, dict) or not value:
        raise CodecError(f"the body of {type} is a map of its fields")
    _compare(type, fields, value)
    return value if of.variants is None else {"do": word, **value}


def check(type: str, body: bytes | None, refs: Sequence[bytes]) -> None:
    """Raise CodecError unless an entry of this type may have this body and refer to these entries."""
    of = TERMS.get(type, _NONE)
    if builtin(refs, tuple) is False or len(refs) not in of.refs:
        raise CodecError(f"{type} refers to another number of entries")
    if any(not builtin(ref, bytes) or len(ref) != REF_SIZE for ref in refs):
        raise CodecError(f"an entry is referred to by its {REF_SIZE} bytes")
    if body is None:
        if of.variants is not None or (of.fields is not None and not of.optional):
            raise CodecError(f"{type} has a body")
        return
    if not builtin(body, bytes):
        raise CodecError("a body is encoded")
    read(type, body)


def builtin(value: object, kind: type[object]) -> bool:
    """Whether a value is of exactly this type: True is no integer here."""
    return value.__class__ is kind


def _compare(type: str, fields: Mapping[str, Field], value: Mapping[str, Any]) -> None:
    for name in value:
        if name not in fields:
            raise CodecError(f"the body of {type} has no field {name[:16]}")
    for name, field in fields.items():
        if name not in value:
            if not field.optional:
                raise CodecError(f"the body of {type} lacks {name}")
            continue
        item = value[name]
        if not builtin(item, field.kind):
            raise CodecError(f"{name} of {type} has another type")
        if (len(item) if isinstance(item, bytes | str) else int(item)) not in field.allowed:
            raise CodecError(f"{name} of {type} is out of its range")
        if isinstance(item, str) and not _ORIGIN.fullmatch(item):
            raise CodecError(f"{name} of {type} holds other characters than an origin")
