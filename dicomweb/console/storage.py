"""Storage and ingest: what the node holds, how much came in lately, how much room is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.responses import Response

from bridge.model import StorageOverview
from dicomweb.console import charts, page, words
from dicomweb.console.html import Content, Html, link, tag
from dicomweb.exchange import Exchange
from dicomweb.node import Node

_DAYS: Final = 30
_LITTLE: Final = 0.1  # of the disk; below that it is said


def show(exchange: Exchange) -> Response:
    """`GET /console/storage`."""
    node = exchange.node
    storage = node.overview.storage()
    days = _days(node)
    body = [
        tag("h1", "Storage"),
        _verdict(storage),
        page.tiles(_held(storage)),
        tag("p", "Counted at ", words.stamp(storage.at), class_="remark"),
        page.panel("Instances stored by day", charts.days(days, "instance"), _table(days), id_="days"),
        page.panel("Room", *_room(storage), id_="room"),
        tag("p", link("/console/?type=study.store&type=study.import", "Stores in the timeline", class_="button")),
    ]
    document = page.page("Storage", body, section="/console/storage", who=exchange.actor.name)
    return page.answer(exchange, document)


def _verdict(storage: StorageOverview) -> Html | None:
    wrong = []
    if storage.counts.get("damaged"):
        wrong.append(
            f"{words.count(storage.counts['damaged'], 'instance')} damaged: send them again, or restore a backup"
        )
    if storage.disk_size and storage.disk_free / storage.disk_size < _LITTLE:
        wrong.append(f"only {words.size(storage.disk_free)} are free on the disk")
    return page.note("Look at this: ", "; ".join(wrong), ".", kind="bad") if wrong else None


def _held(storage: StorageOverview) -> dict[str, tuple[Content, Content]]:
    counts = storage.counts
    tiles: dict[str, tuple[Content, Content]] = {
        name.capitalize(): (f"{counts.get(name, 0):,}", None) for name in ("patients", "studies", "series", "instances")
    }
    tiles["Conflicts"] = (f"{counts.get('conflicts', 0):,}", "versions under one SOP Instance UID")
    tiles["Damaged"] = (f"{counts.get('damaged', 0):,}", "do not verify, are not served")
    return tiles


def _days(node: Node) -> list[tuple[datetime, int]]:
    """Instances stored on each of the last 30 days, the oldest first."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=back) for back in range(_DAYS - 1, -2, -1)]
    counts = node.overview.stored_between([round(day.timestamp()) * 1_000_000 for day in days])
    return list(zip(days, counts, strict=False))


def _table(days: Sequence[tuple[datetime, int]]) -> Html:
    """The days on which something came, the newest first, for who would rather read than look."""
    head = tag("tr", tag("th", "Day", scope="col"), tag("th", "Instances", scope="col"))
    rows = [
        tag("tr", tag("th", f"{day.day} {day:%B %Y}", scope="row"), tag("td", f"{number:,}"))
        for day, number in reversed(days)
        if number
    ]
    table = tag("table", tag("caption", "Instances stored by day"), tag("thead", head), tag("tbody", rows))
    return tag("details", tag("summary", "As a table"), table)


def _room(storage: StorageOverview) -> list[Html]:
    used = storage.disk_size - storage.disk_free
    name = f"{words.size(used)} of {words.size(storage.disk_size)} on this disk are used, by everything on it"
    return [
        charts.share(used, storage.disk_size, name),
        page.facts(
            {
                "Packs": f"{words.size(storage.pack_bytes)} in {words.count(storage.packs, 'file')}",
                "Free on the disk": f"{words.size(storage.disk_free)} of {words.size(storage.disk_size)}",
                "Blocks": f"{storage.counts.get('blocks', 0):,}, each sealed and checked against its hash when read",
            }
        ),
    ]
