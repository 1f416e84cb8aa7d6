"""Storage and ingest: what the node holds, how much came in lately, how much room is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.responses import Response

from bridge.model import ContentOverview, StorageOverview
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
        page.panel("Content", *_content(node.overview.content()), id_="content-engine"),
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
    wrong += storage.full
    if not storage.full and storage.disk_size and storage.disk_free / storage.disk_size < _LITTLE:
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
    head = ("Day", "Instances")
    rows = [(f"{day.day} {day:%B %Y}", f"{number:,}") for day, number in reversed(days) if number]
    if not rows:
        return tag("p", f"Nothing was stored in the last {_DAYS} days.", class_="remark")
    table = page.listing("Instances stored by day", head, rows, figures=head[1:])
    return tag("details", tag("summary", "As a table"), table)


def _content(content: ContentOverview) -> list[Html]:
    """How the archive stands with its content engine, and how far the scrub is."""
    wrong = [page.note("Since ", words.stamp(since), ": ", reason, kind="bad") for since, reason in content.faults]
    rows: dict[str, Content] = {"Engine": content.engine}
    if content.engine != "embedded":
        waiting = f"; {content.waiting:,} wait for it" if content.waiting else ""
        rows["Pinned"] = f"{words.count(content.pinned, 'study', 'studies')}{waiting}"
        few = words.count(content.short, "study has", "studies have")
        rows["Copies"] = f"{few} fewer than wanted" if content.short else "as many as wanted, of each"
        rows["Trimmed"] = words.count(content.trimmed, "pack") if content.trimmed else None
    read = words.count(content.verified, "study", "studies")
    rows["Read back whole"] = (read, _longest(content.oldest)) if content.verified else "none so far"
    rows["Scrub"] = _scrub(content)
    return [*wrong, page.facts({name: value for name, value in rows.items() if value})]


def _longest(oldest: int | None) -> Html | None:
    return tag("small", "the longest ago ", words.stamp(oldest)) if oldest is not None else None


def _scrub(content: ContentOverview) -> Content:
    if not content.days:
        return "turned off: content.scrub_days is 0"
    every = f"everything is read once in {words.count(content.days, 'day')}"
    if content.begun is None:
        return (every, tag("small", "nothing has been read yet"))
    found = f"; {content.wrong:,} blocks were not whole, {content.mended:,} of them mended" if content.wrong else ""
    share = f"{content.share:.0%} read{found}"
    return (every, tag("small", "this pass, begun ", words.stamp(content.begun), ": ", share))


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
