"""What `cairn consortium members|propose|vote` do, at a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bridge.consortium import SharedConsortium
from bridge.consortium_model import Hindrance
from bridge.consortium_rotation import awaits_restart
from bridge.consortium_setup import Place, make_card, read_card
from bridge.crypto.next_key import make_next
from bridge.errors import ConfigError
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.govern import Governance
from bridge.services.provenance import iso
from ledger import genesis as ledger_genesis
from ledger import terms
from ledger.genesis import Card
from ledger.members import Evidence, Member, Proposal, State

Report = Callable[[str], None]
WAIT_S: Final = 10.0
"""Seconds for which a proposal or vote is waited for by default, to say what became of it."""
_LIES: Final = {1: "signed two blocks of one height", 2: "attacked a light client"}


def members(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Who belongs to the consortium, what is proposed, what was proved against whom. Raises ConfigError when solo."""
    consortium = _consortium(node)
    state, own = consortium.state(), consortium.own()
    return {
        "name": consortium.genesis.name,
        "ledger": consortium.genesis.ledger.hex(),
        "origin": consortium.genesis.origin,
        "height": consortium.height(),
        "quorum": state.quorum,
        "own": None if own is None else own.name,
        "restart": own is not None and awaits_restart(own, node.keystore),
        "members": [_member(state, member, own) for member in consortium.members()],
        "proposals": [_proposal(state, proposal) for proposal in consortium.proposals()],
        "evidence": [_evidence(state, row) for row in state.evidence],
        "waits": [{"what": row.what, "advice": row.advice} for row in _hindrances(node)],
    }


def _hindrances(node: Node) -> Sequence[Hindrance]:
    """Why entries of this node wait for their block."""
    return () if node.membership is None else node.membership.hindrances()


def propose(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Propose a change; its id once it is sealed, what became of it once it is final. Raises as `Governance`."""
    governance, do = _governance(node), str(arguments["do"])
    card = read_card(Path(arguments["card"])) if arguments.get("card") else None
    if do == terms.ROTATE and card is None:
        card = _next_card(node, arguments)
    plan = governance.plan(do, str(arguments.get("member") or ""), card, arguments.get("power"))
    root = governance.propose(OPERATOR, plan)
    return _stated(node, root, arguments, None)


def vote(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Vote on a proposal; what became of it once the vote is final. Raises as `Governance`."""
    governance = _governance(node)
    proposal = governance.proposal(str(arguments["proposal"]))
    root = governance.vote(OPERATOR, proposal.id, bool(arguments["yes"]))
    return _stated(node, root, arguments, proposal.id)


def _stated(node: Node, root: bytes, arguments: Mapping[str, Any], proposal: bytes | None) -> object:
    """What a statement became within the time that is waited; "sealed" is one that waits for its block."""
    wait = float(arguments["wait"]) if arguments.get("wait") is not None else WAIT_S
    entry = node.statements.entry_id(root, wait, final=True)
    final = entry is not None
    if entry is None:
        entry = node.statements.entry_id(root, 0.0, final=False)
    told: dict[str, object] = {
        "entry": None if entry is None else entry.hex(),
        "finality": "final" if final else "pending" if entry is not None else "not sealed",
    }
    about = proposal if proposal is not None else entry
    found = next((row for row in _consortium(node).proposals() if row.id == about), None)
    told["proposal"] = None if about is None else about.hex()
    told["state"] = _outcome(found) if found is not None else "pending" if not final else "without effect"
    return told


def _next_card(node: Node, arguments: Mapping[str, Any]) -> Card:
    """This node's new card: with the ledger key that is to follow, unless only its place or certificate is new."""
    own = _consortium(node).own()
    if own is None:
        raise ConfigError("this node is no member of the consortium yet")
    former = own.card
    peer = str(arguments.get("peer") or former.address.partition("@")[2])
    place = Place(former.name, str(arguments.get("url") or former.url), peer, own.power)
    if arguments.get("keep_key"):
        return make_card(node.settings, node.keystore, place)
    seed = make_next(node.settings.home, node.settings.keys.passphrase_file)
    return make_card(node.settings, node.keystore, place, seed)


def _member(state: State, member: Member, own: Member | None) -> Mapping[str, object]:
    return {
        "name": member.name,
        "node": member.node.hex(),
        "own": own is not None and member.node == own.node,
        "active": member.active,
        "power": member.power,
        "url": member.card.url,
        "address": member.card.address,
        "entries": state.chain(member.node).sequence,
        "key": member.keys[-1].key.hex(),
        "rotating": member.keys[-1].first is None,
        "fingerprint": ledger_genesis.fingerprint(member.card.signed),
        "joined": member.joined,
        "retired": member.retired,
    }


def _proposal(state: State, proposal: Proposal) -> Mapping[str, object]:
    def names(yes: bool) -> list[str]:
        return sorted(_name(state, node) for node, said in proposal.votes if said is yes)

    return {
        "id": proposal.id.hex(),
        "do": proposal.do,
        "member": proposal.name,
        "power": proposal.power,
        "by": _name(state, proposal.node),
        "yes": names(True),
        "no": names(False),
        "needed": state.quorum if proposal.outcome is None else None,
        "state": _outcome(proposal),
        "fingerprint": None if proposal.card is None else ledger_genesis.fingerprint(proposal.card.signed),
        "height": proposal.made,
        "decided": proposal.decided,
    }


def _evidence(state: State, row: Evidence) -> Mapping[str, object]:
    return {
        "member": _name(state, row.node) if row.node else None,
        "validator": row.address.hex(),
        "what": _LIES.get(row.kind, "lied"),
        "height": row.height,
        "time": iso(row.time_us),
    }


def _outcome(proposal: Proposal) -> str:
    return proposal.outcome or "open"


def _name(state: State, node: bytes) -> str:
    member = state.members.get(node)
    return node.hex() if member is None else member.name


def _governance(node: Node) -> Governance:
    return Governance(_consortium(node), node.statements)


def _consortium(node: Node) -> SharedConsortium:
    if node.consortium is None:
        raise ConfigError("this node is in no consortium; see cairn consortium init and join")
    return node.consortium
