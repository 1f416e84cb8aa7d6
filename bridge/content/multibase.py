"""CIDs in the text forms that other tools write: multibase base16, 32, 36, 58 and 64url, and version 0.

What is read here need not be of a kind that is stored here; `bridge.content.cid.parse` says whether it is.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from bridge.content.cid import read_varint

__all__ = ["cid_from_text"]

_LONGEST: Final = 512
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION_0: Final = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}\Z")
_HEX: Final = re.compile(r"([0-9a-f]*|[0-9A-F]*)\Z")


def cid_from_text(text: str) -> bytes:
    """The binary CID that a text form spells; of version 0 its multihash alone. Raises ValueError for no CID."""
    if not text.isascii() or len(text) > _LONGEST:
        raise ValueError("no CID is like this")
    if _VERSION_0.match(text):
        return _in_base(text, _BASE58)
    cid = _decoded(text[:1], text[1:])
    version, position = read_varint(cid)
    _, position = read_varint(cid, position)
    _, position = read_varint(cid, position)
    size, position = read_varint(cid, position)
    if version != 1 or position + size != len(cid):
        raise ValueError("not a CID of version 1")
    return cid


def _decoded(prefix: str, body: str) -> bytes:
    """https://github.com/multiformats/multibase: the bases that CIDs are written in."""
    if prefix in ("b", "B") and "=" not in body and (body.islower() if prefix == "b" else body.isupper()):
        return base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    if prefix in ("f", "F") and _HEX.match(body):
        return bytes.fromhex(body)
    if prefix in ("k", "K"):
        return _in_base(body.lower(), _BASE36)
    if prefix == "z":
        return _in_base(body, _BASE58)
    if prefix == "u" and "=" not in body:
        return base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    raise ValueError("not a multibase that CIDs are written in")


def _in_base(text: str, alphabet: str) -> bytes:
    """A number in a base without padding; each leading zero digit stands for one zero byte."""
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    number = 0
    for character in text:
        number = number * len(alphabet) + alphabet.index(character)
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
