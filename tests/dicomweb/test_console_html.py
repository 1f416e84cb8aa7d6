"""Markup is made in one place, where whatever is text stays text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.console.html import Html, link, path, tag, text


class Reader(HTMLParser):
    """What a browser would make of some markup: elements, attributes, text."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.said += data


PRINTABLE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf")))


@given(PRINTABLE, PRINTABLE)
def test_text_and_attributes_come_back_as_they_were_and_as_nothing_else(content: str, title: str) -> None:
    read = Reader(tag("p", content, title=title))
    assert (read.elements, read.attributes, read.said) == (["p"], [("title", title)], content)


@given(st.text())
def test_no_text_whatever_becomes_an_element(content: str) -> None:
    assert Reader(tag("p", content, title=content)).elements == ["p"]


@pytest.mark.parametrize("unseen", ["\x00", "\x1b[31m", "\u202egnp.exe", "\u2066", "\ud800"])
def test_what_cannot_be_seen_or_turns_the_text_around_is_shown_as_such(unseen: str) -> None:
    shown = text(unseen)
    assert "\N{REPLACEMENT CHARACTER}" in shown
    shown.encode()


def test_markup_is_not_escaped_again_and_nothing_is_nothing() -> None:
    assert text(["a<", tag("b", 3), None, ("<",)]) == "a&lt;<b>3</b>&lt;"
    assert tag("input", required=True, hidden=False, value=None) == "<input required>"
    assert tag("label", for_="x", aria_label='"') == '<label for="x" aria-label="&quot;"></label>'


@pytest.mark.parametrize("name", ["style", "onclick", "a b", 'a"', ""])
def test_no_attribute_carries_script_or_style(name: str) -> None:
    with pytest.raises(ValueError, match="is no attribute"):
        tag("p", **{name: "x"})


@pytest.mark.parametrize("name", ["p onclick", "", "<", "p/"])
def test_no_element_has_another_name_than_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no element"):
        tag(name)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "//evil.example", "https://evil.example", "/\\evil", "x"])
def test_links_stay_on_this_server(address: str) -> None:
    with pytest.raises(ValueError, match="a path of this server"):
        link(address, "x")


def test_a_path_keeps_its_segments_apart() -> None:
    assert path("console", "patients", "a/../b?c#d %", "report") == "/console/patients/a%2F..%2Fb%3Fc%23d%20%25/report"
    assert isinstance(link(path("x"), "y"), Html)
