"""What `cairn study show` says, for people. Pure, and cheap to load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bridge.model import BLOCK_KINDS

__all__ = ["words"]

_NAMES: Final = {
    "root": ("root", "roots"),
    "page": ("page", "pages"),
    "instance": ("instance block", "instance blocks"),
    "metadata": ("sealed metadata", "sealed metadata"),
    "node": ("file node", "file nodes"),
    "leaf": ("leaf", "leaves"),
}
"""One and several blocks of a kind."""


def words(result: Mapping[str, Any]) -> str:
    """The answer of `show` for people."""
    lines = [f"study     {result['study']}", f"engine    {result['engine']}"]
    lines += [f"WRONG     {fault}" for fault in result["faults"]]
    for tree in result["trees"]:
        lines += ["", *_facts(tree, result["engine"]), "", *_drawn(tree)]
    return "\n".join(lines)


def _facts(tree: Mapping[str, Any], engine: str) -> Iterator[str]:
    yield f"root      {tree['root'] or 'none yet: its batch is open'}"
    yield f"made by   {'this node' if tree['origin'] is None else 'node ' + tree['origin']}"
    yield f"holds     {_many(tree['instances'], 'instance')}, {_many(tree['blocks'], 'block')}, {tree['bytes']:,} bytes"
    for kind in BLOCK_KINDS:
        many = tree["kinds"][kind]
        if many["blocks"]:
            yield f"            {many['blocks']:>9,} {_NAMES[kind][many['blocks'] > 1]:16} {many['bytes']:>15,} bytes"
    if tree["unread"]:
        yield f"WRONG     {_many(tree['unread'], 'block')} could not be read or found: see cairn fsck --content"
    for share in tree["packs"]:
        gone = ", trimmed: in the engine alone" if share["trimmed"] else ""
        held = f"{_many(share['blocks'], 'block')}, {share['bytes']:,} bytes"
        yield f"lies in   pack {share['pack']:08d}.car: {held}{gone}"
    if tree["pinned"] is None:
        yield "pinned    not yet" + ("; the packs keep all that is stored" if engine == "embedded" else "")
    else:
        yield f"pinned    {tree['pinned']}, {tree['replicas']} of {_many(tree['wanted'], 'copy', 'copies')}"
    yield f"verified  {tree['verified'] or 'not yet; cairn fsck --content does so now'}"


def _drawn(tree: Mapping[str, Any]) -> Iterator[str]:
    """The tree as a tree: root, pages, instances, leaves."""
    if tree["root"] is None:
        return
    yield f"root {tree['root']}"
    for page, turn, bar in _branches(tree["pages"], ""):
        yield f"{turn}page {page['cid']}  {_many(page['instances'], 'instance')}"
        hidden = page["instances"] - len(page["some"])
        for one, inner, _ in _branches(page["some"], bar, more=hidden > 0):
            yield f"{inner}instance {one['cid']}  {_many(one['leaves'], 'leaf', 'leaves')}, {one['bytes']:,} bytes"
        if hidden:
            yield f"{bar}└─ and {_many(hidden, 'instance')} more"


def _branches(
    items: Sequence[Mapping[str, Any]], before: str, *, more: bool = False
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Each item, what is drawn before it, and before what hangs on it."""
    for number, item in enumerate(items, 1):
        last = number == len(items) and not more
        yield item, before + ("└─ " if last else "├─ "), before + ("   " if last else "│  ")


def _many(number: int, unit: str, plural: str | None = None) -> str:
    return f"{number:,} {unit if number == 1 else plural or unit + 's'}"
