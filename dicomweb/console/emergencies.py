"""The banner of break-glass accesses across hospitals: seen at both ends until they are over and reviewed."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.consortium_model import Emergency
from dicomweb.console import words
from dicomweb.console.html import Html, link, path, tag


def banner(found: Sequence[Emergency], now_us: int) -> Html | None:
    """One line for each that lasts or waits for its review; None when there is none."""
    shown = [one for one in found if one.ends_us > now_us or not one.reviewed]
    if not shown:
        return None
    lines = tag("ul", [_line(one, now_us) for one in shown], class_="stacked")
    return tag("div", tag("p", tag("b", "Emergency access")), lines, class_="note bad", role="status")


def _line(one: Emergency, now_us: int) -> Html:
    of = "this hospital" if one.own else one.from_member
    by = one.to_member if one.own else "this hospital"
    lasts = f"lasts {words.span((one.ends_us - now_us) / 1e6)} more" if one.ends_us > now_us else "is over"
    review = "reviewed" if one.reviewed else "to be reviewed"
    about = (link(path("console", "studies", one.study), "study"), ", ") if one.study else None
    return tag(
        "li",
        f"{by} broke the glass for a study of {of} on ",
        words.stamp(one.started_us),
        f"; it {lasts}, {review}. Reason: {one.reason or 'kept at the other hospital'}. ",
        about,
        link(path("console", "entries", one.entry.hex()), "entry"),
    )
