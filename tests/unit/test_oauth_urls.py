"""Where an authorization may lead back to: plain URLs of the list, and loopback addresses."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.contracts.oauth_urls import (
    allowed_return_url,
    is_loopback_redirect,
    is_return_url,
    with_parameters,
)

ALLOWED = (
    "https://app.test",
    "https://docs.test/oauth/",
    "https://one.test/done",
    "https://query.test/done?tenant=1",
    "http://localhost:3000/",
    "https://[2001:db8::1]/x/",
)


@pytest.mark.parametrize(
    "url",
    [
        "https://app.test",
        "https://app.test/",
        "https://app.test/any/page?x=1&y=%20#part",
        "https://app.test:443/any",
        "HTTPS://APP.TEST/any",
        "https://docs.test/oauth/",
        "https://docs.test/oauth/done",
        "https://docs.test/oauth/..a/...",
        "https://docs.test/oauth/a%20b",
        "https://one.test/done",
        "https://one.test/done?session=5",
        "https://query.test/done?tenant=1",
        "http://localhost:3000/x",
        "https://[2001:db8::1]/x/y",
    ],
)
def test_what_the_list_covers_is_allowed(url: str) -> None:
    assert allowed_return_url(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/done",
        "//app.test/",
        "app.test",
        "https:app.test",
        "https:/app.test",
        "https:///app.test",
        "http://app.test/",
        "ftp://app.test/",
        "javascript:alert(1)//https://app.test",
        "https://app.test:444/",
        "https://app.test:0/",
        "https://app.test:/",
        "https://app.test:x/",
        "https://app.test:99999/",
        "https://app.test./",
        "https://app.test../",
        "https://app.test.evil.test/",
        "https://app.testevil.test/",
        "https://evil.test/https://app.test",
        "https://evil.test?https://app.test",
        "https://evil.test#https://app.test",
        "https://xapp.test/",
        "https://sub.app.test/",
        "https://user@app.test/",
        "https://user:pass@app.test/",
        "https://@app.test/",
        "https://app.test@evil.test/",
        "https://app.test%40evil.test/",
        "https://app.test\\@evil.test/",
        "https://evil.test\\@app.test/",
        "https://evil.test\\.app.test/",
        "https:\\\\app.test/",
        "https://app%2etest/",
        "https://app.test%00.evil.test/",
        "https://app.test\x00/",
        "https://app.test/\r\nSet-Cookie: a=b",
        "https://app.te\tst/",
        " https://app.test/",
        "https://app.test/ ",
        "https://app.test /",
        "https://app。test/",
        "https://аpp.test/",  # noqa: RUF001 - its first letter is Cyrillic
        "https://app.test：443/",  # noqa: RUF001 - a full-width colon
        "https://app.test/é",
        "https://docs.test/oauth",
        "https://docs.test/oauthx/",
        "https://docs.test/OAuth/done",
        "https://docs.test/oauth/../admin",
        "https://docs.test/oauth/./done",
        "https://docs.test/oauth/..",
        "https://docs.test/oauth/%2e%2e/admin",
        "https://docs.test/oauth/%2E./admin",
        "https://docs.test/oauth/.%2e%2fadmin",
        "https://docs.test/oauth/..%5cadmin",
        "https://docs.test/oauth/..%2Fadmin",
        "https://docs.test/oauth/%252e%252e/admin",
        "https://docs.test/oauth/..;x=1/admin",
        "https://docs.test//oauth/",
        "https://one.test/done/more",
        "https://one.test/done/",
        "https://one.test/donex",
        "https://query.test/done",
        "https://query.test/done?tenant=2",
        "https://query.test/done?tenant=1&tenant=2",
        "http://localhost:3001/",
        "http://localhost/",
        "https://[2001:db8::2]/x/",
        "https://[2001:db8::1]/y",
        "https://[2001:db8::1/x/",
        "https://2001:db8::1]/x/",
        "https://app.test/[x]",
        "https://[app.test]/",
        "https://app.test/" + "a" * 3000,
    ],
)
def test_what_is_not_covered_or_not_plain_is_refused(url: str) -> None:
    assert not allowed_return_url(url, ALLOWED)


@pytest.mark.parametrize("entry", ["*", "https://*", "https://*.app.test", "app.test", "", "https://u@app.test"])
def test_an_entry_that_is_no_url_allows_nothing(entry: str) -> None:
    assert not is_return_url(entry)
    assert not allowed_return_url("https://app.test/", [entry])


def test_an_empty_list_allows_nothing() -> None:
    assert not allowed_return_url("https://app.test/", [])


@given(st.text(max_size=60), st.sampled_from(["https://app.test", "https://app.test/", "https://docs.test/oauth/", ""]))
def test_what_is_allowed_goes_to_a_listed_origin(text: str, start: str) -> None:
    url = start + text
    if allowed_return_url(url, ALLOWED):
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname in ("app.test", "docs.test")
        assert parts.username is None
        assert ".." not in parts.path.split("/")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1",
        "http://127.0.0.1/",
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1:65535/a/b-c_d~e.html",
        "http://[::1]:8080/callback",
        "http://[::1]/",
    ],
)
def test_loopback_redirects(uri: str) -> None:
    assert is_loopback_redirect(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://127.0.0.1:80/",
        "HTTP://127.0.0.1/",
        "http://localhost:80/callback",
        "http://127.0.0.1.evil.test/",
        "http://127.0.0.1./",
        "http://127.0.0.12/",
        "http://127.1/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:080/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:/",
        "http://127.0.0.1:80:80/",
        "http://127.0.0.1:80@evil.test/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1\\@evil.test/",
        "http://127.0.0.1/?x=1",
        "http://127.0.0.1?",
        "http://127.0.0.1/#x",
        "http://127.0.0.1/a\\b",
        "http://127.0.0.1/../x",
        "http://127.0.0.1/%2e%2e/x",
        "http://127.0.0.1/ x",
        "http://127.0.0.1/\n",
        "http://127.0.0.1:80/callback\n",
        "http://127.0.0.1:８０/",  # noqa: RUF001 - full-width digits
        "http://①27.0.0.1/",
        "http://[::1]evil.test/",
        "http://[::2]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://::1/",
        "//127.0.0.1/",
        "http://127.0.0.1/" + "a" * 3000,
    ],
)
def test_what_is_no_loopback_redirect(uri: str) -> None:
    assert not is_loopback_redirect(uri)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.test", "https://a.test?status=c+d"),
        ("https://a.test/x?y=1", "https://a.test/x?y=1&status=c+d"),
        ("https://a.test/x#part?z", "https://a.test/x?status=c+d#part?z"),
    ],
)
def test_parameters_stand_after_the_query_and_before_the_fragment(url: str, expected: str) -> None:
    assert with_parameters(url, {"status": "c d"}) == expected
    assert ("status", "c d") in parse_qsl(urlsplit(expected).query)
