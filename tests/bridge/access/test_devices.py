"""Which application entities may associate: loopback until there is an allow-list, then the list alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from bridge.access.devices import Service, allowed, authorise
from bridge.errors import Forbidden
from bridge.model import Actor, ActorKind, Role


@dataclass
class Peer:
    ae_title: str
    host: str
    allow: Sequence[str] = ("store",)


PEERS = [
    Peer("CT1", "192.0.2.10"),
    Peer("PACS", "pacs.example", ("query", "retrieve")),
    Peer("PACS", "2001:db8::1", ("store", "commit")),
]


def resolve(host: str) -> list[str]:
    return {"pacs.example": ["192.0.2.20", "2001:DB8:0::20"]}.get(host, [])


def may(calling: str, address: str, peers: Sequence[Peer] = PEERS) -> set[str]:
    return {service.value for service in allowed(peers, calling, address, resolve)}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_without_a_list_anyone_stores_from_loopback(address: str) -> None:
    assert may("ANY", address, []) == {"verify", "store"}


@pytest.mark.parametrize("address", ["192.0.2.10", "::ffff:192.0.2.10", "2001:db8::1", "", "localhost"])
def test_without_a_list_nobody_does_anything_from_elsewhere(address: str) -> None:
    assert may("ANY", address, []) == set()


def test_with_a_list_a_peer_does_what_its_row_says_from_its_own_host() -> None:
    assert may("CT1", "192.0.2.10") == {"verify", "store"}
    assert may("CT1 ", "::ffff:192.0.2.10") == {"verify", "store"}
    assert may("PACS", "192.0.2.20") == {"verify", "query", "retrieve"}
    assert may("PACS", "2001:db8:0:0::20") == {"verify", "query", "retrieve"}
    assert may("PACS", "2001:db8::1") == {"verify", "store", "commit"}


@pytest.mark.parametrize(
    ("calling", "address"),
    [("CT1", "192.0.2.11"), ("ct1", "192.0.2.10"), ("OTHER", "192.0.2.10"), ("ANY", "127.0.0.1"), ("", "192.0.2.10")],
)
def test_with_a_list_all_others_are_refused(calling: str, address: str) -> None:
    assert may(calling, address) == set()
    with pytest.raises(Forbidden):
        authorise(PEERS, calling, address, resolve)


def test_a_device_that_may_store_is_an_actor_of_that_role() -> None:
    actor = authorise(PEERS, " CT1 ", "192.0.2.10", resolve)
    assert actor == Actor(ActorKind.DEVICE, "CT1", Role.DEVICE, "192.0.2.10", "dimse")
    assert authorise([], "ANY", "127.0.0.1").role is Role.DEVICE


def test_a_peer_without_store_is_refused_at_the_storage_listener() -> None:
    with pytest.raises(Forbidden):
        authorise(PEERS, "PACS", "192.0.2.20", resolve)


def test_a_name_that_does_not_resolve_lets_nobody_in() -> None:
    assert may("X", "192.0.2.1", [Peer("X", "unknown.example")]) == set()


def test_an_unknown_service_in_the_settings_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="print"):
        may("X", "192.0.2.1", [Peer("X", "192.0.2.1", ("print",))])
    assert Service("store") is Service.STORE
