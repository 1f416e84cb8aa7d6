"""Which content engine stands behind the port: the one place that chooses."""

from __future__ import annotations

from bridge.config import Settings
from bridge.content.embedded import EmbeddedStore
from bridge.content.packs import PackStore
from bridge.content.pins import PinTable
from bridge.errors import ConfigError
from bridge.ports import ContentStore

__all__ = ["open_content"]


def open_content(settings: Settings, packs: PackStore, pins: PinTable) -> ContentStore:
    """The engine of `content.engine` over the node's packs, which it closes. Asks no engine anything yet.

    What an engine beyond the embedded one needs is imported only when it is chosen, for it costs memory and time.
    """
    if settings.content.engine == "embedded":
        return EmbeddedStore(packs, pins)
    raise ConfigError(f"content.engine: {settings.content.engine} is not there yet")
