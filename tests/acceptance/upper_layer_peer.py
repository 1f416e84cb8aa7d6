"""A DICOM peer made of bytes (PS3.8 chapter 9, PS3.7 chapter 9), so that it can say what no toolkit would say."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bridge.dimse import command

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
UNDEFINED = b"\xff\xff\xff\xff"
ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
RELEASE = struct.pack(">BxI", 5, 4) + bytes(4)


def associate_request(sop_class: str = CT, syntax: str = EXPLICIT, called: bytes = b"CAIRN") -> bytes:
    """An A-ASSOCIATE-RQ of one presentation context (PS3.8 9.3.2)."""

    def item(kind: int, body: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(body)) + body

    context = item(0x20, b"\1\0\0\0" + item(0x30, sop_class.encode()) + item(0x40, syntax.encode()))
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    titles = called.ljust(16) + b"PEER".ljust(16) + bytes(32)
    body = b"\0\1\0\0" + titles + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxI", 1, len(body)) + body


def pdv(control: int, data: bytes, context: int = 1) -> bytes:
    """One presentation data value in a P-DATA-TF of its own; control 3: the last of a command, 2: of a data set."""
    value = struct.pack(">IBB", len(data) + 2, context, control) + data
    return struct.pack(">BxI", 4, len(value)) + value


def store_command(sop: str, sop_class: str = CT) -> bytes:
    """The command set of a C-STORE-RQ."""

    def uid(text: str) -> bytes:
        return text.encode() + b"\0" * (len(text) % 2)

    return command.encode(
        {
            command.AFFECTED_SOP_CLASS: uid(sop_class),
            command.COMMAND_FIELD: b"\1\0",
            command.MESSAGE_ID: b"\1\0",
            0x0700: b"\0\0",
            command.DATA_SET_TYPE: b"\0\0",
            command.AFFECTED_SOP_INSTANCE: uid(sop),
        }
    )


class Peer:
    """One connection, and an association on it once `associate` was called."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def read_pdu(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 at the end of the connection."""
        header = self._exactly(6)
        return (header[0], self._exactly(int.from_bytes(header[2:], "big"))) if header else (0, b"")

    def _exactly(self, count: int) -> bytes:
        held = b""
        while len(held) < count:
            piece = self.connection.recv(count - len(held))
            if not piece:
                return b""
            held += piece
        return held

    def associate(self, request: bytes) -> int:
        """The type of the PDU that answers: 2 accepted, 3 rejected, 7 aborted."""
        self.connection.sendall(request)
        return self.read_pdu()[0]

    def store(self, sop: str, data_set: bytes, sop_class: str = CT) -> int:
        """The status of a C-STORE of these bytes."""
        self.connection.sendall(pdv(3, store_command(sop, sop_class)))
        pieces = [data_set[at : at + 100_000] for at in range(0, len(data_set), 100_000)] or [b""]
        for piece in pieces[:-1]:
            self.connection.sendall(pdv(0, piece))
        self.connection.sendall(pdv(2, pieces[-1]))
        kind, body = self.read_pdu()
        assert kind == 4, f"a PDU of type {kind} where a response was due"
        at = 6
        while at < len(body):
            group, element, length = struct.unpack_from("<HHI", body, at)
            if (group, element) == (0, command.STATUS):
                return int.from_bytes(body[at + 8 : at + 10], "little")
            at += 8 + length
        raise AssertionError("a response without a status")


@contextmanager
def connected(port: int) -> Iterator[Peer]:
    """A connection to a DICOM port of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        yield Peer(connection)


@contextmanager
def associated(port: int, syntax: str = EXPLICIT) -> Iterator[Peer]:
    """An association for CT images in one transfer syntax, released at the end."""
    with connected(port) as peer:
        assert peer.associate(associate_request(syntax=syntax)) == 2
        yield peer
        peer.connection.sendall(RELEASE)
        assert peer.read_pdu()[0] == 6


def element(tag: int, vr: str, value: bytes) -> bytes:
    """A data element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    long = vr in ("OB", "OW", "SQ", "UN", "UT")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def identity(sop: str, study: str, series: str, sop_class: str = CT) -> bytes:
    """The elements that every composite instance has."""
    named: Sequence[tuple[int, str]] = (
        (0x00080016, sop_class),
        (0x00080018, sop),
        (0x0020000D, study),
        (0x0020000E, series),
    )
    return b"".join(element(tag, "UI", uid.encode() + b"\0" * (len(uid) % 2)) for tag, uid in named if uid)
