"""Who witnesses this node's log, and whose logs this node witnesses, as `[[members.peers]]` says."""

from __future__ import annotations

from typing import NamedTuple

from bridge.config import Settings
from bridge.crypto.keystore import Keystore
from bridge.errors import ConfigError
from bridge.ledger_reading import origin_of
from ledger import checkpoint, cosignature, genesis
from ledger.checkpoint import Verifier
from ledger.errors import LedgerError


class Peers(NamedTuple):
    """Members by name: those that cosign this node's checkpoints, and those whose logs are cosigned here."""

    witnesses: tuple[tuple[str, Verifier], ...]
    logs: tuple[tuple[str, Verifier], ...]


def peers(settings: Settings) -> Peers:
    """The witnesses and logs of the settings; each key once.

    Raises ConfigError for a malformed key, and when fewer witnesses are named than must cosign.
    """
    witnesses: dict[Verifier, str] = {}
    logs: dict[Verifier, str] = {}
    for peer in settings.members.peers:
        try:
            if peer.witness is not None:
                witnesses.setdefault(cosignature.parse_cosigner(peer.witness), peer.name)
            if peer.log is not None:
                logs.setdefault(checkpoint.parse_vkey(peer.log), peer.name)
        except LedgerError as error:
            raise ConfigError(f"members.peers: the witness or log of {peer.name} is not a key: {error}") from error
    if witnesses and settings.ledger.witnesses > len(witnesses):
        raise ConfigError(
            f"ledger.witnesses is {settings.ledger.witnesses}, and only {len(witnesses)} of members.peers are witnesses"
        )
    return Peers(
        tuple((name, key) for key, name in witnesses.items()), tuple((name, key) for key, name in logs.items())
    )


def cosigner(settings: Settings, keystore: Keystore) -> Verifier:
    """The key that this node cosigns other logs with, named like its own log."""
    return cosignature.cosigner(origin_of(settings, keystore), genesis.cosigner_key(keystore.signing_seed).public_key())
