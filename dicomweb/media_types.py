"""Media types and content negotiation: PS3.18 8.7 and RFC 9110 section 12.5. Pure.

What clients really send decides the leniency here: values of `type` and `transfer-syntax` quoted or not
(PS3.18 8.7 holds them equal), parameters in any order and case, several ranges in one header, ranges that no server
knows (ignored, 8.7.5), and the legacy names `image/x-jls` and `image/x-dicom-rle` (Table 8.7.3-5 note 8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from bridge.errors import NotAcceptable, RequestError

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"
MULTIPART_RELATED = "multipart/related"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

_LEGACY = {"image/x-jls": "image/jls", "image/x-dicom-rle": "image/dicom-rle"}
_RENDERED = frozenset({"image/gif", "image/png", "text/html", "text/plain", "text/xml", "application/pdf"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ESSENCE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)/([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\Z")


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or range: lower-case `type/subtype` and its parameters (names lower-case, values unquoted)."""

    essence: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def multipart(self) -> bool:
        return self.essence == MULTIPART_RELATED

    @property
    def transfer_syntax(self) -> str | None:
        """The `transfer-syntax` parameter (PS3.18 8.7.3.5.2): one UID, `*`, or None when absent or empty."""
        return self.parameters.get("transfer-syntax") or None

    @property
    def part(self) -> str:
        """The media type of the parts of multipart/related (its `type`; `*/*` when absent), else the type itself."""
        if not self.multipart:
            return self.essence
        name = self.parameters.get("type", "*/*").lower()
        return _LEGACY.get(name, name)

    @property
    def quality(self) -> float:
        """The `q` parameter in 0..1 (RFC 9110 12.4.2); 1 when absent, 0 when it is not a number."""
        try:
            value = float(self.parameters.get("q", "1"))
        except ValueError:
            return 0.0
        return value if 0.0 <= value <= 1.0 else 0.0


def parse_media_type(text: str) -> MediaType | None:
    """The media type that `text` spells, or None when it spells none (RFC 9110 8.3.1)."""
    pieces = _split(text, ";")
    essence = pieces[0].strip().lower()
    if not _ESSENCE.match(essence):
        return None
    parameters: dict[str, str] = {}
    for piece in pieces[1:]:
        name, equals, value = piece.partition("=")
        name = name.strip().lower()
        if not piece.strip():
            continue
        if not equals or not _TOKEN.fullmatch(name) or name in parameters:
            return None
        parameters[name] = _unquote(value.strip())
    return MediaType(_LEGACY.get(essence, essence), parameters)


@lru_cache(maxsize=256)
def parse_accept(text: str) -> tuple[MediaType, ...]:
    """The ranges of an Accept header in its order; those that cannot be read are left out (PS3.18 8.7.5)."""
    ranges = (parse_media_type(piece) for piece in _split(text, ","))
    return tuple(found for found in ranges if found is not None)


def _split(text: str, separator: str) -> list[str]:
    """Split at `separator` outside quoted strings (RFC 9110 5.6.4)."""
    if '"' not in text:
        return text.split(separator)
    pieces: list[str] = []
    start = 0
    quoted = escaped = False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            pieces.append(text[start:position])
            start = position + 1
    pieces.append(text[start:])
    return pieces


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


@dataclass(frozen=True, slots=True)
class Offer:
    """One representation that a resource can give.

    `media_type` is that of the body, or of each part when `multipart`; `transfer_syntax` the UID that labels the
    bytes, None for JSON, `*` for a mixture (which only `*` or no parameter asks for); `wildcard` whether `*/*` may
    choose it, which only defaults do (PS3.18 8.7.7).
    """

    media_type: str
    transfer_syntax: str | None = None
    multipart: bool = False
    wildcard: bool = False

    def __str__(self) -> str:
        suffix = f"; transfer-syntax={self.transfer_syntax}" if self.transfer_syntax else ""
        if self.multipart:
            return f'{MULTIPART_RELATED}; type="{self.media_type}"{suffix}'
        return self.media_type + suffix


def choose(accept: str | None, query: Sequence[str], offers: Sequence[Offer]) -> Offer:
    """The offer that the request prefers: `accept` query parameters first, then the header (PS3.18 8.7.8.1).

    Among ranges the highest quality wins, then the more specific, then the earlier; among the offers that a range
    matches, the earlier. Raises NotAcceptable, listing what is available, when nothing matches or when there is
    neither header nor parameter (8.7.5).
    """
    for text in query:
        chosen = _best(parse_accept(text), offers)
        if chosen is not None:
            return chosen
    if accept is not None:
        chosen = _best(parse_accept(accept), offers)
        if chosen is not None:
            return chosen
    available = ", ".join(dict.fromkeys(str(offer) for offer in offers))
    cause = (
        "The request has no Accept header" if accept is None and not query else "Nothing that is accepted is at hand"
    )
    raise NotAcceptable(f"{cause}; available: {available}")


def _best(ranges: Iterable[MediaType], offers: Sequence[Offer]) -> Offer | None:
    refused = [found for found in ranges if found.quality == 0.0 and found.essence != "*/*"]
    wanted = [found for found in ranges if found.quality > 0.0]
    wanted.sort(key=lambda found: (-found.quality, -_specificity(found)))
    for found in wanted:
        for offer in offers:
            if _matches(found, offer) and not any(_matches(refusal, offer) for refusal in refused):
                return offer
    return None


def _specificity(found: MediaType) -> int:
    if found.essence == "*/*":
        return 0
    if found.part.endswith("/*"):
        return 1
    return 3 if found.transfer_syntax not in (None, "*") else 2


def _matches(found: MediaType, offer: Offer) -> bool:
    if found.essence == "*/*":
        return offer.wildcard
    if found.multipart != offer.multipart:
        return False
    wanted = found.part
    if wanted != "*/*" and wanted != offer.media_type:
        family, _, subtype = wanted.partition("/")
        if subtype != "*" or not offer.media_type.startswith(family + "/"):
            return False
    syntax = found.transfer_syntax
    return syntax is None or syntax == "*" or offer.transfer_syntax is None or syntax == offer.transfer_syntax


def refuse_mixture(accept: str | None) -> None:
    """Raise RequestError when an Accept header mixes DICOM and Rendered media types (PS3.18 8.7.5)."""
    if accept is None:
        return
    ranges = parse_accept(accept)
    if any(found.essence in _RENDERED for found in ranges) and any(
        found.multipart or found.essence.startswith(DICOM) for found in ranges
    ):
        raise RequestError("The Accept header mixes DICOM and Rendered media types (PS3.18 8.7.5)")
