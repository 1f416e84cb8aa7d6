"""From which height on a validator may sign again that has lost the record of what it signed last.

It has voted at most for the block behind the newest that it knew to be committed; for that one more than two thirds of
all votes were cast, so that at least one other honest validator knew the block before it to be committed. When every
other validator shows its newest commit, this one has therefore signed nothing beyond the newest of them and two more.
What is shown is verified as a light client does: nobody can make that height larger than it is, and who makes it
smaller is outdone by the honest. With more than a third of the votes of its own this does not hold, and nothing is
said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.consensus.rpc_proxy import PATH, Client
from bridge.errors import CairnError
from ledger import lightclient
from ledger.errors import LedgerError
from ledger.light_block import LightBlock, Validator
from ledger.light_block_json import light_block

__all__ = ["AHEAD", "bound", "signed_at_most"]

log = logging.getLogger(__name__)
AHEAD: Final = 2
PAGE: Final = 100


def signed_at_most(
    own: bytes, others: Sequence[tuple[bytes, Client]], trusted: Mapping[bytes, int], chain_id: str
) -> int | None:
    """The greatest height that this validator can have signed for; None while not every other one shows its newest.

    Parameters
    ----------
    own
        The address of this validator (20 bytes).
    others
        The other members: their validators' addresses, their listeners.
    trusted
        Consensus keys (32 bytes) and powers of the validators that this node knows.
    """
    shown: dict[bytes, LightBlock] = {}
    for address, client in others:
        try:
            block = _newest(client)
            lightclient.verify_first([Validator(key, power) for key, power in trusted.items()], block, chain_id)
            shown[address] = block
        except (CairnError, LedgerError, KeyError, TypeError, ValueError) as error:
            log.info("a member does not show its newest block: %s", type(error).__name__)
    return bound(own, shown)


def bound(own: bytes, shown: Mapping[bytes, LightBlock]) -> int | None:
    """As `signed_at_most`, from verified blocks by the address of the validator who shows them. Pure."""
    if not shown:
        return None
    newest = max(shown.values(), key=lambda block: block.header.height)
    powers = {validator.address: validator.power for validator in newest.validators}
    if 3 * powers.pop(own, 0) > sum(validator.power for validator in newest.validators):
        return None
    return newest.header.height + AHEAD if powers.keys() <= shown.keys() else None


def _newest(client: Client) -> LightBlock:
    """The newest block that a member's CometBFT has, unless it does not have all that there are yet."""
    if client.ask("GET", f"{PATH}status")["sync_info"]["catching_up"]:
        raise ValueError("it catches up itself")
    commit = client.ask("GET", f"{PATH}commit")
    height, found = int(commit["signed_header"]["header"]["height"]), list[Mapping[str, Any]]()
    while True:
        page = f"height={height}&page={len(found) // PAGE + 1}&per_page={PAGE}"
        told = client.ask("GET", f"{PATH}validators?{page}")
        found += told["validators"]
        if len(found) >= int(told["total"]) or not told["validators"]:
            return light_block(commit, found)
