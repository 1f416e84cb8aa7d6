"""What stands in CometBFT's home, as values and texts: keys, genesis.json, config.toml. Pure.

Names and defaults are those of CometBFT 0.38 (config/toml.go, types/genesis.go, privval/file.go of that release); a
key that is not named has CometBFT's default.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from bridge.config import CometBFT
from bridge.errors import ConfigError
from ledger import genesis as geneses
from ledger import keys

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
EVIDENCE_AGE_H: Final = 7 * 24
EVIDENCE_AGE_BLOCKS: Final = 100_000
TX_OVERHEAD: Final = 1024
MEMPOOL_TXS: Final = 5000
MEMPOOL_BYTES: Final = 64 << 20
RATE: Final = 64 << 20
PACKET_BYTES: Final = 64 << 10
"""At 1 KiB, the default, large blocks take seconds between members."""
MESSAGE_OVERHEAD: Final = 64 << 10


class Validator(NamedTuple):
    """A validator of the first block: the member's name, its Ed25519 consensus key (32 bytes), its power."""

    name: str
    public_key: bytes
    power: int


class StateSync(NamedTuple):
    """From where a new member takes over a state: two RPC servers or more, and a header that it trusts."""

    servers: Sequence[str]
    height: int
    hash: bytes
    period_h: int = EVIDENCE_AGE_H


class Endpoint(NamedTuple):
    host: str
    port: int


def node_id(public_key: bytes) -> str:
    """A node's id among peers: the first 20 bytes of SHA-256 of its Ed25519 key, in hexadecimal (p2p/key.go)."""
    return hashlib.sha256(public_key).digest()[:20].hex()


def node_key(seed: bytes) -> str:
    """node_key.json of an Ed25519 private key (32 bytes)."""
    return _compact({"priv_key": _private(seed)})


def validator_key(seed: bytes) -> str:
    """priv_validator_key.json of an Ed25519 private key (32 bytes)."""
    public_key = _public_of(seed)
    return _compact(
        {
            "address": hashlib.sha256(public_key).hexdigest()[:40].upper(),
            "pub_key": _public(public_key),
            "priv_key": _private(seed),
        }
    )


def validator_state(signed: int = 0) -> str:
    """priv_validator_state.json of a validator that signs nothing up to a height any more; 0: that has signed nothing.

    CometBFT refuses lower heights, and of that height itself lower rounds (privval/file.go, CheckHRS).
    """
    last = {"round": 2**31 - 1, "step": 3} if signed else {"round": 0, "step": 0}
    return _compact({"height": str(signed), **last})


def public_key(document: str) -> bytes:
    """The Ed25519 public key in a node_key.json or priv_validator_key.json. Raises ConfigError for another file."""
    try:
        key = json.loads(document)["priv_key"]
        private = base64.b64decode(key["value"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("not a key file of CometBFT") from error
    if key.get("type") != "tendermint/PrivKeyEd25519" or len(private) != 64 or _public_of(private[:32]) != private[32:]:
        raise ConfigError("not a key file of CometBFT with an Ed25519 key")
    return private[32:]


def genesis_of(genesis: geneses.Genesis) -> str:
    """genesis.json of a consortium: its members with a vote are the validators, its genesis is the app state."""
    validators = [Validator(card.name, card.consensus, card.power) for card in genesis.cards if card.power]
    state = json.loads(geneses.to_json(genesis))
    return genesis_json(genesis.chain_id, genesis.time_us, validators, state, genesis.parameters.block_bytes)


def genesis_json(
    chain_id: str, time_us: int, validators: Sequence[Validator], app_state: object, block_bytes: int
) -> str:
    """genesis.json: the same bytes for the same values. `time_us` is in microseconds since the epoch."""
    seconds, micros = divmod(time_us, 1_000_000)
    time = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"
    return _compact(
        {
            "genesis_time": time,
            "chain_id": chain_id,
            "initial_height": "1",
            "consensus_params": {
                "block": {"max_bytes": str(block_bytes), "max_gas": "-1"},
                "evidence": {
                    "max_age_num_blocks": str(EVIDENCE_AGE_BLOCKS),
                    "max_age_duration": str(EVIDENCE_AGE_H * 3_600_000_000_000),
                    "max_bytes": str(min(1 << 20, block_bytes // 2)),
                },
                "validator": {"pub_key_types": ["ed25519"]},
                "version": {"app": "0"},
                "abci": {"vote_extensions_enable_height": "0"},
            },
            "validators": [
                {
                    "address": hashlib.sha256(each.public_key).hexdigest()[:40].upper(),
                    "pub_key": _public(each.public_key),
                    "power": str(each.power),
                    "name": each.name,
                }
                for each in validators
            ],
            "app_hash": "",
            "app_state": app_state,
        }
    )


_CONSENSUS: Final[dict[str, Any]] = {
    "timeout_propose": "500ms",
    "timeout_propose_delta": "500ms",
    "timeout_prevote": "200ms",
    "timeout_prevote_delta": "200ms",
    "timeout_precommit": "200ms",
    "timeout_precommit_delta": "200ms",
    "timeout_commit": "0s",
    "skip_timeout_commit": True,
    "create_empty_blocks": False,
    "create_empty_blocks_interval": "0s",
    "peer_gossip_sleep_duration": "10ms",
    # Looks for its own signatures in the last blocks and refuses to start when it finds one. Without empty
    # blocks the last ones are always its own: what it signed stands in priv_validator_state.json.
    "double_sign_check_height": 0,
}


def config_toml(
    settings: CometBFT,
    abci: str,
    moniker: str,
    peers: Sequence[str],
    parameters: geneses.Parameters | None = None,
    state_sync: StateSync | None = None,
) -> str:
    """config.toml of a member.

    Parameters
    ----------
    abci
        Where the application listens, `unix:///PATH` or `tcp://HOST:PORT`.
    moniker
        What CometBFT calls this node towards others: the member's name.
    peers
        The other members' addresses, `id@host:port`. They are dialled for ever and always let in; everybody else is
        let in only when the application says so (`/p2p/filter/id/...`).
    parameters
        The consortium's; how large transactions and blocks may be.
    state_sync
        From where to take over a state instead of executing every block; only an empty home does so.

    Raises ConfigError for an RPC that is not on loopback, and for addresses that are none.
    """
    size = parameters or geneses.Parameters()
    rpc = endpoint(settings.rpc)
    if rpc.host not in LOOPBACK:
        raise ConfigError("ledger.cometbft.rpc: a managed CometBFT's RPC is on loopback only")
    tx_bytes = size.transaction_bytes + TX_OVERHEAD
    sections: dict[str, dict[str, Any]] = {
        "": {
            "proxy_app": abci,
            "abci": "socket",
            "moniker": moniker,
            "db_backend": "goleveldb",
            "log_level": "error",
            "log_format": "plain",
            "filter_peers": True,
        },
        "rpc": {
            "laddr": f"tcp://{_bracketed(rpc.host)}:{rpc.port}",
            "max_open_connections": 100,
            "max_body_bytes": 4 * tx_bytes // 3 + MESSAGE_OVERHEAD,  # a transaction comes in base64
            "timeout_broadcast_tx_commit": "10s",
        },
        "p2p": _p2p(settings, peers),
        "mempool": _mempool(tx_bytes),
        "statesync": _state_sync(state_sync),
        "consensus": _CONSENSUS,
        "storage": {"discard_abci_responses": True},
        "tx_index": {"indexer": "null"},
        "instrumentation": {"prometheus": False},
    }
    return "\n".join(_section(name, values) for name, values in sections.items())


def _p2p(settings: CometBFT, peers: Sequence[str]) -> dict[str, Any]:
    return {
        "laddr": f"tcp://{_bracketed(settings.p2p_host)}:{settings.p2p_port}",
        "persistent_peers": ",".join(peers),
        "persistent_peers_max_dial_period": "5s",
        "unconditional_peer_ids": ",".join(map(_identity, peers)),
        "pex": False,
        # Several members may lie behind one address, and on a network of their own: peers are known by their keys.
        "addr_book_strict": False,
        "allow_duplicate_ip": True,
        "flush_throttle_timeout": "10ms",
        "max_packet_msg_payload_size": PACKET_BYTES,
        "send_rate": RATE,
        "recv_rate": RATE,
    }


def _mempool(tx_bytes: int) -> dict[str, Any]:
    return {
        "type": "flood",
        "size": MEMPOOL_TXS,
        "max_txs_bytes": MEMPOOL_BYTES,
        "max_tx_bytes": tx_bytes,
        # A transaction that can no longer be taken would keep blocks coming, all of them empty; and only what
        # leaves the mempool leaves its cache, so that it can be sent again.
        "recheck": True,
    }


def endpoint(rpc: str) -> Endpoint:
    """Host and port of the setting `ledger.cometbft.rpc`. Raises ConfigError for what is not http://HOST:PORT."""
    try:
        parts = urlsplit(rpc)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"ledger.cometbft.rpc = {rpc} is not a URL: {error}") from error
    if parts.scheme != "http" or not host or port is None or parts.path not in ("", "/"):
        raise ConfigError(f"ledger.cometbft.rpc = {rpc} is not a URL such as http://127.0.0.1:26657")
    return Endpoint(host, port)


def _state_sync(source: StateSync | None) -> dict[str, Any]:
    if source is None:
        return {"enable": False}
    return {
        "enable": True,
        "rpc_servers": ",".join(source.servers),
        "trust_height": source.height,
        "trust_hash": source.hash.hex().upper(),
        "trust_period": f"{source.period_h}h",
        "discovery_time": "5s",  # CometBFT takes anything shorter for 25 s (statesync/syncer.go)
    }


def _identity(peer: str) -> str:
    identity, at, place = peer.partition("@")
    if not at or len(identity) != 40 or not all(c in "0123456789abcdef" for c in identity) or ":" not in place:
        raise ConfigError(f"{peer} is no address of a peer of CometBFT (id@host:port)")
    return identity


def _section(name: str, values: Mapping[str, Any]) -> str:
    # JSON's strings, numbers and truths are TOML's too, as long as nothing but ASCII is escaped.
    lines = [f"[{name}]"] if name else []
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _public_of(seed: bytes) -> bytes:
    return keys.raw(keys.SigningKey(seed).public_key())


def _public(key: bytes) -> Mapping[str, str]:
    return {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(key).decode("ascii")}


def _private(seed: bytes) -> Mapping[str, str]:
    return {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(seed + _public_of(seed)).decode("ascii")}


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":")) + "\n"
