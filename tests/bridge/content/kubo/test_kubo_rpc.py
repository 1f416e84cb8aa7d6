"""Kubo's RPC: what is sent, what each answer means, against a real Kubo and, for its rarer words, a scripted one."""

import json
import threading

import httpx
import pytest

from bridge.config import Kubo
from bridge.content import car
from bridge.content import cid as cids
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import ChildMissing, ImportRefused, Rpc, base_url, credential
from bridge.errors import ConfigError, ContentCorrupt, ContentMissing, EngineFault
from bridge.model import Block
from tests.contract.content_store import block, blocks, node_of
from tests.node.running_node import free_ports

ROOT = node_of()


@pytest.fixture
def rpc(kubo):
    rpc = Rpc(Kubo(api=kubo.api))
    yield rpc
    rpc.close()


@pytest.fixture
def control(kubo):
    control = Control(Kubo(api=kubo.api))
    yield control
    control.close()


@pytest.fixture
def scripted():
    """An Rpc whose Kubo answers as the test says."""

    def make(status, body):
        rpc = Rpc(Kubo())
        rpc.close()
        transport = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
        rpc._client = httpx.Client(base_url="http://kubo/api/v0/", transport=transport)
        made.append(rpc)
        return rpc

    made = []
    yield make
    for rpc in made:
        rpc.close()


def of(root, *given):
    yield car.encode_header([root])
    for cid, data in given:
        yield car.section_head(cid, len(data))
        yield bytes(data)


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("http://127.0.0.1:5001", "http://127.0.0.1:5001/api/v0/"),
        ("https://kubo.example", "https://kubo.example:5001/api/v0/"),
        ("http://[::1]:5002/", "http://[::1]:5002/api/v0/"),
        ("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001/api/v0/"),
        ("/ip6/::1/tcp/5001/http", "http://[::1]:5001/api/v0/"),
        ("/dns/kubo.example/tcp/443/https", "https://kubo.example:443/api/v0/"),
    ],
)
def test_the_api_is_a_url_or_a_multiaddress(api, url):
    assert base_url(Kubo(api=api)) == url


def test_another_address_is_a_mistake_in_the_settings():
    with pytest.raises(ConfigError):
        Rpc(Kubo(api="unix:/run/kubo.sock"))


def test_the_token_is_a_bearer_or_a_user_with_password():
    assert credential(Kubo()) == {}
    assert credential(Kubo(token="abc")) == {"Authorization": "Bearer abc"}
    assert credential(Kubo(token="user:pass")) == {"Authorization": "Basic dXNlcjpwYXNz"}


def test_an_import_pins_the_root_and_holds_what_is_below(rpc, control):
    given = blocks(3)
    root = node_of(*(one.cid for one in given))
    rpc.import_car(root.cid, of(root.cid, root, *given), 10)
    assert control.pinned(root.cid)
    assert root.cid in control.pins()
    assert all(rpc.holds(cid) and rpc.block(cid) == data for cid, data in (root, *given))
    assert rpc.lacks_nothing(root.cid, 10)
    control.unpin(root.cid)
    control.unpin(root.cid)
    assert not control.pinned(root.cid)


def test_an_import_with_a_child_missing_ends_in_time_and_pins_nothing(rpc, control):
    one, lost = blocks(2)
    root = node_of(one.cid, lost.cid, mark=7)
    with pytest.raises(ChildMissing):
        rpc.import_car(root.cid, of(root.cid, root, one), 0.5)
    assert not control.pinned(root.cid)
    assert not rpc.lacks_nothing(root.cid, 10)
    with pytest.raises(ChildMissing):
        rpc.pin(root.cid, 0.5)
    rpc.put(lost)
    rpc.pin(root.cid, 10)
    assert control.pinned(root.cid)


def test_an_import_without_the_root_is_no_pin(rpc):
    (one,) = blocks(1)
    absent = node_of(one.cid, mark=8)
    with pytest.raises(ChildMissing):
        rpc.import_car(absent.cid, of(absent.cid, one), 0.5)
    with pytest.raises(EngineFault):
        rpc.import_car(absent.cid, [], 0.5)


def test_a_car_with_a_wrong_block_is_refused(rpc, control):
    (one,) = blocks(1)
    root = node_of(one.cid, mark=9)
    with pytest.raises(ImportRefused, match="mismatch in content integrity"):
        rpc.import_car(root.cid, of(root.cid, root, Block(one.cid, b"other")), 10)
    assert not control.pinned(root.cid)


def test_a_large_car_that_is_refused_at_its_beginning_is_refused_all_the_same(rpc):
    given = blocks(40, 1 << 20)
    root = node_of(*(one.cid for one in given))
    wrong = Block(given[0].cid, b"other")
    with pytest.raises(ImportRefused, match="mismatch in content integrity"):
        rpc.import_car(root.cid, of(root.cid, root, wrong, *given), 30)


def test_what_breaks_off_a_car_comes_out_as_it_is_and_leaves_no_pin(rpc, control):
    (one,) = blocks(1)
    root = node_of(one.cid, mark=10)

    def pieces():
        yield from of(root.cid, root)
        raise ContentMissing("lost")

    with pytest.raises(ContentMissing, match="lost"):
        rpc.import_car(root.cid, pieces(), 10)
    assert not control.pinned(root.cid)
    assert rpc.holds(root.cid) in (True, False)  # Kubo goes on answering


@pytest.mark.parametrize(("codec", "hash"), [(c, h) for c in (cids.RAW, cids.DAG_CBOR) for h in ("blake3", "sha2-256")])
def test_one_block_is_put_and_removed(rpc, codec, hash):
    one = block(b"\x43one", codec, hash)
    rpc.put(one)
    assert rpc.block(one.cid) == one.data
    assert rpc.remove(one.cid, 10) is None
    assert rpc.remove(one.cid, 10) is None
    with pytest.raises(ContentMissing, match=cids.to_text(one.cid)):
        rpc.block(one.cid)


def test_a_pinned_block_is_not_removed_and_its_root_named(rpc):
    (one,) = blocks(1)
    root = node_of(one.cid, mark=11)
    rpc.import_car(root.cid, of(root.cid, root, one), 10)
    assert rpc.remove(one.cid, 10) == rpc.remove(root.cid, 10) == cids.to_text(root.cid)
    assert rpc.holds(one.cid)


def test_a_block_that_nobody_has_is_missing_after_the_network_was_asked(rpc):
    (one,) = blocks(1)
    with pytest.raises(ContentMissing):
        rpc.block(one.cid, 0.2)


def test_a_damaged_block_is_told_from_a_missing_one(rpc, kubo):
    (one,) = blocks(1)
    rpc.put(one)
    kubo.block_file(one.cid).write_bytes(b"")
    with pytest.raises(ContentCorrupt, match=cids.to_text(one.cid)):
        rpc.block(one.cid)


def test_who_it_is_is_asked_through_the_client_library(control, kubo):
    assert control.version() == kubo.call("version")["Version"]
    assert control.id() == kubo.peer_id
    assert control.peers() == []


def test_a_kubo_without_a_single_pin_has_none(fresh_kubo):
    fresh_kubo.start()
    for text in fresh_kubo.call("pin/ls", type="recursive")["Keys"]:
        fresh_kubo.call("pin/rm", arg=text)
    control = Control(Kubo(api=fresh_kubo.api))
    assert control.pins() == set()
    control.close()


def test_closing_does_not_wait_for_a_kubo_that_hangs(fresh_kubo, monkeypatch):
    monkeypatch.setattr("bridge.content.kubo.control.CLOSE_S", 0.1)
    fresh_kubo.start()
    control = Control(Kubo(api=fresh_kubo.api))
    with fresh_kubo.paused():
        asking = threading.Thread(target=control.pins, daemon=True)
        asking.start()
        while not control._locks[control._patient].locked():
            assert asking.is_alive()
        control.close()
        assert asking.is_alive()
    asking.join()


def test_a_kubo_that_asks_for_credentials_is_used_with_them_alone(fresh_kubo):
    allowed = {"AuthSecret": "bearer:good", "AllowedPaths": ["/api/v0"]}
    fresh_kubo.configure({"API.Authorizations": {"cairn": allowed}})
    fresh_kubo.start(ready=False)
    good = Kubo(api=fresh_kubo.url, token="good")
    rpc, control = Rpc(good), Control(good)

    def answers():
        try:
            return bool(control.version())
        except EngineFault:
            return False

    fresh_kubo.wait_until(answers, "ready")
    (one,) = blocks(1)
    rpc.put(one)
    assert rpc.block(one.cid) == one.data
    rpc.close()
    control.close()
    for token in (None, "bad", "user:good"):
        bad = Kubo(api=fresh_kubo.url, token=token)
        rpc, control = Rpc(bad), Control(bad)
        with pytest.raises(EngineFault, match="credential"):
            rpc.block(one.cid)
        with pytest.raises(EngineFault):
            control.version()
        rpc.close()
        control.close()


def test_a_kubo_that_is_not_there_is_an_engine_fault():
    absent = Kubo(api=f"http://127.0.0.1:{free_ports(1)[0]}")
    rpc, control = Rpc(absent), Control(absent)
    for ask in (
        lambda: rpc.block(ROOT.cid),
        lambda: rpc.holds(ROOT.cid),
        lambda: rpc.import_car(ROOT.cid, of(ROOT.cid, ROOT), 1),
        control.id,
        control.pins,
        lambda: control.pinned(ROOT.cid),
        lambda: control.unpin(ROOT.cid),
    ):
        with pytest.raises(EngineFault, match="cannot be reached"):
            ask()
    rpc.close()
    control.close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, '{"Message":"write blocks/x: no space left on device","Code":0,"Type":"error"}', "Kubo's disk is full"),
        (500, '{"Message":"import failed: no space left on device","Type":"error"}', "Kubo's disk is full"),
        (403, "403 - Forbidden", "credential"),
        (502, "<html>Bad Gateway</html>", "Bad Gateway"),
        (200, "", "does not name its root"),
        (200, "not JSON", "not JSON"),
        (200, "[]", "not what its API says"),
        (200, '{"Root":{"Cid":{"/":"bafkqaaa"},"PinErrorMsg":""}}', "does not name its root"),
        (200, '{"Root":{"Cid":{"/":"%s"},"PinErrorMsg":"no space left on device"}}', "Kubo's disk is full"),
        (200, '{"Root":{"Cid":{"/":"%s"},"PinErrorMsg":"something"}}', "does not pin: something"),
    ],
)
def test_what_kubo_may_answer_to_an_import_is_told(scripted, status, body, told):
    rpc = scripted(status, body.replace("%s", cids.to_text(ROOT.cid)).encode())
    with pytest.raises(EngineFault, match=told) as caught:
        rpc.import_car(ROOT.cid, [b""], 1)
    assert not isinstance(caught.value, ChildMissing)


def test_a_block_that_kubo_names_otherwise_is_a_fault(scripted):
    rpc = scripted(200, json.dumps({"Key": "bafkqaaa"}).encode())
    with pytest.raises(EngineFault, match="otherwise"):
        rpc.put(ROOT)
