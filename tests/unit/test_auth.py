"""How a credential goes onto a request, and what of it must not come back."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities import auth
from integration_service.activities.auth import authenticate, secret_texts
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import ApiKey, BasicAuth, CredentialPayload
from integration_service.contracts.definitions import IntegrationAuthType

PLAIN = OutboundRequest(method="GET", url="https://api.test/x", headers=(("Accept", "*/*"),))
TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def basic(username: str, password: str) -> CredentialPayload:
    return CredentialPayload(type=IntegrationAuthType.BASIC, basic_auth=BasicAuth(username=username, password=password))


def api_key(key: str, name: str = "X-Api-Key", *, header: bool = True) -> CredentialPayload:
    return CredentialPayload(
        type=IntegrationAuthType.API_KEY, api_key=ApiKey(key=key, header_or_param=name, in_header=header)
    )


def test_without_a_credential_nothing_is_added() -> None:
    assert authenticate(PLAIN, None) == PLAIN
    assert secret_texts(None) == ()


@given(TEXT.filter(lambda text: ":" not in text), TEXT)
@settings(max_examples=50)
def test_basic_is_user_and_password_in_base64(username: str, password: str) -> None:
    scheme, _, token = (authenticate(PLAIN, basic(username, password)).header("authorization") or "").partition(" ")
    assert (scheme, base64.b64decode(token).decode()) == ("Basic", f"{username}:{password}")


def test_the_rfcs_own_example() -> None:
    # RFC 7617 §2
    signed = authenticate(PLAIN, basic("Aladdin", "open sesame"))
    assert signed.header("Authorization") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_a_key_in_a_header_stands_there_alone() -> None:
    request = OutboundRequest("GET", "https://api.test", headers=(("x-api-key", "placeholder"), ("Accept", "*/*")))
    signed = authenticate(request, api_key("the-key"))
    assert [value for name, value in signed.headers if name.lower() == "x-api-key"] == ["the-key"]
    assert signed.header("accept") == "*/*"


def test_basic_takes_the_place_of_an_authorization_that_is_there() -> None:
    request = OutboundRequest("GET", "https://api.test", headers=(("authorization", "placeholder"),))
    signed = authenticate(request, basic("u", "p"))
    assert len([name for name, _ in signed.headers if name.lower() == "authorization"]) == 1
    assert (signed.header("authorization") or "").startswith("Basic ")


@pytest.mark.parametrize("url", ["https://api.test/x", "https://api.test/x?a=1", "https://api.test/x?a=b%20c&d=%26"])
@given(key=TEXT)
@settings(max_examples=25)
def test_a_key_in_the_query_is_one_more_parameter(url: str, key: str) -> None:
    signed = authenticate(OutboundRequest("GET", url), api_key(key, "api[key]", header=False))
    before, after = urlsplit(url), urlsplit(signed.url)
    assert parse_qsl(after.query, keep_blank_values=True) == [*parse_qsl(before.query), ("api[key]", key)]
    assert (after.path, after.netloc, after.fragment) == (before.path, before.netloc, "")
    assert signed.headers == ()


@pytest.mark.parametrize("credential", [basic("u", "pw"), api_key("k"), api_key("k", "Authorization")])
def test_the_header_that_carries_the_credential_is_marked_as_secret(credential: CredentialPayload) -> None:
    signed = authenticate(PLAIN, credential)
    assert signed.secret_headers == {name.lower() for name, _ in signed.headers} - {"accept"}


@pytest.mark.parametrize("credential", [basic("u", "pw"), api_key("k", "Authorization")])
def test_it_is_marked_even_where_the_definition_has_a_header_of_that_name(credential: CredentialPayload) -> None:
    request = OutboundRequest("GET", "https://api.test", headers=(("authorization", "placeholder"),))
    assert authenticate(request, credential).secret_headers == {"authorization"}


def test_nothing_of_a_request_but_its_method_shows_in_repr() -> None:
    for credential in (basic("u", "planted-1"), api_key("planted-1"), api_key("planted-1", header=False)):
        assert "planted-1" not in repr(authenticate(PLAIN, credential))


def test_every_spelling_of_a_secret_is_known() -> None:
    password = "p&ss wörd/+?"
    texts = secret_texts(basic("user", password))
    whole = f"user:{password}"
    for text in (password, whole):
        raw = text.encode()
        assert {
            text,
            quote(text, safe=""),
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode(),
        } <= set(texts)
    assert "user" not in texts


def test_a_key_behind_a_scheme_is_known_without_it() -> None:
    assert {"Bearer abc123", "abc123"} <= set(secret_texts(api_key("Bearer abc123")))


@given(TEXT)
@settings(max_examples=50)
def test_longer_spellings_come_first_and_none_is_empty(key: str) -> None:
    texts = secret_texts(api_key(key, header=False))
    assert list(texts) == sorted(texts, key=len, reverse=True)
    assert all(texts)
    assert key in texts


def test_every_kind_has_its_way_onto_a_request() -> None:
    assert {IntegrationAuthType.NONE, *auth._APPLY} == set(IntegrationAuthType)
    assert auth._APPLY.keys() == auth._SECRETS.keys()
