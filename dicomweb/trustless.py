"""What a request asks of the trustless gateway: format, CAR parameters, dag-scope and entity-bytes. Pure.

After the IPFS "Trustless Gateway Specification" (sections "HTTP Request" and "CAR format signaling in Request"). What
its query parameters say goes before the Accept header; a request that names no format at all is refused, since
nothing here is given deserialised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bridge.errors import NotAcceptable, RequestError
from dicomweb.media_types import MediaType, parse_accept
from dicomweb.resource import Parameter

Format = Literal["raw", "car"]
RAW: Final = "application/vnd.ipld.raw"
CAR: Final = "application/vnd.ipld.car"
_FORMATS: Final[Mapping[str, Format]] = {RAW: "raw", CAR: "car"}
_ELSEWHERE: Final = frozenset({"ipns-record", "tar", "json", "cbor", "dag-json", "dag-cbor", "html", "dir-index-html"})
_SCOPES: Final = ("block", "entity", "all")
_CHOICES: Final = {"version": ("1",), "order": ("dfs", "unk"), "dups": ("y", "n")}
_SPAN: Final = re.compile(r"(-?[0-9]{1,18}):(-?[0-9]{1,18}|\*)\Z")
_FILENAME: Final = re.compile(r"[^\x00-\x1f\x7f\"\\/]{1,200}\Z")

PARAMETERS: Final = (
    Parameter("format", "raw: the block alone; car: a CAR of it and what is below", {"enum": ["raw", "car"]}),
    Parameter("dag-scope", "How much below the path's end a CAR holds; all by default", {"enum": list(_SCOPES)}),
    Parameter("entity-bytes", "FROM:TO, the bytes of a file whose blocks a CAR holds", {"type": "string"}),
    Parameter("car-version", "The version of the CAR", {"enum": ["1"]}),
    Parameter("car-order", "The order of the blocks; it is dfs whatever is asked for", {"enum": ["dfs", "unk"]}),
    Parameter("car-dups", "Whether blocks are repeated; n by default", {"enum": ["y", "n"]}),
    Parameter("filename", "The name that a download is saved under", {"type": "string"}),
    Parameter("download", "Without effect: the answer is always a download", {"type": "string"}),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    `scope` is a dag-scope; `span` the first and last byte of entity-bytes (negative: from the end; None: the end);
    `duplicates` whether a block is repeated in a CAR; `told` whether the query parameters alone say all of it.
    """

    format: Format
    scope: Literal["block", "entity", "all"] = "all"
    span: tuple[int, int | None] | None = None
    duplicates: bool = False
    filename: str | None = None
    told: bool = True

    @property
    def media_type(self) -> str:
        """Content-Type, with every parameter of a CAR."""
        return RAW if self.format == "raw" else f"{CAR}; version=1; order=dfs; dups={'y' if self.duplicates else 'n'}"

    @property
    def query(self) -> str:
        """The query string that asks for the same without any header; in one form, so that it can stand in an ETag."""
        if self.format == "raw":
            return "format=raw"
        first, last = self.span or (0, None)
        span = f"&entity-bytes={first}:{'*' if last is None else last}" if self.span else ""
        return f"format=car&dag-scope={self.scope}{span}&car-dups={'y' if self.duplicates else 'n'}"


def wanted(parameters: Sequence[tuple[str, str]], accept: str | None) -> Wanted:
    """Read a request.

    Parameters
    ----------
    parameters
        The decoded query parameters; ones that are not of the specification are ignored.
    accept
        The Accept header.

    Raises
    ------
    NotAcceptable
        for a format that is not given here, or when nothing that is accepted is.
    RequestError
        when no format is named, and for a parameter's value that means nothing.
    """
    query = _once(parameters)
    ranges = _preferred(accept)
    named = query.get("format")
    if named is not None and named not in _FORMATS.values():
        if named in _ELSEWHERE:
            raise NotAcceptable("the format is not given here; available: raw, car")
        raise RequestError("format is raw or car")
    fitting = [found for found in ranges if named in (None, _FORMATS.get(found.essence))]
    if named is None:
        _refuse_nothing_named(accept, fitting)
    chosen = fitting[0] if fitting else None
    format = named or (_FORMATS[chosen.essence] if chosen else "raw")
    filename = query.get("filename")
    if filename is not None and not _FILENAME.match(filename):
        raise RequestError("filename is no name of a file")
    if format == "raw":
        return Wanted("raw", "block", filename=filename, told=named is not None)
    return _car(query, chosen, filename, told=named is not None)


def _car(query: Mapping[str, str], chosen: MediaType | None, filename: str | None, *, told: bool) -> Wanted:
    said = dict(chosen.parameters) if chosen else {}
    for name, choices in _CHOICES.items():
        value = query.get(f"car-{name}")
        if value is not None:
            if value not in choices:
                raise RequestError(f"car-{name} is {' or '.join(choices)}")
            said[name] = value
        elif name in said:
            told = told and name == "version"
    scope = query.get("dag-scope")
    if scope is not None and scope not in _SCOPES:
        raise RequestError("dag-scope is block, entity or all")
    span = _span(query.get("entity-bytes"))
    return Wanted(
        "car",
        scope or ("entity" if span else "all"),  # type: ignore[arg-type]
        span,
        said.get("dups") == "y",
        filename,
        told,
    )


def _refuse_nothing_named(accept: str | None, fitting: Sequence[MediaType]) -> None:
    if fitting:
        return
    if accept is None or any(found.essence in ("*/*", "application/*") for found in parse_accept(accept)):
        raise RequestError("say by format=raw or format=car, or by Accept, what is wanted")
    raise NotAcceptable(f"nothing that is accepted is given here; available: {RAW}, {CAR}")


def _preferred(accept: str | None) -> list[MediaType]:
    """The ranges of an Accept header that can be served, the most wanted first."""
    found = [one for one in parse_accept(accept or "") if one.essence in _FORMATS and one.quality > 0 and _served(one)]
    return sorted(found, key=lambda one: -one.quality)


def _served(one: MediaType) -> bool:
    return one.essence == RAW or all(
        one.parameters[name] in choices for name, choices in _CHOICES.items() if name in one.parameters
    )


def _once(parameters: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parameters:
        if name in found and any(name == known.name for known in PARAMETERS):
            raise RequestError(f"{name} is given more than once")
        found[name] = value
    return found


def _span(text: str | None) -> tuple[int, int | None] | None:
    """entity-bytes: `from:to`. Raises RequestError for another form, and for one that ends before it begins."""
    if text is None:
        return None
    match = _SPAN.match(text)
    if match is None:
        raise RequestError("entity-bytes is FROM:TO, TO a number or *")
    first, last = int(match[1]), None if match[2] == "*" else int(match[2])
    if last is not None and last < first and (first < 0) == (last < 0):
        raise RequestError("entity-bytes ends before it begins")
    return first, last
