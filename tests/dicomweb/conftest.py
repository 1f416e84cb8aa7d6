"""Fixtures of the DICOMweb tests: a node in memory and a client of the application in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from node_in_memory import Client, FakeNode

from dicomweb.app import create_app


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as running:
        yield running


@pytest.fixture
def anonymous(node: FakeNode, portal: BlockingPortal) -> Iterator[Client]:
    """A client on loopback that sends no header of its own."""
    client = Client(portal, create_app(node))  # type: ignore[arg-type]
    yield client
    portal.call(client.http.aclose)


@pytest.fixture
def client(anonymous: Client) -> Client:
    """A client with an administrator's token that accepts anything."""
    anonymous.headers = {"authorization": "Bearer admin", "accept": "*/*"}
    return anonymous
