"""Peers that are broken or hostile, against a running node: each is answered as the tables say, the others are served.

PS3.8 Tables 9-21 and 9-26 (rejections, aborts), PS3.4 Table B.2-1 (C-STORE status).
"""

from __future__ import annotations

import struct
import subprocess
import zlib

import pytest

from bridge.dicom import limits
from tests.acceptance.upper_layer_peer import (
    CT,
    DEFLATED,
    EXPLICIT,
    ITEM,
    ITEM_END,
    JPEG,
    MR,
    RELEASE,
    SEQUENCE_END,
    UNDEFINED,
    associate_request,
    associated,
    connected,
    element,
    identity,
    pdv,
    store_command,
)
from tests.node.running_node import DCMTK, RunningNode

REJECTED, ABORTED = 3, 7
STUDY, SERIES = "1.2.3.77", "1.2.3.78"
PIXELS = element(0x7FE00010, "OW", bytes(256))
SEQUENCE = struct.pack("<HH2sH", 0x0040, 0xA730, b"SQ", 0) + UNDEFINED
FRAGMENTS = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0) + UNDEFINED


def assert_others_are_served(node: RunningNode) -> None:
    echo = [DCMTK / "echoscu", "-aec", "CAIRN", "127.0.0.1", str(node.dimse_port)]
    assert subprocess.run(echo, check=False, timeout=30).returncode == 0
    assert node.is_ready()


def held(node: RunningNode) -> int:
    with node.http() as client:
        answer = client.get("/dicom-web/instances", params={"StudyInstanceUID": STUDY})
    return len(answer.json()) if answer.status_code == 200 else 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: cairn\r\n\r\n", 1),
        (bytes.fromhex("16030100c8010000c40303") + bytes(190), 1),
        (b"\xff\0\0\0\0\4abcd", 1),
        (b"\1\0\xff\xff\xff\xff", 6),
        (b"\1\0\0\0\0\0", 6),
        (pdv(3, store_command("1.2.3")), 2),
        (RELEASE, 2),
    ],
    ids=["HTTP", "TLS", "unknown type", "4 GiB", "empty request", "data first", "release first"],
)
def test_what_is_no_association_request_is_aborted_with_its_reason(node: RunningNode, said: bytes, reason: int) -> None:
    with connected(node.dimse_port) as peer:
        peer.connection.sendall(said)
        assert peer.read_pdu() == (ABORTED, bytes((0, 0, 2, reason)))
    assert_others_are_served(node)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (associate_request(), 2),
        (struct.pack(">BxII", 4, 4, 0), 6),
        (struct.pack(">BxIIBB", 4, 6, 0xFFFFFFFD, 1, 3), 6),
        (struct.pack(">BxI", 4, 1 << 20), 6),
        (pdv(3, store_command("1.2.3"), context=3), 6),
        (pdv(3, bytes(range(200))), 6),
        (pdv(2, PIXELS), 5),
        (pdv(3, store_command("1.2.3")) * 2, 5),
    ],
    ids=["second request", "PDV of 0", "PDV wraps", "PDU too long", "context", "no command", "no command yet", "twice"],
)
def test_what_breaks_an_association_aborts_it_with_its_reason(node: RunningNode, said: bytes, reason: int) -> None:
    with connected(node.dimse_port) as peer:
        assert peer.associate(associate_request()) == 2
        peer.connection.sendall(said)
        assert peer.read_pdu() == (ABORTED, bytes((0, 0, 2, reason)))
    assert_others_are_served(node)


def test_another_called_title_is_rejected_and_a_connection_that_ends_midway_leaves_nothing(node: RunningNode) -> None:
    with connected(node.dimse_port) as peer:
        assert peer.associate(associate_request(called=b"OTHER")) == REJECTED
    sop = "1.2.3.79.1"
    with connected(node.dimse_port) as peer:
        assert peer.associate(associate_request()) == 2
        peer.connection.sendall(pdv(3, store_command(sop)) + pdv(0, identity(sop, STUDY, SERIES)))
    assert_others_are_served(node)
    assert held(node) == 0


def refused_data_sets() -> dict[str, tuple[int, str, bytes]]:
    """Status, transfer syntax, bytes that call themselves instance 1.2.3.79.2 of a CT."""
    sop = "1.2.3.79.2"
    start = identity(sop, STUDY, SERIES)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(start + element(0x7FE00010, "OW", bytes(2 * limits.INFLATED_FREE))) + deflate.flush()
    deep = limits.DEPTH + 1
    return {
        "no bytes": (0xC000, EXPLICIT, b""),
        "no data set": (0xC000, EXPLICIT, b"A" * 5000),
        "no study": (0xC000, EXPLICIT, identity(sop, "", SERIES) + PIXELS),
        "no series": (0xC000, EXPLICIT, identity(sop, STUDY, "") + PIXELS),
        "no instance": (0xC000, EXPLICIT, identity("", STUDY, SERIES) + PIXELS),
        "study is no UID": (0xC000, EXPLICIT, identity(sop, "../../etc", SERIES) + PIXELS),
        "another instance": (0xA900, EXPLICIT, identity("1.2.3.80", STUDY, SERIES) + PIXELS),
        "another class": (0xA900, EXPLICIT, identity(sop, STUDY, SERIES, MR) + PIXELS),
        "too deep": (0xC000, EXPLICIT, start + (SEQUENCE + ITEM + UNDEFINED) * deep + (ITEM_END + SEQUENCE_END) * deep),
        "too many items": (0xC000, EXPLICIT, start + SEQUENCE + (ITEM + bytes(4)) * 1_000_000 + SEQUENCE_END),
        "no delimiter": (0xC000, JPEG, start + FRAGMENTS + ITEM + bytes(4) + ITEM + b"\x10\0\0\0" + bytes(16)),
        "no deflate stream": (0xC000, DEFLATED, b"\xff" * 500),
        "a deflate bomb": (0xC000, DEFLATED, bomb),
    }


@pytest.mark.parametrize("name", refused_data_sets())
def test_a_data_set_that_cannot_be_stored_has_its_status_and_the_association_goes_on(
    node: RunningNode, name: str
) -> None:
    status, syntax, data_set = refused_data_sets()[name]
    with associated(node.dimse_port, syntax) as peer:
        assert peer.store("1.2.3.79.2", data_set) == status
        assert peer.store("1.2.3.79.2", b"\xff" * 10) == 0xC000
    assert held(node) == 0


def test_a_data_set_cut_anywhere_within_an_element_is_never_stored(node: RunningNode) -> None:
    sop = "1.2.3.79.3"
    elements = [identity(sop, STUDY, SERIES), element(0x00280010, "US", b"\x10\0"), PIXELS]
    whole = b"".join(elements)
    between = {len(b"".join(elements[:count])) for count in (1, 2, 3)}
    with associated(node.dimse_port) as peer:
        cuts = [at for at in range(len(whole)) if at not in between]
        assert {peer.store(sop, whole[:at]) for at in cuts} == {0xC000}
    assert held(node) == 0


def test_a_class_that_is_not_the_contexts_and_a_name_that_is_no_uid_are_refused_by_the_command(
    node: RunningNode,
) -> None:
    with associated(node.dimse_port) as peer:
        assert peer.store("1.2.3.79.4", identity("1.2.3.79.4", STUDY, SERIES, MR) + PIXELS, MR) == 0x0122
        assert peer.store("../../etc/passwd", identity("1.2.3.79.4", STUDY, SERIES) + PIXELS, CT) == 0x0117
        assert peer.store("1." + "2" * 63, identity("1.2.3.79.4", STUDY, SERIES) + PIXELS, CT) == 0x0117
    assert held(node) == 0


def test_after_all_of_it_everything_holds(node: RunningNode) -> None:
    sop = "1.2.3.79.9"
    with associated(node.dimse_port) as peer:
        assert peer.store(sop, identity(sop, STUDY, SERIES) + PIXELS) == 0x0000
    assert held(node) == 1
    assert node.answer("fsck")["findings"] == []
    assert node.answer("ledger", "verify")["findings"] == []
