"""When a credential ends, as an operator writes it: a date, a date and time, or a span from now. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from bridge.errors import ConfigError

_SPAN: Final = re.compile(r"([0-9]{1,6})\s*([smhdw])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse(text: str, now_us: int) -> int:
    """Microseconds since the epoch of "12h", "30d", "2027-01-31" or "2027-01-31T12:00:00Z" (UTC when it says nothing).

    Raises ConfigError for anything else, and for what is already past.
    """
    span = _SPAN.match(text.strip())
    if span:
        ends = now_us + int(span[1]) * _SECONDS[span[2]] * 1_000_000
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigError(f"{text!r} is no time; write 12h, 30d, 2027-01-31 or 2027-01-31T12:00:00Z") from None
        ends = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)
    if ends <= now_us:
        raise ConfigError(f"{text!r} is already past")
    return ends
