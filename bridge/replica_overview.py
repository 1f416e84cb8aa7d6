"""Replicas and emergencies as pages and commands tell them (`bridge.consortium_model`)."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.consortium_model import Emergency, Replica
from bridge.index.emergencies import EmergencyRow
from bridge.index.index import SqlIndex
from bridge.index.replicas import OutRow
from bridge.index.replicas_kept import InRow

__all__ = ["emergencies", "replicas"]


def replicas(index: SqlIndex, study: str | None = None) -> Sequence[Replica]:
    """Sealed blocks kept at other members, then those kept here for them; of one study when it is named.

    Raises StorageFault.
    """
    lost = {node for node, peer in index.replicas_out.peers().items() if peer.lost}
    if study is None:
        out, kept = index.replicas_out.all(), index.replicas_in.all()
    else:
        tags = [tree.tag for tree in index.trees.of_study(study)]
        out = [row for tag in tags for row in index.replicas_out.of_tag(tag)]
        kept = [row for tag in tags for row in index.replicas_in.of_tag(tag)]
    return [*(_elsewhere(index, row, lost) for row in out), *(_here(index, row) for row in kept)]


def emergencies(rows: Sequence[EmergencyRow], own_name: str) -> Sequence[Emergency]:
    """Break-glass accesses across hospitals, of a node of this name."""
    return [
        Emergency(
            entry=row.entry,
            study=row.study,
            from_member=row.member if row.own else own_name,
            to_member=own_name if row.own else row.member,
            own=not row.own,
            reason=row.reason,
            started_us=row.started,
            ends_us=row.until if row.ended is None else min(row.ended, row.until),
            reviewed=row.reviewed is not None,
        )
        for row in rows
    ]


def _study_of(index: SqlIndex, tag: bytes) -> str | None:
    tree = index.trees.by_tag(tag)
    return tree.study if tree is not None else None


def _elsewhere(index: SqlIndex, row: OutRow, lost: set[bytes]) -> Replica:
    if row.released is not None:
        state = "released"
    elif row.node in lost:
        state = "lost"
    else:
        state = "kept" if row.kept == row.root else "assigned"
    since = row.confirmed if state == "kept" and row.confirmed is not None else row.assigned
    return Replica(_study_of(index, row.tag), row.tag, row.member, False, state, since, row.why)


def _here(index: SqlIndex, row: InRow) -> Replica:
    state = "kept" if row.kept is not None else "assigned"
    return Replica(_study_of(index, row.tag), row.tag, row.member, True, state, row.since or row.asked, row.trouble)
