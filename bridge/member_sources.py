"""The gateways of the members of [[members.peers]] that have a url, as sources of blocks for this node."""

from __future__ import annotations

import ssl
from functools import partial

from bridge.config import Member, Members
from bridge.content.gateway_client import GatewayClient
from bridge.members_listener import first_certificate, pinned


def member_sources(members: Members) -> list[GatewayClient]:
    """One for each member with a url, in their order; none where this node has no certificate to show."""
    if members.certificate is None:
        return []
    return [GatewayClient(peer.name, peer.url, partial(_context, members, peer)) for peer in members.peers if peer.url]


def _context(members: Members, peer: Member) -> ssl.SSLContext:
    """What this node demands of that member: TLS 1.3, and its very certificate, whatever name it bears."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    return pinned(context, members, [first_certificate(peer.certificate)])
