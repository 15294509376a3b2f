"""From page to page: counted, by cursor, by link; and what a caller goes on with."""

from __future__ import annotations

from typing import Any

import jsonata
import pytest
from pydantic import TypeAdapter

from integration_service.activities.execution.pagination import Page, Pages, PageTokens, next_link
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.pagination import Pagination
from integration_service.storage.vault.keyring import Keyring, generate_keyring

INSTANCE = "8f9f9c5e-7d6b-4a52-9f0c-2d2f3c1e7a10"


async def evaluate(expression: str, at: str, data: Any) -> Any:
    assert at.startswith("methods[0].pagination.")
    return jsonata.Jsonata(expression).evaluate(data)


def pages(**rules: Any) -> Pages:
    known = TypeAdapter(Pagination).validate_python({"items": "$", "maxPages": 3, **rules}, by_alias=True)
    return Pages(known, at="methods[0].pagination")


def answer(**headers: str) -> InboundResponse:
    return InboundResponse(200, headers, b"")


async def following(rules: Pages, page: Page, *, items: int = 0, body: Any = None, **headers: str) -> Page | None:
    return await rules.after(page, items=items, body=body, response=answer(**headers), evaluate=evaluate)


async def test_offsets_count_what_came_and_end_at_a_short_page() -> None:
    rules = pages(kind="offset", param="start", limitParam="max", limit=50)
    first = rules.first()
    assert first.variables == {"start": 0, "max": 50}
    second = await following(rules, first, items=50)
    assert second is not None
    assert second.variables == {"start": 50, "max": 50}
    assert await following(rules, second, items=49) is None


async def test_without_a_limit_an_empty_page_ends() -> None:
    rules = pages(kind="page", param="p", first=0)
    second = await following(rules, rules.first(), items=1)
    assert second is not None
    assert (rules.first().variables, second.variables) == ({"p": 0}, {"p": 1})
    assert await following(rules, second, items=0) is None


async def test_a_cursor_stands_in_its_param_until_there_is_none() -> None:
    rules = pages(kind="cursor", param="after", next="info.end")
    assert rules.first().variables == {}
    second = await following(rules, rules.first(), body={"info": {"end": "abc"}})
    assert second is not None
    assert second.variables == {"after": "abc"}
    for end in (None, "", False):
        assert await following(rules, second, body={"info": {"end": end}}) is None
    assert await following(rules, second, body={}) is None


async def test_a_cursor_that_does_not_move_is_no_endless_loop() -> None:
    rules = pages(kind="cursor", param="after", next="end")
    with pytest.raises(IntegrationError, match="same page"):
        await following(rules, rules.at("abc"), body={"end": "abc"})


async def test_what_is_no_cursor_is_the_upstreams_fault() -> None:
    rules = pages(kind="cursor", param="after", next="end")
    with pytest.raises(IntegrationError) as caught:
        await following(rules, rules.first(), body={"end": {"a": 1}})
    assert caught.value.code == "MALFORMED_RESPONSE"


REQUEST = OutboundRequest("GET", "https://api.test/v1/things?size=2", (("Accept", "a/b"),))


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("https://api.test/v1/things?page=2#x", "https://api.test/v1/things?page=2"),
        ("?page=2", "https://api.test/v1/things?page=2"),
        ("/v2/other", "https://api.test/v2/other"),
        ("https://api.test:443/x", "https://api.test:443/x"),
    ],
)
async def test_a_link_may_be_relative(link: str, url: str) -> None:
    rules = pages(kind="link")
    page = await following(rules, rules.first(), link=f'<{link}>; rel="next"')
    assert page is not None
    request = page.of(REQUEST)
    assert (request.url, request.headers) == (url, REQUEST.headers)


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.test/x",
        "http://api.test/x",
        "//evil.test",
        "https://api.test:8443/",
        "ftp://api.test/",
        "https://[/",
    ],
)
async def test_a_link_never_takes_the_credential_elsewhere(link: str) -> None:
    rules = pages(kind="link", next="next")
    page = await following(rules, rules.first(), body={"next": link})
    assert page is not None
    with pytest.raises(IntegrationError, match="another origin"):
        page.of(REQUEST)


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a.test/?p=2>; rel="next", <https://a.test/?p=9>; rel="last"', "https://a.test/?p=2"),
        ('<https://a.test/?p=1,2>; title="a, b"; rel=next', "https://a.test/?p=1,2"),
        ('<u>; rel="prev", <v>; REL="last NEXT"', "v"),
        ('<u>; rel="prev"', None),
        ("<u>", None),
        ("", None),
        ('<u>; rel="nextish"', None),
        ("<" * 100_000, None),
        ("<u>;" * 50_000, None),
    ],
)
def test_next_in_a_link_header(header: str, target: str | None) -> None:
    assert next_link(header) == target


async def test_items_are_always_a_list() -> None:
    rules = pages(kind="page", param="p", items="things.id")
    assert await rules.items({"things": [{"id": 1}, {"id": 2}]}, evaluate) == [1, 2]
    assert await rules.items({"things": [{"id": 1}]}, evaluate) == [1]
    assert await rules.items({"things": []}, evaluate) == []


@pytest.mark.parametrize("position", [-1, 1.5, True, "1", None, {}])
def test_a_position_of_another_kind_is_refused(position: Any) -> None:
    with pytest.raises(IntegrationError, match="nextPage"):
        pages(kind="offset", param="start").at(position)


@pytest.mark.parametrize("position", [40404, "abc=", "https://a.test/?key=k", 1.5])
async def test_a_token_opens_for_its_own_method_only(position: Any) -> None:
    tokens = PageTokens(Keyring.load(generate_keyring()))
    token = await tokens.seal(Page(position), owner=INSTANCE, method="list")
    assert str(position) not in token
    assert await tokens.open(token, owner=INSTANCE, method="list") == position
    for instance, method in ((INSTANCE, "other"), ("another", "list")):
        with pytest.raises(IntegrationError) as caught:
            await tokens.open(token, owner=instance, method=method)
        assert (caught.value.code, caught.value.path) == ("VALIDATION_ERROR", "page")


@pytest.mark.parametrize("token", [None, 1, "", "e", "e30", "W10", "ä", "W10" * 10_000, "WzEsMiwzLDQsNSw2LDcsOF0", []])
async def test_what_is_no_token_is_refused_in_words(token: Any) -> None:
    with pytest.raises(IntegrationError) as caught:
        await PageTokens(Keyring.load(generate_keyring())).open(token, owner=INSTANCE, method="list")
    assert (caught.value.code, caught.value.path) == ("VALIDATION_ERROR", "page")


async def test_a_token_of_another_keyring_is_refused() -> None:
    token = await PageTokens(Keyring.load(generate_keyring())).seal(Page(1), owner=INSTANCE, method="list")
    with pytest.raises(IntegrationError, match="nextPage"):
        await PageTokens(Keyring.load(generate_keyring())).open(token, owner=INSTANCE, method="list")


async def test_a_cursor_without_measure_is_the_upstreams_fault() -> None:
    rules = pages(kind="cursor", param="after", next="end")
    with pytest.raises(IntegrationError, match="over 8000 bytes"):
        await following(rules, rules.first(), body={"end": "x" * 8_000})
    longest = await following(rules, rules.first(), body={"end": "x" * 7_990})
    assert longest is not None
    tokens = PageTokens(Keyring.load(generate_keyring()))
    token = await tokens.seal(longest, owner=INSTANCE, method="list")
    assert await tokens.open(token, owner=INSTANCE, method="list") == "x" * 7_990
