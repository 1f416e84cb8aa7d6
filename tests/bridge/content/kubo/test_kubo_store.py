"""The Kubo engine: the contract of content stores against a real Kubo, and what it alone does."""

import pytest

from tests.contract.content_store import ContentStoreContract


class TestKuboStore(ContentStoreContract):
    @pytest.fixture
    def environment(self, kubo):
        return {
            "CAIRN_CONTENT__ENGINE": "kubo",
            "CAIRN_CONTENT__KUBO__API": kubo.api,
            "CAIRN_CONTENT__KUBO__TIMEOUT_S": "30",
        }
