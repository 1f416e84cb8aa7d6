"""The application of the members' listener: sealed blocks, for members alone, and nothing else.

The listener has established by mutual TLS which member a connection is of and says so in the scope's state; no header
counts. A path that is not the gateway's is answered like any that does not exist.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.errors import Unauthenticated
from bridge.model import Action, Actor, ActorKind
from dicomweb import consensus, cosignature, emergencies, gateway, problems, replicas, shares, witness
from dicomweb.app import Endpoint
from dicomweb.exchange import Door, Exchange, headers_of
from dicomweb.node import Node
from dicomweb.posting import Post


class MembersDoor(Door):
    """A door where who asks is told by the connection's certificate."""

    def open(self, request: Request, action: Action | None) -> Exchange:
        """Authenticate by what the listener says, and authorise. Raises Unauthenticated, Forbidden; blocking."""
        scope = request.scope
        headers = headers_of(scope["headers"])
        origin = self.origin(request, {"host": headers.get("host", "")})  # nobody's forwarding headers are believed
        member = scope.get("state", {}).get("member")
        if not member:
            error = Unauthenticated("the certificate is not that of a member")
            self.node.access.unrecognised(error, origin.address)
            raise error
        actor = Actor(ActorKind.PEER, member, None, origin.address, "members")
        return self.admit(request, headers, origin, actor, action)


def create_app(node: Node) -> Starlette:
    """The application that serves `node` to members."""
    door = MembersDoor(node)
    routes = [
        Route(root + resource.path, Endpoint(door, root + resource.path, resource.methods))
        for root, resources in (
            (gateway.ROOT, gateway.RESOURCES),
            (cosignature.ROOT, cosignature.RESOURCES),
            (consensus.ROOT, consensus.RESOURCES),
        )
        for resource in resources
    ]
    routes += [
        Route(replicas.ROOT + resource.path, Endpoint(door, replicas.ROOT + resource.path, resource.methods))
        for resource in replicas.RESOURCES
    ]
    for path, largest, answer in (
        (witness.PATH, witness.LARGEST, witness.add_checkpoint),
        (shares.PATH, shares.LARGEST, shares.take),
        (emergencies.MEMBERS_PATH, emergencies.LARGEST, emergencies.take),
    ):
        routes.append(Route(path, Post(door, largest, answer)))
    app = Starlette(routes=routes, exception_handlers={404: _not_found, Exception: _fault})
    app.router.redirect_slashes = False
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    return problems.no_such_route()


async def _fault(request: Request, error: Exception) -> Response:
    return problems.internal_error()
