"""Where requests come from, and what proxies may say about it (RFC 7239)."""

from __future__ import annotations

import pytest

from dicomweb.origin import Origin, origin_of

PROXY = ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("192.0.2.1", {"host": "pacs:8042"}, Origin("192.0.2.1", "http://pacs:8042", False, False)),
        ("192.0.2.1", {"host": "pacs"}, Origin("192.0.2.1", "http://pacs:8042", False, False)),
        ("127.0.0.1", {"host": "[::1]"}, Origin("127.0.0.1", "http://[::1]:8042", False, True)),
        ("192.0.2.1", {}, Origin("192.0.2.1", "http://fallback:1", False, False)),
        ("192.0.2.1", {"host": 'x"><script>'}, Origin("192.0.2.1", "http://fallback:1", False, False)),
        ("127.0.0.1", {"host": "localhost:8042"}, Origin("127.0.0.1", "http://localhost:8042", False, True)),
        (
            "192.0.2.1",
            {"host": "pacs", "x-forwarded-host": "evil", "x-forwarded-proto": "https"},
            Origin("192.0.2.1", "http://pacs", True, False),
        ),
        (
            "10.1.2.3",
            {
                "host": "inner",
                "x-forwarded-host": "pacs.example",
                "x-forwarded-proto": "https",
                "x-forwarded-for": "a, b",
            },
            Origin("b", "https://pacs.example", True, False),
        ),
        (
            "10.1.2.3",
            {
                "host": "inner",
                "forwarded": 'for=spoof;host=spoof, for="[2001:db8::1]";host="pacs.example:8443";proto=https',
            },
            Origin("2001:db8::1", "https://pacs.example:8443", True, False),
        ),
        ("10.1.2.3", {"host": "inner", "x-forwarded-proto": "gopher"}, Origin("10.1.2.3", "http://inner", True, False)),
        (
            "10.1.2.3",
            {"host": "inner", "x-forwarded-host": "a b"},
            Origin("10.1.2.3", "http://fallback:1", True, False),
        ),
    ],
)
def test_the_origin_of_a_request(peer: str, headers: dict[str, str], expected: Origin) -> None:
    assert origin_of(headers, "http", peer, 8042, "fallback:1", PROXY) == expected
