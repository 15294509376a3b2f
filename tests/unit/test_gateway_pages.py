"""Pages load nothing, run nothing, and show others' text as text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.gateway import pages
from integration_service.gateway.pages import PAGE_HEADERS, Page

HOSTILE = "<script>alert('x')</script>\"'&"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key == "href"]


PLAIN = ["html", "head", "meta", "meta", "title", "style", "body", "main", "h1", "p"]


def test_the_policy_names_the_very_style_that_stands_in_the_page() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", pages.CONNECTED.html(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert PAGE_HEADERS["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    assert "unsafe" not in PAGE_HEADERS["Content-Security-Policy"]
    assert "style=" not in pages.CONNECTED.html()


def test_it_says_its_language_and_has_one_heading() -> None:
    html = pages.CONNECTED.html()
    assert '<html lang="en">' in html
    assert Tags(html).tags == PLAIN


@given(st.text(min_size=1, max_size=80))
def test_anything_is_shown_as_text(text: str) -> None:
    page = Page(400, text, text, text, back="https://app.test/?a=1&b=2")
    tags = Tags(page.html())
    assert tags.tags == [*PLAIN, "p", "code", "p", "a"]
    assert tags.links == ["https://app.test/?a=1&b=2"]


def test_hostile_text_is_escaped() -> None:
    html = pages.failed(IntegrationError(HOSTILE, HOSTILE)).with_back(f"https://app.test/{HOSTILE}").html()
    assert "<script" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("error", "shown"),
    [("access_denied", True), ("Access_Denied", False), ("a" * 41, False), ("<b>", False), ("denied\n", False)],
)
def test_a_providers_code_is_shown_where_it_looks_like_one(error: str, shown: bool) -> None:
    page = pages.refused(error)
    assert page.status == 400
    assert page.code == (error if shown else None)


def test_a_failure_is_ours_or_the_askers() -> None:
    wrong = pages.failed(IntegrationError(ErrorCode.VALIDATION_ERROR, "that state was used already", path="state"))
    assert (wrong.status, wrong.sentence) == (400, "That state was used already.")
    behind = pages.failed(IntegrationError(ErrorCode.TIMEOUT, "the token endpoint did not answer"))
    assert (behind.status, behind.code) == (502, "TIMEOUT")


@pytest.mark.parametrize(
    ("status", "expected", "sentence"),
    [
        ({"status": "CONNECTED"}, 200, pages.CONNECTED.sentence),
        ({"status": "AUTH_ERROR", "error": {"message": "refused with 401", "code": "X"}}, 502, "Refused with 401."),
        ({"status": "CONFIG_ERROR"}, 502, "The connection is not in use yet."),
        ({}, 502, "The connection is not in use yet."),
    ],
)
def test_only_connected_is_a_success(status: dict[str, object], expected: int, sentence: str) -> None:
    page = pages.completed(status)
    assert (page.status, page.sentence) == (expected, sentence)
