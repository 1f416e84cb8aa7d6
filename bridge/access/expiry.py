"""When a credential ends, as an operator writes it: a date, a date and time, or a span from now. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from bridge.errors import ConfigError

_SPAN: Final = re.compile(r"([0-9]{1,6})\s*([smhdw])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_past(text: str, now_us: int) -> int:
    """Microseconds since the epoch of a date, a date and time, or a span back from now. Raises ConfigError."""
    span = _SPAN.match(text.strip())
    return now_us - _span_us(span) if span else _moment_us(text)


def parse(text: str, now_us: int) -> int:
    """Microseconds since the epoch of "12h", "30d", "2027-01-31" or "2027-01-31T12:00:00Z" (UTC when it says nothing).

    Raises ConfigError for anything else, and for what is already past.
    """
    span = _SPAN.match(text.strip())
    ends = now_us + _span_us(span) if span else _moment_us(text)
    if ends <= now_us:
        raise ConfigError(f"{text!r} is already past")
    return ends


def _span_us(span: re.Match[str]) -> int:
    return int(span[1]) * _SECONDS[span[2]] * 1_000_000


def _moment_us(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{text!r} is no time; write 12h, 30d, 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
