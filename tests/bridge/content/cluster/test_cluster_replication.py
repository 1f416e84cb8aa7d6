"""What is read from IPFS Cluster's answers about a pin, and what is done next."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.content.cluster import replication
from bridge.content.cluster.replication import Need, Standing, from_document, needs


def document(allocations: list[str], **statuses: str) -> dict[str, Any]:
    """An answer of `GET /pins/{cid}` as v1.1.6 gives it; the peers are named like their ids."""
    return {
        "cid": "bafyr4i",
        "allocations": allocations,
        "peer_map": {
            peer: {"peername": peer, "status": status, "error": "dial tcp\nat length" if "error" in status else ""}
            for peer, status in statuses.items()
        },
    }


def standing(allocations: list[str], **statuses: str) -> Standing:
    return from_document(document(allocations, **statuses))


def test_copies_are_the_peers_that_say_pinned() -> None:
    found = standing(["a", "b", "c"], a="pinned", b="pinned", c="pinning", d="remote")
    assert found.replicas == 2
    assert found.under_way
    assert found.troubles == ()


def test_what_failed_is_told_by_peer_in_one_line() -> None:
    found = standing(["a", "b"], b="pin_error", a="cluster_error", c="unexpectedly_unpinned")
    assert found.troubles == ("a: dial tcp", "b: dial tcp", "c: unexpectedly_unpinned")
    assert not found.under_way


def test_a_pin_that_nobody_tracks_is_unknown() -> None:
    assert standing([], a="unpinned", b="unpinned") == replication.unknown
    assert standing([], a="unpinned", b="cluster_error") == replication.unknown
    assert replication.unknown.replicas == 0


@pytest.mark.parametrize(
    "odd",
    [[], {}, None, {"peer_map": []}, {"peer_map": {"a": {}}}, {"peer_map": {"a": {"status": 1}}}, {"peer_map": None}],
)
def test_an_answer_of_another_form_is_refused(odd: object) -> None:
    with pytest.raises(ValueError, match="in the answer"):
        from_document(odd)


@pytest.mark.parametrize(
    ("found", "alive", "need"),
    [
        (standing(["a", "b"], a="pinned", b="pinned"), "ab", Need.NOTHING),
        (standing(["a", "b"], a="pinned", b="pinning"), "ab", Need.WAIT),
        (standing(["a", "b"], a="pinned", b="pin_queued"), "ab", Need.WAIT),
        (replication.unknown, "ab", Need.ASK),
        (standing(["a"], a="pinned", b="remote"), "ab", Need.ASK),
        (standing(["a", "b"], a="pinned", b="pin_error"), "ab", Need.RECOVER),
        (standing(["a", "b"], a="pinned", b="unexpectedly_unpinned"), "ab", Need.RECOVER),
        (standing(["a", "b"], a="pinned", b="cluster_error"), "a", Need.WAIT),
        (standing(["a", "b"], a="pinned", b="cluster_error", c="remote"), "ac", Need.ASK),
        (standing(["a", "b", "c"], a="pinned", b="pinned", c="pin_error"), "abc", Need.NOTHING),
    ],
)
def test_what_a_pin_needs_for_two_copies(found: Standing, alive: str, need: Need) -> None:
    assert needs(found, 2, set(alive)) is need
