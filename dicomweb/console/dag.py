"""A study's tree of blocks as a picture: root, pages, instances, leaves, from left to right; and the same as a list.

Pure. Colours come from the style sheet by class. What there is too much of is drawn in part and counted in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge.model import ManifestInstance, ManifestPage, TreeContent
from dicomweb.console import words
from dicomweb.console.html import Content, Html, tag

# Units of the drawing: columns of boxes, and rows of one instance each.
_BOX: Final = 108
_COLUMNS: Final = (0, 146, 292, 438)
_WIDTH: Final = 700
_ROW: Final = 38
_TOP: Final = 30
_HEIGHT: Final = 26
_LEAF: Final = 14
_PAGES: Final = 3
_INSTANCES: Final = {1: 7, 2: 4, 3: 3}
_LEAVES: Final = 4


def draw(content: TreeContent, which: str = "") -> Html:
    """The picture, in a frame that can be moved sideways where the page is narrow; nothing when there is no root."""
    if content.tree.root is None:
        return tag("p", "There is no root yet: the batch of its images is open.", class_="remark")
    pages = content.pages[:_PAGES]
    shown = [(page, _chosen(page.some, _INSTANCES[len(pages)])) for page in pages]
    boxes: list[Html] = []
    edges: list[Html] = []
    row = 0
    middles = []
    for page, instances in shown:
        rows = _page(page, instances, row, edges, boxes)
        middles.append(row + (rows - 1) / 2)
        row += rows
    if len(content.pages) > _PAGES:
        boxes.append(_more(_COLUMNS[1], row, f"and {words.count(len(content.pages) - _PAGES, 'page')} more"))
        row += 1
    middle = (middles[0] + middles[-1]) / 2 if middles else 0.0
    for at in middles:
        edges.append(_edge(0, middle, 1, at))
    boxes.append(_box(0, middle, content.tree.root, "root", "root"))
    height = _TOP + max(row, 1) * _ROW
    name = summary(content)
    picture = tag(
        "svg",
        tag("title", name),
        [tag("text", head, x=x, y=14, class_="head") for head, x in zip(_HEADS, _COLUMNS, strict=True)],
        edges,
        boxes,
        viewBox=f"0 0 {_WIDTH} {height}",
        class_="dag",
        role="img",
        aria_label=name,
    )
    return tag("div", picture, class_="tree", tabindex=0, role="region", aria_label=f"Drawing of the tree{which}")


_HEADS: Final = ("Root", "Pages", "Instances", "Leaves, 1 MiB at most")


def summary(content: TreeContent) -> str:
    """The tree in one sentence, as who cannot see the picture is told it."""
    kinds = content.kinds
    counted = "" if content.counted == content.tree.covered else f" (of {content.counted:,} of them)"
    return (
        f"The root names {words.count(len(content.pages), 'page')}, these name "
        f"{words.count(content.tree.covered, 'instance')}{counted} with "
        f"{words.count(kinds['leaf'].blocks, 'leaf', 'leaves')}, "
        f"{words.count(kinds['node'].blocks, 'file node')} and sealed metadata."
    )


def listed(content: TreeContent) -> Html:
    """The same as nested lists, with every CID whole."""
    if content.tree.root is None:
        return Html()
    pages = []
    for page in content.pages[: _PAGES * 4]:
        instances = [tag("li", _code(one.cid), _holds(one)) for one in page.some]
        if page.instances > len(page.some):
            instances.append(tag("li", f"and {words.count(page.instances - len(page.some), 'instance')} more"))
        held = tag("p", "Page ", _code(page.cid), f", {words.count(page.instances, 'instance')}")
        pages.append(tag("li", held, tag("ul", instances)))
    if len(content.pages) > _PAGES * 4:
        pages.append(tag("li", f"and {words.count(len(content.pages) - _PAGES * 4, 'page')} more"))
    body = (tag("p", "Root ", _code(content.tree.root)), tag("ul", pages))
    return tag("details", tag("summary", "As a list, with whole CIDs"), tag("div", body, class_="cids"))


def _chosen(some: tuple[ManifestInstance, ...], most: int) -> tuple[ManifestInstance, ...]:
    """At most so many, the last of them among these: it is the one of most leaves."""
    return some if len(some) <= most else (*some[: most - 1], some[-1])


def _page(
    page: ManifestPage, instances: Sequence[ManifestInstance], row: int, edges: list[Html], boxes: list[Html]
) -> int:
    """Draw a page and its first instances from a row on; how many rows it takes."""
    hidden = page.instances - len(instances)
    rows = max(len(instances) + bool(hidden), 1)
    middle = row + (rows - 1) / 2
    for number, one in enumerate(instances):
        edges.append(_edge(1, middle, 2, row + number))
        boxes.append(_box(2, row + number, one.cid, "instance"))
        edges.append(_edge(2, row + number, 3, row + number))
        boxes.append(_leaves(one, row + number))
    if hidden:
        edges.append(_edge(1, middle, 2, row + rows - 1, "way hidden"))
        boxes.append(_more(_COLUMNS[2], row + rows - 1, f"and {hidden:,} more" if instances else f"{hidden:,}"))
    boxes.append(_box(1, middle, page.cid, "page"))
    return rows


def _leaves(one: ManifestInstance, row: int) -> Html:
    """A square for each leaf, as many as are told apart at a glance; their number, where it is not one, and size."""
    x, y = _COLUMNS[3], _y(row) + (_HEIGHT - _LEAF) / 2
    squares = [
        tag("rect", x=x + number * (_LEAF + 3), y=y, width=_LEAF, height=_LEAF, rx=2)
        for number in range(min(one.leaves, _LEAVES))
    ]
    after = x + len(squares) * (_LEAF + 3) + 4
    said = words.size(one.octets)
    text = said if one.leaves == 1 else f"{words.count(one.leaves, 'leaf', 'leaves')}, {said}"
    label = tag("text", text, x=after, y=_y(row) + _HEIGHT / 2 + 5)
    name = tag("title", f"{words.count(one.leaves, 'leaf', 'leaves')}, {words.size(one.octets)} with its metadata")
    return Html(tag("g", name, squares, class_="leaves") + label)


def _box(column: int, row: float, cid: bytes, kind: str, name: str = "") -> Html:
    x, y = _COLUMNS[column], _y(row)
    frame = tag("rect", x=x + 1, y=y, width=_BOX - 2, height=_HEIGHT, rx=6)
    text = tag("text", "…", words.cid(cid)[-9:], x=x + _BOX / 2, y=y + _HEIGHT / 2 + 5, text_anchor="middle")
    return tag("g", tag("title", f"{name or kind} {words.cid(cid)}"), frame, text, class_=f"block {kind}")


def _more(x: float, row: float, text: str) -> Html:
    return tag("text", text, x=x + 8, y=_y(row) + _HEIGHT / 2 + 5, class_="more")


def _edge(column: int, row: float, to: int, at: float, kind: str = "way") -> Html:
    """A curve from the right side of a box to the left side of one in the next column."""
    x, end = _COLUMNS[column] + _BOX, _COLUMNS[to] - (4 if to == 3 else 0)
    y, below = _y(row) + _HEIGHT / 2, _y(at) + _HEIGHT / 2
    bend = (end - x) / 2
    curve = f"M{x:g} {y:g} C{x + bend:g} {y:g} {end - bend:g} {below:g} {end:g} {below:g}"
    return tag("path", d=curve, class_=f"edge {kind}")


def _y(row: float) -> float:
    return _TOP + row * _ROW


def _code(cid: bytes) -> Html:
    return tag("code", words.cid(cid))


def _holds(one: ManifestInstance) -> Content:
    return f", {words.count(one.leaves, 'leaf', 'leaves')}, {words.size(one.octets)}"
