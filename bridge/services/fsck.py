"""`cairn fsck`: everything that was acknowledged is there, whole, and can be opened. Names the place of what is not.

(1) the index database is sound
(2) every pack is read from end to end; every block the index names hashes to its CID
(3) every block the index names lies in a pack that exists
(4) every instance: its key is held, its sealed metadata opens and says what the index says
(5) every batch: its records give the root that was closed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge.content import cid as cids
from bridge.content.pack_format import pack_number, packs_in
from bridge.content.scan import scan
from bridge.errors import CairnError
from bridge.node import Node
from bridge.services.metadata import open_metadata
from ledger import merkle

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: where, and what."""

    place: str
    what: str


def fsck(node: Node, report: Report, *, repair: bool = False) -> list[Finding]:
    """Every finding, in the order of the recipe; `repair` flags damaged instances, so that a re-send heals them."""
    findings: list[Finding] = []
    for title, check in (
        ("index", _index),
        ("packs", lambda n: _packs(n, report)),
        ("instances", lambda n: _instances(n, repair)),
        ("records", _records),
    ):
        report(f"checking {title}")
        for finding in check(node):
            report(f"{finding.place}: {finding.what}")
            findings.append(finding)
    return findings


def _index(node: Node) -> Iterator[Finding]:
    """(1)"""
    for problem in node.index.check():
        yield Finding("index.db", problem)


def _packs(node: Node, report: Report) -> Iterator[Finding]:
    """(2), (3)"""
    directory = node.settings.home / "packs"
    present = set()
    for path in packs_in(directory):
        number = pack_number(path)
        present.add(number)
        report(f"reading pack {path.name} ({path.stat().st_size >> 20} MiB)")
        superseded = node.index.superseded(number)
        for position, whole in scan(path, node.index.positions(number)):
            if not whole and position.offset not in superseded:
                block = f"block {cids.to_text(position.cid)}" if position.cid else "bytes that belong to no block"
                yield Finding(
                    f"pack {path.name} at byte {position.offset}", f"{block} damaged ({position.length} bytes)"
                )
    for number in node.index.packs():
        if number not in present:
            yield Finding(f"pack {number:08d}.car", "is named by the index and does not exist")


def _instances(node: Node, repair: bool) -> Iterator[Finding]:
    """(4)"""
    for instance, link in node.index.instances():
        place = f"instance {instance.key.sop}"
        try:
            metadata = open_metadata(node.content, node.keys, link)
            if (metadata.study, metadata.series, metadata.sop, metadata.digest) != (*instance.key, instance.digest):
                yield Finding(place, "the index says otherwise than its sealed metadata")
            node.retrieve.verify(instance)
        except CairnError as error:
            yield Finding(place, error.detail)
            if repair:
                node.index.mark_damaged(instance)


def _records(node: Node) -> Iterator[Finding]:
    """(5)"""
    for batch, root, leaves in node.index.closed_records():
        if merkle.root(leaves) != root:
            yield Finding(f"batch {batch}", "its records do not give the root that was closed")
