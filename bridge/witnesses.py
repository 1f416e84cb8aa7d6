"""Who witnesses this node's log, and whose logs this node witnesses, as `[[members.peers]]` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.config import Settings
from bridge.content.gateway_client import GatewayClient
from bridge.crypto.keystore import Keystore
from bridge.errors import ConfigError, StorageFault
from bridge.ledger_reading import origin_of, public_key
from bridge.services.witnessing import Watched, Witness, Witnessing
from ledger import checkpoint, cosignature, genesis, keys
from ledger.checkpoint import Verifier
from ledger.errors import LedgerError
from ledger.witness_store import DATABASE, WitnessStore


class Peers(NamedTuple):
    """Members by name: those that cosign this node's checkpoints, and those whose logs are cosigned here."""

    witnesses: tuple[tuple[str, Verifier], ...]
    logs: tuple[tuple[str, Verifier], ...]


def peers(settings: Settings) -> Peers:
    """The witnesses and logs of the settings; each key once.

    Raises ConfigError for a malformed key, when fewer witnesses are named than must cosign, and when this node has no
    certificate to ask them with.
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
    if (witnesses or logs) and settings.members.certificate is None:
        raise ConfigError("members.peers: witnesses are asked, and logs cosigned, with members.certificate, not set")
    return Peers(
        tuple((name, key) for key, name in witnesses.items()), tuple((name, key) for key, name in logs.items())
    )


def own_witnessing(settings: Settings, keystore: Keystore, clients: Sequence[GatewayClient]) -> Witnessing | None:
    """What this node witnesses and has witnessed; None when the settings name neither witnesses nor logs.

    In a consortium its own log is everybody's, and witnessed by nobody besides. Raises ConfigError, StorageFault.
    """
    named = peers(settings)
    if not named.witnesses and not named.logs:
        return None
    by_name = {client.name: client for client in reversed(clients)}
    of_own = named.witnesses if settings.ledger.engine == "solo" else ()
    try:
        store = WitnessStore(settings.home / DATABASE)
    except (LedgerError, OSError) as error:
        raise StorageFault(f"{DATABASE} cannot be opened ({error})") from error
    return Witnessing(
        store,
        origin_of(settings, keystore),
        genesis.cosigner_key(keystore.signing_seed),
        [Watched(name, key) for name, key in named.logs],
        [Witness(name, key, by_name[name]) for name, key in of_own],
        settings.ledger.witnesses,
        Verifier(origin_of(settings, keystore), keys.raw(public_key(keystore))),
    )


def cosigner(settings: Settings, keystore: Keystore) -> Verifier:
    """The key that this node cosigns other logs with, named like its own log."""
    return cosignature.cosigner(origin_of(settings, keystore), genesis.cosigner_key(keystore.signing_seed).public_key())
