"""The listeners of other members, as sources of blocks for this node and to be asked for what members ask each other.

They are those of [[members.peers]] that have a url, and the active members of the consortium, by their cards.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from bridge.config import Member, Members
from bridge.content import cid as cids
from bridge.content.gateway_client import GatewayClient
from bridge.errors import CairnError, ContentCorrupt, ContentMissing, EngineFault
from bridge.members_listener import first_certificate, pinned
from bridge.ports import Consortium
from ledger import members

__all__ = ["Likely", "MemberGateways", "member_sources"]

MOST_ASKED: Final = 8
"""Members asked for one block that nobody is known to keep."""
_REMEMBERED: Final = 1024
_FOR_S: Final = 300.0
Wrong = Callable[[str, str], None]


def _ignored(name: str, cid: str) -> None:
    """A wrong block of which nobody is told."""


def member_sources(members: Members, wrong: Wrong = _ignored) -> list[GatewayClient]:
    """One for each member of the settings with a url, in their order; none where this node has no certificate to show.

    `wrong` is told the name of a member that offers another block than was asked for, and the CID.
    """
    if members.certificate is None:
        return []
    return [
        GatewayClient(peer.name, peer.url, partial(_context, members, peer), wrong=wrong)
        for peer in members.peers
        if peer.url
    ]


def _context(members: Members, peer: Member) -> ssl.SSLContext:
    return _pinned(members, first_certificate(peer.certificate))


def _pinned(members: Members, certificate: bytes) -> ssl.SSLContext:
    """What this node demands of that member: TLS 1.3, and its very certificate, whatever name it bears."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    return pinned(context, members, [certificate])


class Likely(NamedTuple):
    """A member that is likely to have a block: its node, and the root that the block lies below."""

    node: bytes
    root: bytes


class MemberGateways:
    """The listeners of the consortium's other members; as a source, of any block that one of them gives. Thread-safe.

    Parameters
    ----------
    consortium
        Who the members are now.
    settings
        `[members]`: what this node shows them.
    likely
        Which members keep the study that a block is of.
    wrong
        As of `member_sources`.
    rests
        As of `GatewayClient`.
    """

    def __init__(
        self,
        consortium: Consortium,
        settings: Members,
        likely: Callable[[bytes], Sequence[Likely]] = lambda cid: (),
        wrong: Wrong = _ignored,
        rests: bool = True,
    ) -> None:
        self._rests = rests
        self._consortium = consortium
        self._settings = settings
        self._likely = likely
        self._wrong = wrong
        self._lock = threading.Lock()
        self._clients: dict[bytes, tuple[bytes, str, GatewayClient]] = {}
        self._told: OrderedDict[tuple[bytes, bytes], float] = OrderedDict()

    def others(self) -> list[members.Member]:
        """Every other member, by name, those that are retired too, after the active ones. Raises StorageFault."""
        own = self._consortium.own()
        return [member for member in self._consortium.members() if own is None or member.node != own.node]

    def of(self, node: bytes) -> GatewayClient:
        """The listener of an active member. Raises EngineFault when there is no such member, StorageFault."""
        for member in self.others():
            if member.node == node and member.active:
                return self._client(member)
        raise EngineFault("this is no active member of the consortium")

    def __call__(self, cid: bytes) -> bytes:
        """The block, of those that are known to keep it, then of some others. Raises ContentMissing."""
        active = {member.node: member for member in self.others() if member.active}
        for likely in self._likely(cid):
            if likely.node in active:
                client = self._client(active.pop(likely.node))
                with contextlib.suppress(ContentMissing, ContentCorrupt, EngineFault):
                    if cid != likely.root:
                        self._tell(client, likely)
                    return client(cid)
        for member in list(active.values())[:MOST_ASKED]:
            with contextlib.suppress(ContentMissing, ContentCorrupt, EngineFault):
                return self._client(member)(cid)
        raise ContentMissing(f"no member gives the block {cids.to_text(cid)}")

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for _, _, client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, member: members.Member) -> GatewayClient:
        card = member.card
        with self._lock:
            certificate, url, client = self._clients.get(member.node, (b"", "", None))
            if client is None or (certificate, url) != (card.certificate, card.url):
                if client is not None:
                    client.close()
                context = partial(_pinned, self._settings, card.certificate)
                client = GatewayClient(member.name, card.url, context, wrong=self._wrong, rests=self._rests)
                self._clients[member.node] = card.certificate, card.url, client
            return client

    def _tell(self, client: GatewayClient, likely: Likely) -> None:
        """Ask for the root first: of many trees a gateway looks for a block in those that were asked for last."""
        now, key = time.monotonic(), (likely.node, likely.root)
        with self._lock:
            fresh = self._told.get(key, -_FOR_S) > now - _FOR_S
        if fresh:
            return
        with contextlib.suppress(CairnError):
            client(likely.root)
        with self._lock:
            self._told[key] = now
            self._told.move_to_end(key)
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)
