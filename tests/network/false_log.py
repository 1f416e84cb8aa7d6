"""A member's listener that gives out another history of the shared log, signed with that member's own keys."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bridge.crypto.keystore import open_keystore
from ledger import checkpoint, cosignature
from ledger.genesis import cosigner_key
from tests.network.hospital import MEMBERS_PORT, Hospital


class FalseLog:
    """In place of the members' listener of a node that does not run: every size has a root that nobody else has."""

    def __init__(self, liar: Hospital, origin: str) -> None:
        cosigner = cosigner_key(open_keystore(liar.home, None).signing_seed)

        class Listener(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = self.path.rpartition("/cosignature/")[2]
                if not size.isdecimal():
                    self.send_error(404)
                    return
                root = hashlib.sha256(b"another history" + size.encode()).digest()
                note = checkpoint.make(origin, int(size), root, liar.signer)
                body = json.dumps({"checkpoint": cosignature.sign(note, liar.name, cosigner, int(time.time()))})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(liar.home / "consortium/tls.crt", liar.home / "consortium/tls.key")
        address = (liar.namespace.address, MEMBERS_PORT)
        self._server = ThreadingHTTPServer(address, Listener, bind_and_activate=False)
        self._server.socket.close()
        listening: socket.socket = liar.namespace.run(socket.create_server, address)
        self._server.socket = context.wrap_socket(listening, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
