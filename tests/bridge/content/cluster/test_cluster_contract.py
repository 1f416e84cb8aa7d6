"""The cluster engine passes the contract of content stores, over two real peers and their Kubos."""

from __future__ import annotations

import pytest

from tests.cluster_peer import ClusterPeer
from tests.contract.content_store import ContentStoreContract


class TestClusterStore(ContentStoreContract):
    replicas = 2
    takes_empty_blocks = False  # Kubo's Bitswap does not send a block of no bytes; what Cairn seals is never empty

    @pytest.fixture
    def environment(self, cluster_pair: tuple[ClusterPeer, ClusterPeer]) -> dict[str, str]:
        return {
            "CAIRN_CONTENT__ENGINE": "cluster",
            "CAIRN_CONTENT__KUBO__API": cluster_pair[0].kubo.api,
            "CAIRN_CONTENT__KUBO__TIMEOUT_S": "5",
            "CAIRN_CONTENT__CLUSTER__API": cluster_pair[0].url,
            "CAIRN_CONTENT__CLUSTER__REPLICAS": str(self.replicas),
        }
