"""The embedded engine: the contract of content stores, and what it alone does."""

import subprocess
import sys

import pytest

from bridge.content import cid as cids
from bridge.content.embedded import EmbeddedStore
from bridge.content.packs import PackStore
from bridge.content.pins import MemoryPins
from bridge.errors import ContentMissing, EngineFault
from tests.contract.content_store import ContentStoreContract, Study


class TestEmbeddedStore(ContentStoreContract):
    @pytest.fixture
    def environment(self):
        return {"CAIRN_CONTENT__ENGINE": "embedded"}


class CountingPacks(PackStore):
    """Packs that tell what was read."""

    def __init__(self, home):
        super().__init__(home, "test", {}.get)
        self.asked = []

    def get(self, cid):
        self.asked.append(cid)
        return super().get(cid)


@pytest.fixture
def packs(tmp_path):
    packs = CountingPacks(tmp_path)
    yield packs
    packs.close()


def test_pinning_reads_no_leaf_and_nothing_that_the_former_root_holds(packs):
    store, study = EmbeddedStore(packs, MemoryPins()), Study()
    store.put(study.add(1200))
    store.pin(study.root)
    assert all(cids.parse(cid).codec != cids.RAW for cid in packs.asked)
    assert len(packs.asked) == 1 + 2 + 1200
    former = study.root
    store.put(study.add(2))
    packs.asked.clear()
    store.pin(study.root, replaces=former)
    assert len(set(packs.asked)) == 2 + 2 + 2


def test_a_store_that_refuses_to_write_says_so(packs, monkeypatch):
    store = EmbeddedStore(packs, MemoryPins())
    monkeypatch.setattr(type(packs), "refuses", True)
    assert store.status().reasons == ("the packs refuse writing after an I/O error",)


def test_a_block_that_is_known_and_gone_is_missing(packs, tmp_path):
    store, study = EmbeddedStore(packs, MemoryPins()), Study()
    store.put(study.add(1))
    store.sync()
    (tmp_path / "packs/00000000.car").unlink()
    with pytest.raises(ContentMissing):
        store.pin(study.root)


def test_what_the_packs_lack_is_taken_from_the_first_source_that_has_it_whole(packs):
    data = b"a block that others hold"
    cid = cids.make(cids.RAW, data)

    def silent(cid):
        raise EngineFault("does not answer")

    sources = [silent, lambda cid: b"something else", lambda cid: data]
    store = EmbeddedStore(packs, MemoryPins(), sources=sources)
    assert store.get(cid) == data
    assert not store.has(cid)
    with pytest.raises(ContentMissing):
        EmbeddedStore(packs, MemoryPins(), sources=sources[:2]).get(cid)


def test_a_node_of_its_own_loads_nothing_that_only_other_engines_need():
    """It would cost memory in every process, and time at each start."""
    loaded = "import bridge.serve, bridge.node, sys; print({'httpx', 'ipfshttpclient'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True, timeout=60)
    assert done.stdout == b"set()\n"
