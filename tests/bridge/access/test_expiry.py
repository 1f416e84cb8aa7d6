"""Times as an operator writes them: when a credential ends, and since when the ledger is looked at."""

from __future__ import annotations

import pytest

from bridge.access.expiry import parse, parse_past
from bridge.errors import ConfigError

NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
HOUR = 3600 * 1_000_000


@pytest.mark.parametrize(
    ("text", "span"), [("1h", HOUR), (" 2 d ", 48 * HOUR), ("30s", 30_000_000), ("1w", 168 * HOUR), ("5m", HOUR // 12)]
)
def test_spans_count_from_now_both_ways(text: str, span: int) -> None:
    assert parse(text, NOW) == NOW + span and parse_past(text, NOW) == NOW - span


def test_dates_and_times_are_utc_when_they_say_nothing() -> None:
    for text in ("2026-01-02", "2026-01-02T00:00:00Z", "2026-01-02T02:00:00+02:00"):
        assert parse(text, NOW) == parse_past(text, NOW) == NOW + 24 * HOUR


def test_a_credential_cannot_end_in_the_past_but_a_look_begins_there() -> None:
    with pytest.raises(ConfigError):
        parse("2025-12-31", NOW)
    assert parse_past("2025-12-31", NOW) == NOW - 24 * HOUR


@pytest.mark.parametrize("text", ["", "soon", "1y", "-1h", "2026-13-01"])
def test_anything_else_is_refused(text: str) -> None:
    for read in (parse, parse_past):
        with pytest.raises(ConfigError):
            read(text, NOW)
