"""A node's part in sharing: what the recipes of `services.share` and those behind it work with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from bridge.index.rows import rebuilt
from bridge.ledger_reading import origin_of
from bridge.model import Adopted, AdoptedTree, BlockPosition
from bridge.services import import_study
from bridge.services.end_share import Ending
from bridge.services.import_study import Recorded
from bridge.services.receive_share import Receiver
from bridge.services.received_study import ReceivedInstance
from bridge.services.share import Sharing

if TYPE_CHECKING:
    from bridge.node import Node

__all__ = ["INCOMING", "ending_of", "importer_of", "receiver_of", "sharing_of"]

INCOMING: Final = "incoming"


def sharing_of(node: Node) -> Sharing | None:
    """What gives and ends shares at a node; None where it is in no consortium, or has no certificate to show."""
    if node.consortium is None or node.gateways is None:
        return None
    return Sharing(
        keystore=node.keystore,
        log=origin_of(node.settings, node.keystore),
        consortium=node.consortium,
        statements=node.statements,
        shares=node.index.shares,
        trees=node.index.trees,
        content=node.content,
        keys=node.keys,
        listener=node.gateways.of,
    )


def importer_of(node: Node) -> import_study.Recipient:
    """Who takes in studies at a node."""

    def take(
        tree: AdoptedTree, instances: Sequence[ReceivedInstance], blocks: Sequence[BlockPosition], recorded: Recorded
    ) -> Future[Adopted]:
        rows = [rebuilt(each.metadata, each.block, each.link, each.attributes, each.placed) for each in instances]
        return node.index.adopt(tree, rows, blocks, recorded)

    return import_study.Recipient(
        keystore=node.keystore,
        content=node.content,
        keys=node.keys,
        batches=node.batches,
        provenance=node.store.provenance,
        take=take,
        tree=node.index.trees.by_tag,
        position=node.packs.position,
        index_blocks=node.index.add_blocks,
        require_room=node.packs.require_room,
    )


def receiver_of(node: Node, sharing: Sharing) -> Receiver:
    """Who takes in what members grant a node."""
    return Receiver(
        sharing=sharing,
        importer=importer_of(node),
        access=node.access,
        incoming=node.settings.home / INCOMING,
        most=node.settings.sharing.incoming_bytes,
        lock=threading.Lock(),
    )


def ending_of(node: Node, receiver: Receiver) -> Ending:
    """Who gives up what has ended."""

    def kept_for_others(tag: bytes) -> bool:
        return any(row.kept is not None for row in node.index.replicas_in.of_tag(tag))

    return Ending(receiver, node.index.pins.of_tree, node.packs.release, kept_for_others)
