"""Secrets of tokens, links and sessions: 32 random bytes, shown once and kept only as their SHA-256.

A hash of full-entropy secrets needs no salt and no slow function; looking a secret up by its hash leaks nothing about
it by timing, since whoever guesses controls neither the hash nor how much of it agrees.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from typing import Final

TOKEN: Final = "cairn_"
LINK: Final = "cairnlink_"
SESSION: Final = "cairnsession_"
_BODY: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def make(prefix: str) -> str:
    """A new secret: the prefix and 32 random bytes in URL-safe base64 without padding (43 characters)."""
    return prefix + base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode("ascii")


def digest(secret: str, *prefixes: str) -> bytes | None:
    """SHA-256 of a secret, None when it has none of the prefixes or not the form."""
    for prefix in prefixes:
        if secret.startswith(prefix) and _BODY.fullmatch(secret[len(prefix) :]):
            return hashlib.sha256(secret.encode("ascii")).digest()
    return None
