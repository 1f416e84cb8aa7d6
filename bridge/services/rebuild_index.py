"""`cairn rebuild-index`: a new index from packs and keys alone.

    (1) the old index is set aside, never overwritten
    (2) every pack is read; every whole block's position enters the new index
    (3) every instance block whose key is held is opened, and its rows are made again from the sealed metadata
    (4) the studies' manifests are made again when their next batch closes

What lies only in the index does not come back: tokens, sessions, and the sealed details of past records (the ledger's
entries stay, with their hashes). `cairn backup` keeps these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.pack_format import packs_in
from bridge.content.scan import rebuild
from bridge.content.sealed_metadata import inflate
from bridge.dicom import attributes
from bridge.errors import CairnError, ContentCorrupt
from bridge.index.rows import rebuilt
from bridge.model import BlockPosition
from bridge.node import Node
from bridge.services.metadata import open_metadata

Report = Callable[[str], None]


def set_aside(home: Path) -> Path | None:
    """(1) Rename index.db and its journal files; the new name of the database, or None when there was none."""
    database = home / "index.db"
    if not database.exists():
        return None
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    for suffix in ("", "-wal", "-shm"):
        part = home / f"index.db{suffix}"
        if part.exists():
            part.replace(home / f"index.db.{stamp}{suffix}")
    return home / f"index.db.{stamp}"


def rebuild_index(node: Node, report: Report) -> dict[str, int]:
    """(2), (3) Fill an empty index; counts of blocks and instances, and of instances that could not be opened."""
    links: list[bytes] = []
    blocks = 0
    for path in packs_in(node.settings.home / "packs"):
        report(f"reading pack {path.name}")
        waiting: list[BlockPosition] = []
        for position in rebuild(path):
            waiting.append(position)
            blocks += 1
            if cids.parse(position.cid).codec == cids.DAG_CBOR:
                links.append(position.cid)
            if len(waiting) == 1000:
                node.index.add_blocks(waiting)
                waiting = []
        node.index.add_blocks(waiting)
    instances = lost = 0
    for link in links:
        try:
            block = manifest.decode_instance(node.content.get(link))
        except ContentCorrupt:
            continue  # a page or a root
        try:
            metadata = open_metadata(node.content, node.keys, link)
        except CairnError as error:
            lost += 1
            report(f"{cids.to_text(link)}: {error.detail}")
            continue
        found = attributes.extract(json.loads(inflate(metadata.json)))
        node.index.add_instance(rebuilt(metadata, block, link, found), block.study, node.keys.origin_of(block.study))
        instances += 1
    return {"blocks": blocks, "instances": instances, "not_opened": lost}
