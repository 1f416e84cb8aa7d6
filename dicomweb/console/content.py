"""Where a study lies: its tree of blocks, drawn and counted; packs, engine, pins, copies, when it was last verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from bridge.model import StudyContent, TreeContent
from dicomweb.console import charts, dag, lookup, page, words
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.exchange import Exchange

MOST: Final = 1000
"""Instances that are looked at for one page; the command `cairn study show` looks at all."""
_SHOWN_PACKS: Final = 12
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "root": ("Root", "Roots"),
    "page": ("Page", "Pages"),
    "instance": ("Instance block", "Instance blocks"),
    "metadata": ("Sealed metadata", "Sealed metadata"),
    "node": ("File node", "File nodes"),
    "leaf": ("Leaf", "Leaves"),
}
"""One and several blocks of a kind."""


def show(exchange: Exchange) -> Response:
    """`GET /console/studies/{study}/content`. Raises NotFound when the study is not held."""
    node, uid = exchange.node, exchange.path["study"]
    content = node.study_content(uid, MOST)
    note = lookup.notes(node, [uid]).get(uid)
    title = (note.description if note else "") or "Study"
    story = link(path("console", "studies", uid), "Story of the study")
    body = [
        tag("nav", tag("p", link("/console/", "Timeline"), " / ", story, " / Content"), aria_label="Place"),
        tag("h1", f"{title}: where it lies"),
        tag("p", tag("code", uid), class_="meta"),
        [page.note("The content engine: ", fault, kind="bad") for fault in content.faults],
        [_tree(content, tree, number) for number, tree in enumerate(content.trees, 1)],
    ]
    document = page.page(f"Content of a study: {title}", body, section="/console/", who=exchange.actor.name)
    return page.answer(exchange, document)


def brief(content: StudyContent) -> Content:
    """A study's content in a line, for the page of its story."""
    tree = content.trees[0]
    if tree.tree.root is None:
        return "its batch is open"
    where = link(path("console", "studies", content.study, "content"), "where it lies")
    return (where, tag("small", _copies(tree), "; ", _verified(tree)))


def _tree(content: StudyContent, tree: TreeContent, number: int) -> Html:
    """One tree: its facts beside its picture and its counts."""
    title = "Tree of this node" if tree.tree.origin is None else "Tree of another node"
    which = f" ({number})" if len(content.trees) > 1 else ""
    return tag(
        "div",
        page.panel(title + which, _troubles(tree), page.facts(_facts(content, tree)), id_=f"tree-{number}"),
        page.panel("Its blocks" + which, dag.draw(tree, which), dag.listed(tree), id_=f"dag-{number}", class_="blocks"),
        page.panel("Counted" + which, _partly(tree), _counts(tree), id_=f"counts-{number}"),
    )


def _facts(content: StudyContent, tree: TreeContent) -> dict[str, Content]:
    root, total, origin = tree.tree.root, tree.total, tree.tree.origin
    held = (
        words.count(tree.tree.covered, "instance"),
        words.count(total.blocks, "block"),
        words.size(total.octets),
    )
    rows: dict[str, Content] = {
        "Root CID": tag("code", words.cid(root)) if root else "none yet: the batch of its images is open",
        "Made by": None if origin is None else f"node {origin.hex()}" if origin else "another node",
        "Holds": ", ".join(held),
        "Content engine": content.engine,
        "Pinned": words.stamp(tree.pinned) if tree.pinned is not None else _unpinned(content.engine),
        "Copies": _copies(tree),
        "Last verified": _verified(tree),
        "Lies in": _packs(tree),
    }
    return {name: value for name, value in rows.items() if value}


def _unpinned(engine: str) -> Content:
    return "not yet; the packs keep all that is stored" if engine == "embedded" else "not yet; the spool keeps it"


def _copies(tree: TreeContent) -> str:
    if tree.replicas is None or tree.wanted is None:
        return "in the packs of this node"
    said = f"{tree.replicas:,} of {words.count(tree.wanted, 'copy', 'copies')}"
    return said if tree.replicas >= tree.wanted else f"{said}: fewer than wanted"


def _verified(tree: TreeContent) -> Content:
    if tree.verified is None:
        return "not yet read back as a whole"
    return ("read back whole ", words.stamp(tree.verified))


def _packs(tree: TreeContent) -> Content:
    shares = [
        tag(
            "li",
            tag("code", f"{share.pack:08d}.car"),
            f": {words.count(share.blocks, 'block')}, {words.size(share.octets)}",
            " (trimmed: in the engine alone)" if share.trimmed else None,
        )
        for share in tree.packs[:_SHOWN_PACKS]
    ]
    if len(tree.packs) > _SHOWN_PACKS:
        shares.append(tag("li", f"and {words.count(len(tree.packs) - _SHOWN_PACKS, 'pack')} more"))
    return tag("ul", shares) if shares else None


def _troubles(tree: TreeContent) -> list[Html]:
    """What somebody should look at."""
    found = []
    if tree.unread:
        said = f"{words.count(tree.unread, 'block')} could not be read or found. "
        found.append(page.note(said, tag("code", "cairn fsck --content"), " says which, and mends them.", kind="bad"))
    if tree.replicas is not None and tree.wanted is not None and tree.replicas < tree.wanted:
        found.append(page.note(f"There are {tree.replicas} copies, and {tree.wanted} are wanted.", kind="warn"))
    return found


def _partly(tree: TreeContent) -> Html | None:
    if tree.counted >= tree.tree.covered:
        return None
    said = f"Of the first {tree.counted:,} of {tree.tree.covered:,} instances; "
    return tag("p", said, tag("code", "cairn study show"), " counts all.", class_="remark")


def _counts(tree: TreeContent) -> list[Html]:
    """Blocks and bytes by kind."""
    total = tree.total
    head = ("Kind", "Blocks", "Size")
    rows = [
        (
            _KINDS[kind][many.blocks > 1],
            f"{many.blocks:,}",
            words.size(many.octets),
        )
        for kind, many in tree.kinds.items()
        if many.blocks
    ]
    foot = tag(
        "tr",
        tag("th", "All", scope="row"),
        tag("td", f"{total.blocks:,}", data_label="Blocks", class_="figure"),
        tag("td", words.size(total.octets), data_label="Size", class_="figure"),
    )
    table = page.listing("Blocks of the tree by kind", head, rows, figures=head[1:], foot=foot)
    leaves = tree.kinds["leaf"].octets
    name = (
        f"{words.size(leaves)} of {words.size(total.octets)} are sealed images, the rest is what finds and opens them"
    )
    return [charts.share(leaves, total.octets, name), tag("p", name, class_="remark"), table]
