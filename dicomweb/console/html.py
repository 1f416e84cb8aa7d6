"""Text into markup: the one place where anything is escaped. Pure.

Whatever is not `Html` already is text and is escaped, so that a patient's name or an AE title cannot become markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias
from urllib.parse import quote

_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta"})
# Characters that HTML cannot hold, and those that turn the direction of the text around them.
_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Html(str):
    """Markup, to be sent as it is."""

    __slots__ = ()


Content: TypeAlias = "str | int | Html | Iterable[Content] | None"


def text(value: Content) -> Html:
    """Content as markup: text escaped, None nothing, sequences one after the other."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html()
    if isinstance(value, str | int):
        return Html(escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value))))
    return Html("".join(text(one) for one in value))


def tag(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """An element. Attributes that are None or False are left out, True ones have no value.

    An underscore in an attribute's name stands for a hyphen, one at its end (`class_`, `for_`) for nothing. Raises
    ValueError for a name that is none; and for `style` and `on...`, which the Content-Security-Policy would refuse.
    """
    parts = [name]
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(label) or label == "style" or label.startswith("on"):
            raise ValueError(f"{label} is no attribute of a page")
        if value is True:
            parts.append(label)
        elif value is not None and value is not False:
            parts.append(f'{label}="{text(f"{value:g}" if isinstance(value, float) else value)}"')
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name} is no element")
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _VOID else f"{opening}{text(content)}</{name}>")


def link(address: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Html:
    """A link inside this server. Raises ValueError for an address that is no path, query or fragment of it."""
    if not address.startswith(("/", "?", "#")) or address.startswith(("//", "/\\")):
        raise ValueError("a link leads to a path of this server")
    return tag("a", *content, href=address, **attributes)


def path(*segments: str) -> str:
    """An absolute path of these segments, each percent-encoded whole."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)
