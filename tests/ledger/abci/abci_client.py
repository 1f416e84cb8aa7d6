"""CometBFT's end of one ABCI connection, spoken with generated protobuf code."""

from __future__ import annotations

import socket
from typing import Any, Self

from cosmpy.protos.tendermint.abci import types_pb2 as pb


class AbciClient:
    """One connection to a server at `unix://` or `tcp://`."""

    def __init__(self, address: str) -> None:
        scheme, _, place = address.partition("://")
        if scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60.0)
            try:
                self.socket.connect(place)
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = place.rpartition(":")
            self.socket = socket.create_connection((host, int(port)), 60.0)
        self._input = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self.socket.close()

    def send(self, **asked: Any) -> None:
        """Send one request, named as in `tendermint.abci.Request`."""
        message = pb.Request(**asked).SerializeToString()
        length = bytearray()
        left = len(message)
        while left > 0x7F:
            length.append(left & 0x7F | 0x80)
            left >>= 7
        self.socket.sendall(bytes([*length, left]) + message)

    def read(self) -> Any:
        """The next response, whatever it is; None when the connection has ended."""
        length = shift = 0
        while True:
            byte = self._input.read(1)
            if not byte:
                return None
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                break
        message = self._input.read(length)
        assert len(message) == length
        response = pb.Response.FromString(message)
        return getattr(response, response.WhichOneof("value"))

    def ask(self, **asked: Any) -> Any:
        """Send one request, and its response."""
        self.send(**asked)
        return self.read()
