"""An index that was rolled back below what the ledger has sealed goes on under a new epoch; nothing stays unsealed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Settings
from bridge.ledger_reading import ledger_home, origin_of, record_source, renew_lost_epoch
from bridge.node import Node
from ledger.audit import audit
from ledger.engine.solo import SoloEngine
from ledger.sealer import Sealer
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_store import store


def seal(node: Node) -> int:
    signer = Ed25519PrivateKey.from_private_bytes(node.keystore.signing_seed)
    settings: Settings = node.settings
    with (
        closing(record_source(settings, node.keys, node.keystore)) as source,
        closing(SoloEngine(ledger_home(settings), signer, origin_of(settings, node.keystore))) as engine,
    ):
        made = Sealer(source, engine, signer).step()
        origin = origin_of(settings, node.keystore)
        assert audit(ledger_home(settings), signer.public_key(), origin, source) == []
    return made


def test_new_records_get_entries_after_the_index_was_rolled_back(
    open_node: Callable[[], Node],
    home: Path,
) -> None:
    node = open_node()
    store(node, part10(instance()))
    assert not renew_lost_epoch(node.settings)
    node.close()
    shutil.copy(home / "index.db", home / "earlier.db")
    node = open_node()
    store(node, part10(instance()))
    assert seal(node) == 2
    assert not renew_lost_epoch(node.settings)
    node.close()
    shutil.move(home / "earlier.db", home / "index.db")
    assert renew_lost_epoch(Settings(home=home))
    assert not renew_lost_epoch(Settings(home=home))
    node = open_node()
    store(node, part10(instance()))
    assert seal(node) == 1
