"""What a route is: a path template, and for each method a transaction with its handler and what it needs.

From these the application, the capabilities (PS3.18 8.9) and the OpenAPI document are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from starlette.convertors import Convertor, register_url_convertor

from bridge.dicom.uids import PATTERN
from bridge.errors import RequestError
from bridge.model import Action
from dicomweb.exchange import Handler

_SHOWN = 64


class _Uid(Convertor[str]):
    """A UID in a path, with what is let through as one everywhere."""

    regex = PATTERN

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("uid", _Uid())


class Parameter(NamedTuple):
    """A query parameter: name, what it means, its JSON Schema, whether it may be repeated, whether it must be there."""

    name: str
    meaning: str
    schema: Mapping[str, object]
    repeated: bool = False
    required: bool = False


class Transaction(NamedTuple):
    """What a method does: its name in the capabilities, its handler (None: storing, which streams), what it needs.

    `parameters` are all that the query string may hold and `gives` the media types of the answer; for DICOMweb
    transactions both are those of PS3.18 and left empty here.
    """

    name: str
    handler: Handler | None
    action: Action | None
    parameters: tuple[Parameter, ...] = ()
    gives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource: its path template below its root, and its transactions by method."""

    path: str
    methods: Mapping[str, Transaction]


def arguments(given: Iterable[tuple[str, str]], known: Sequence[Parameter]) -> dict[str, list[str]]:
    """The values of each parameter, by name. Raises RequestError for one that is not known, missing or given twice."""
    table = {parameter.name: parameter for parameter in known}
    found: dict[str, list[str]] = {}
    for name, value in given:
        parameter = table.get(name)
        if parameter is None:
            names = ", ".join(table) or "none"
            raise RequestError(f"{shown(name)} is not a parameter of this resource; there are: {names}")
        if name in found and not parameter.repeated:
            raise RequestError(f"{name} is given more than once")
        found.setdefault(name, []).append(value)
    for parameter in known:
        if parameter.required and parameter.name not in found:
            raise RequestError(f"{parameter.name} is missing")
    return found


def number(name: str, text: str, least: int, most: int) -> int:
    """A decimal number without sign. Raises RequestError naming the parameter."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise RequestError(f"{name} is not a whole number from {least} to {most}")
    return int(text)


def shown(name: str) -> str:
    """A parameter's name as a message may repeat it: a short word of letters and digits."""
    return name if len(name) <= _SHOWN and name.isascii() and name.replace(".", "").isalnum() else "A parameter"
