"""Log lines: one JSON object each, a fixed phrase and whitelisted fields, so that no PHI leaves by a log."""

from __future__ import annotations

import json
import logging
import sys
import time

FIELDS = (
    "slug", "worker", "status", "command", "association", "peer", "ae", "accepted", "rejected", "stored", "refused",
    "bytes", "seconds", "reason", "method", "route", "instance", "pack", "offset", "entries", "batches", "where",
)  # fmt: skip


class JsonLines(logging.Formatter):
    """Formats a record as one line; a traceback is kept, for it holds code, not data."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Log Cairn's own loggers to standard error at `level`; libraries only from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("bridge", "ledger", "dicomweb"):
        logging.getLogger(name).setLevel(level.upper())
