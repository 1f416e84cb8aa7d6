"""`/ipfs/{cid}` as the IPFS "Trustless Gateway Specification" asks, for who was granted the study and nobody else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from anyio.from_thread import BlockingPortal
from node_in_memory import Client
from sealed_in_memory import GONE, MEMBER, OTHER, STUDY, GatewayNode

from bridge.content import cid as cids
from bridge.content.car import CarReader
from bridge.errors import EngineFault
from dicomweb import members
from dicomweb.app import create_app

RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"


class Held(NamedTuple):
    """The study of the token, by the texts of its CIDs; and one of another study."""

    root: str
    file: str
    leaves: list[str]
    foreign: str


@pytest.fixture
def node() -> GatewayNode:
    return GatewayNode()


@pytest.fixture
def held(node: GatewayNode) -> Held:
    root, file, leaves = node.blocks.add(STUDY, bytes(1 << 20) + b"\1" * (1 << 20) + b"end")
    foreign, _, _ = node.blocks.add(OTHER, b"foreign")
    return Held(cids.to_text(root), cids.to_text(file), list(map(cids.to_text, leaves)), cids.to_text(foreign))


@pytest.fixture
def web(node: GatewayNode, held: Held, portal: BlockingPortal) -> Iterator[Client]:
    client = Client(portal, create_app(node))  # type: ignore[arg-type]
    client.headers = {"authorization": f"Bearer study-{STUDY}"}
    yield client
    portal.call(client.http.aclose)


def blocks(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [cids.to_text(block.cid) for block in CarReader(io.BytesIO(answer.content).read)]


def block_of(node: GatewayNode, name: str) -> bytes:
    return node.blocks.held[cids.from_text(name)]


def test_a_raw_block_by_parameter_and_by_header(web: Client, node: GatewayNode, held: Held) -> None:
    for name in (held.root, held.file, held.leaves[2]):
        by_parameter = web.get(f"/ipfs/{name}?format=raw")
        by_header = web.get(f"/ipfs/{name}", headers={"accept": RAW})
        assert by_parameter.content == by_header.content == block_of(node, name)
        assert by_parameter.headers["content-type"] == RAW
        assert "content-location" not in by_parameter.headers
        assert by_header.headers["content-location"] == f"/ipfs/{name}?format=raw"


def test_the_headers_of_a_raw_block(web: Client, held: Held) -> None:
    headers = web.get(f"/ipfs/{held.leaves[2]}?format=raw").headers
    assert headers["content-length"] == "3"
    assert headers["etag"] == f'"{held.leaves[2]}.raw"'
    assert headers["cache-control"] == "private, max-age=29030400, immutable"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == f'attachment; filename="{held.leaves[2]}.bin"'
    assert headers["x-ipfs-path"] == f"/ipfs/{held.leaves[2]}"
    assert headers["x-ipfs-roots"] == held.leaves[2]


def test_a_car_holds_the_whole_tree_depth_first_and_no_block_twice(web: Client, held: Held) -> None:
    answer = web.get(f"/ipfs/{held.root}?format=car")
    assert blocks(answer) == [held.root, held.file, *held.leaves]
    assert answer.headers["content-type"] == f"{CAR}; version=1; order=dfs; dups=n"
    assert answer.headers["content-disposition"] == f'attachment; filename="{held.root}.car"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["accept-ranges"] == "none"
    assert answer.headers["etag"].startswith('W/"')
    reader = CarReader(io.BytesIO(answer.content).read)
    assert list(map(cids.to_text, reader.roots)) == [held.root]


def test_duplicates_are_sent_when_asked_for(web: Client, held: Held) -> None:
    answer = web.get(f"/ipfs/{held.root}", headers={"accept": f"{CAR}; version=1; order=dfs; dups=y"})
    assert blocks(answer) == [held.root, *2 * [held.file, *held.leaves]]
    assert answer.headers["content-type"].endswith("dups=y")
    assert answer.headers["content-location"] == f"/ipfs/{held.root}?format=car&dag-scope=all&car-dups=y"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("dag-scope=block", []),
        ("dag-scope=entity", [0, 1, 2]),
        ("dag-scope=all", [0, 1, 2]),
        ("entity-bytes=0:0", [0]),
        ("entity-bytes=1048576:*", [1, 2]),
        ("entity-bytes=-3:*", [2]),
        ("entity-bytes=-99999999:*", [0, 1, 2]),
        ("entity-bytes=1048575:-4", [0, 1]),
        ("dag-scope=block&entity-bytes=0:0", []),
    ],
)
def test_scopes_and_ranges_of_a_file(web: Client, held: Held, query: str, expected: list[int]) -> None:
    answer = web.get(f"/ipfs/{held.file}?format=car&{query}")
    assert blocks(answer) == [held.file, *(held.leaves[number] for number in expected)]


def test_entity_bytes_mean_nothing_where_there_is_no_file(web: Client, held: Held) -> None:
    assert blocks(web.get(f"/ipfs/{held.root}?format=car&entity-bytes=5:9")) == [held.root]


def test_tags_differ_by_scope_range_and_duplicates(web: Client, held: Held) -> None:
    queries = ["", "&dag-scope=block", "&dag-scope=entity", "&entity-bytes=0:5", "&entity-bytes=0:6", "&car-dups=y"]
    tags = {web.head(f"/ipfs/{held.file}?format=car{query}").headers["etag"] for query in queries}
    tags.add(web.head(f"/ipfs/{held.root}/p/0?format=car").headers["etag"])
    assert len(tags) == len(queries) + 1


def test_a_path_leads_through_the_links_and_its_blocks_come_first(web: Client, held: Held) -> None:
    answer = web.get(f"/ipfs/{held.root}/p/1?format=car&entity-bytes=0:0")
    assert blocks(answer) == [held.root, held.file, held.leaves[0]]
    assert answer.headers["x-ipfs-roots"] == f"{held.root},{held.file}"
    assert answer.headers["x-ipfs-path"] == f"/ipfs/{held.root}/p/1"
    assert web.get(f"/ipfs/{held.root}/p/2?format=car").status_code == 404
    assert web.get(f"/ipfs/{held.root}/p/0?format=raw").status_code == 400
    assert blocks(web.get(f"/ipfs/{held.root}/?format=car"))[0] == held.root


def test_head_answers_with_the_headers_of_get(web: Client, held: Held) -> None:
    for query in ("format=raw", "format=car", "format=car&dag-scope=block"):
        url = f"/ipfs/{held.file}?{query}"
        head, get = web.head(url), web.get(url)
        assert (head.status_code, head.content) == (200, b"")
        told = {name: value for name, value in get.headers.items() if name != "content-length"}
        assert {name: value for name, value in head.headers.items() if name != "content-length"} == told
    assert web.head(f"/ipfs/{held.file}?format=raw").headers["content-length"] == str(
        len(web.get(f"/ipfs/{held.file}?format=raw").content)
    )
    whole = f"/ipfs/{held.file}?format=car"
    assert web.head(whole).headers["content-length"] == str(len(web.get(whole).content))
    assert web.head(f"/ipfs/{held.foreign}?format=car").status_code == 404


def test_what_the_client_has_is_not_sent_again(web: Client, held: Held) -> None:
    for query in ("format=raw", "format=car"):
        url = f"/ipfs/{held.file}?{query}"
        tag = web.get(url).headers["etag"]
        again = web.get(url, headers={"if-none-match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert web.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_the_probe_is_answered_without_viewing_anything(web: Client, node: GatewayNode) -> None:
    raw = web.get("/ipfs/bafkqaaa?format=raw")
    assert (raw.status_code, raw.content) == (200, b"")
    car = web.get("/ipfs/bafkqaaa", headers={"accept": CAR})
    reader = CarReader(io.BytesIO(car.content).read)
    assert (list(map(cids.to_text, reader.roots)), list(reader)) == (["bafkqaaa"], [])
    assert web.head("/ipfs/bafkqaaa?format=raw").status_code == 200
    assert node.recorded == []


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("", None, 400),
        ("", "*/*", 400),
        ("", "text/html", 406),
        ("format=ipns-record", None, 406),
        ("format=zip", None, 400),
        ("", f"{CAR};version=2", 406),
        ("format=car&car-order=bfs", None, 400),
        ("format=car&dag-scope=some", None, 400),
        ("format=car&entity-bytes=9:5", None, 400),
        ("format=car&entity-bytes=99999999:*", None, 400),
    ],
)
def test_what_cannot_be_given_is_refused(web: Client, held: Held, query: str, accept: str | None, status: int) -> None:
    answer = web.get(f"/ipfs/{held.file}?{query}", headers={"accept": accept} if accept else {})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_no_cid_is_refused_and_every_other_cid_is_not_found_in_equal_words(web: Client, held: Held) -> None:
    unheld = cids.to_text(cids.make(cids.RAW, b"nobody has this"))
    answers = [
        web.get(f"/ipfs/{name}?format={format}")
        for name in (held.foreign, unheld, "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG")
        for format in ("raw", "car")
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
    assert web.get("/ipfs/not-a-cid?format=raw").status_code == 400


def test_nothing_is_recorded_and_no_study_told_of_where_nothing_is_given(
    web: Client, node: GatewayNode, held: Held
) -> None:
    web.get(f"/ipfs/{held.foreign}?format=raw")
    web.get(f"/ipfs/{held.root}")
    assert node.recorded == []


def test_each_fetch_is_recorded_before_its_first_byte_and_block_by_block(
    web: Client, node: GatewayNode, held: Held
) -> None:
    web.get(f"/ipfs/{held.root}?format=car", headers={"cairn-purpose": "HRESCH"})
    assert node.recorded == [("view", "partner", STUDY, "HRESCH", None)]
    assert node.seen == ["sealed block"] * 5


def test_a_study_that_is_gone_is_told_its_token_alone(web: Client, held: Held) -> None:
    gone = web.get(f"/ipfs/{held.root}?format=raw", headers={"authorization": f"Bearer study-{GONE}"})
    assert gone.status_code == 410


@pytest.mark.parametrize("role", ["admin", "viewer", "clinician"])
def test_a_credential_that_names_no_study_fetches_nothing(web: Client, held: Held, role: str) -> None:
    assert web.get(f"/ipfs/{held.root}?format=raw", headers={"authorization": f"Bearer {role}"}).status_code == 403


def test_without_a_credential_nothing_is_answered(web: Client, held: Held) -> None:
    web.headers = {}
    for name in (held.root, held.foreign, "bafkqaaa"):
        assert web.get(f"/ipfs/{name}?format=raw").status_code == 401


def test_nothing_can_be_listed_or_changed(web: Client, held: Held) -> None:
    assert web.get("/ipfs").status_code == web.get("/ipfs/").status_code == 404
    assert web.get("/ipns/example.org?format=raw").status_code == 404
    for method in ("POST", "PUT", "DELETE"):
        assert web.request(method, f"/ipfs/{held.root}").status_code == 405


def test_only_if_cached_is_412_where_the_block_is_not_at_hand(web: Client, node: GatewayNode, held: Held) -> None:
    url = f"/ipfs/{held.leaves[1]}?format=raw"
    asks = {"cache-control": "only-if-cached"}
    assert web.get(url, headers=asks).status_code == 200
    del node.blocks.held[cids.from_text(held.leaves[1])]
    assert web.get(url, headers=asks).status_code == 412
    assert web.get(url).status_code == 404


def test_a_block_that_is_missing_below_the_root_breaks_the_car_off(web: Client, node: GatewayNode, held: Held) -> None:
    del node.blocks.held[cids.from_text(held.leaves[2])]
    # The application fails, so that over a connection the body lacks its end; here it is what came before.
    assert blocks(web.get(f"/ipfs/{held.root}?format=car")) == [held.root, held.file, *held.leaves[:2]]
    assert blocks(web.get(f"/ipfs/{held.file}?format=car&entity-bytes=0:5")) == [held.file, held.leaves[0]]


def test_a_name_may_be_chosen_for_the_download(web: Client, held: Held) -> None:
    url = f"/ipfs/{held.root}?format=raw&filename="
    assert web.get(url + "foo.bin").headers["content-disposition"] == 'attachment; filename="foo.bin"'
    chosen = web.get(url + "b%C3%A4r.bin").headers["content-disposition"]
    assert chosen == f"attachment; filename=\"{held.root}.bin\"; filename*=UTF-8''b%C3%A4r.bin"
    assert web.get(url + "a%0d%0ab").status_code == 400


class MembersClient(Client):
    """A client on the members' listener, which says whose certificate the connection showed."""

    def __init__(self, portal: BlockingPortal, node: GatewayNode, member: str | None) -> None:
        app = members.create_app(node)  # type: ignore[arg-type]

        async def listener(scope, receive, send):  # type: ignore[no-untyped-def]
            await app({**scope, "state": {"member": member}}, receive, send)

        super().__init__(portal, listener, peer="192.0.2.7")


@pytest.fixture
def member(node: GatewayNode, held: Held, portal: BlockingPortal) -> Iterator[MembersClient]:
    client = MembersClient(portal, node, MEMBER)
    yield client
    portal.call(client.http.aclose)


def test_a_member_fetches_what_it_is_assigned_by_its_certificate_alone(
    member: MembersClient, node: GatewayNode, held: Held
) -> None:
    assert blocks(member.get(f"/ipfs/{held.root}?format=car")) == [held.root, held.file, *held.leaves]
    assert member.get(f"/ipfs/{held.foreign}?format=raw").status_code == 404
    assert node.recorded == [("view", MEMBER, STUDY, "TREAT", None)]


def test_a_token_does_not_count_among_members(
    portal: BlockingPortal, member: MembersClient, node: GatewayNode, held: Held
) -> None:
    for name, expected in (("Another", 404), (None, 401)):
        client = MembersClient(portal, node, name)
        client.headers = {"authorization": f"Bearer study-{OTHER}", "cookie": "cairn_session=session-admin"}
        assert client.get(f"/ipfs/{held.foreign}?format=raw").status_code == expected
        portal.call(client.http.aclose)


@pytest.mark.parametrize(
    "path",
    ["/", "/console/", "/dicom-web/studies", "/ohif/", "/ledger/checkpoint", "/livez", "/login", "/openapi.json"],
)
def test_members_are_served_nothing_but_sealed_blocks(member: MembersClient, path: str) -> None:
    assert member.get(path).status_code == 404


def test_an_engine_that_does_not_answer_is_to_be_asked_again(web: Client, node: GatewayNode, held: Held) -> None:
    def silent(cid: bytes) -> bytes:
        raise EngineFault("does not answer")

    node.blocks.get = silent  # type: ignore[method-assign]
    answer = web.get(f"/ipfs/{held.root}?format=raw")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
