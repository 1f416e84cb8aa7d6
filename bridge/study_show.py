"""`cairn study show UID`: where a study lies, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.content import cid as cids
from bridge.model import TreeContent
from bridge.node import Node
from bridge.services.provenance import iso
from bridge.services.study_content import study_content

Report = Callable[[str], None]


def show(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The content of a study. Raises NotFound, StorageFault."""
    study = str(arguments["study"])
    content = study_content(node.index, node.content.get, node.settings.content.engine, study)
    return {
        "study": content.study,
        "engine": content.engine,
        "faults": list(content.faults),
        "trees": [_tree(tree) for tree in content.trees],
    }


def _tree(content: TreeContent) -> dict[str, object]:
    tree = content.tree
    return {
        "origin": tree.origin.hex() if tree.origin else None,
        "root": cids.to_text(tree.root) if tree.root else None,
        "instances": tree.covered,
        "blocks": content.total.blocks,
        "bytes": content.total.octets,
        "unread": content.unread,
        "kinds": {kind: {"blocks": many.blocks, "bytes": many.octets} for kind, many in content.kinds.items()},
        "pages": [
            {
                "cid": cids.to_text(page.cid),
                "instances": page.instances,
                "some": [
                    {
                        "cid": cids.to_text(one.cid),
                        "object": cids.to_text(one.object),
                        "leaves": one.leaves,
                        "bytes": one.octets,
                    }
                    for one in page.some
                ],
            }
            for page in content.pages
        ],
        "packs": [
            {"pack": share.pack, "blocks": share.blocks, "bytes": share.octets, "trimmed": share.trimmed}
            for share in content.packs
        ],
        "pinned": _moment(content.pinned),
        "verified": _moment(content.verified),
        "replicas": content.replicas,
        "wanted": content.wanted,
    }


def _moment(time: int | None) -> str | None:
    return None if time is None else iso(time)
