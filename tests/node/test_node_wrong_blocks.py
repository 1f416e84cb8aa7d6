"""A member that offers other blocks than it is asked for: a real node refuses them and names it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ended_well
from tests.node.audit_repository import Authority, Identity
from tests.node.instances import HIGHDICOM, sendable
from tests.node.kubo_archive import until
from tests.node.running_node import RunningNode, free_ports

SENT = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
LIAR = "St. Elsewhere"


class Lies(BaseHTTPRequestHandler):
    """Has every block, and each is the same."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not the block that you asked for")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[tuple[str, Identity, Identity]]:
    """The url of the member that lies, its certificate and this node's."""
    authority = Authority(tmp_path)
    own, member = authority.issue("here", "127.0.0.1"), authority.issue("elsewhere", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(member.certificate, member.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Lies) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}", member, own
        server.shutdown()
        thread.join()


def test_blocks_that_are_not_what_they_must_be_are_refused_and_their_member_is_named(
    liar: tuple[str, Identity, Identity], tmp_path: Path
) -> None:
    url, member, own = liar
    (port,) = free_ports(1)
    settings = tmp_path / "cairn.toml"
    settings.write_text(
        f'[members]\nport = {port}\ncertificate = "{own.certificate}"\nkey = "{own.key}"\n'
        f'[[members.peers]]\nname = "{LIAR}"\ncertificate = "{member.certificate}"\nurl = "{url}"\n',
        "utf-8",
    )
    node = RunningNode(tmp_path / "home", CAIRN_CONFIG=str(settings))
    try:
        node.start()
        node.cairn("import", str(SENT.file))
        (pack,) = (node.home / "packs").glob("*.car")
        with pack.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(pack.stat().st_size - 8192))
        found = node.answer("fsck", "--content", code=3)
        assert found["mended"] == 0 and found["findings"]
        until(lambda: "wrong-block" in str(node.answer("ledger", "alerts")))
        (alert,) = node.answer("ledger", "alerts")["alerts"]
        assert f"member {LIAR} offered another block" in alert["what"]
        with node.http("admin") as client:
            page = client.get("/console/alerts").text
        assert LIAR in page and "wrong-block" in page
        ended_well(node)
    finally:
        node.kill()
