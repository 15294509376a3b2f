"""OAuth access tokens on requests, what of a token answer is secret, and what a definition must say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_service.activities.auth import authenticate, check_auth, secret_texts
from integration_service.activities.execution.redaction import redact
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse
from tests.world import definition_file

PLAIN = OutboundRequest("GET", "https://api.test/x", headers=(("authorization", "placeholder"), ("Accept", "*/*")))
TOKEN = "planted-access-token"
URLS = {"authorizationUrl": "https://idp.test/authorize", "tokenUrl": "https://idp.test/token"}


def credential(token: str = TOKEN, *, kind: str = "Bearer", **more: Any) -> CredentialPayload:
    oauth2 = {"accessToken": token, "tokenType": kind, **more}
    return parse(CredentialPayload, {"type": "oauth2", "oauth2": oauth2})


def definition(**oauth2: Any) -> DefinitionFile:
    return parse(DefinitionFile, definition_file("t", authType="oauth2", oauth2Config=oauth2))


def refusal(**oauth2: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as refused:
        check_auth(definition(**oauth2))
    assert refused.value.code == ErrorCode.VALIDATION_ERROR
    return refused.value


@pytest.mark.parametrize(
    "kind", ["Bearer", "bearer", "bot", "user", "mac", "DPoP", "", "no token text", "Bearer\r\nX-Evil: 1", "Bärer"]
)
@pytest.mark.parametrize("scheme", [None, "Zoho-oauthtoken"])
def test_the_scheme_is_bearer_or_the_definitions_whatever_the_answer_called_the_token(
    kind: str, scheme: str | None
) -> None:
    signed = authenticate(PLAIN, credential(kind=kind), definition=definition(**URLS, authorizationScheme=scheme))
    expected = [f"{scheme or 'Bearer'} {TOKEN}"]
    assert [value for name, value in signed.headers if name.lower() == "authorization"] == expected
    assert signed.secret_headers == {"authorization"}
    assert signed.header("accept") == "*/*"


@pytest.mark.parametrize("token", ["planted\r\nX-Evil: 1", "planted\x00", "planted-日本"])
def test_a_token_that_no_header_holds_is_not_sent(token: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        authenticate(PLAIN, credential(token))
    assert refused.value.code == ErrorCode.AUTH_ERROR
    assert "planted" not in f"{refused.value} {refused.value.details}"


def test_before_there_is_a_token_nothing_is_sent() -> None:
    waiting = parse(CredentialPayload, {"type": "oauth2", "basicAuth": {"username": "u", "password": "planted-pw"}})
    with pytest.raises(IntegrationError) as refused:
        authenticate(PLAIN, waiting)
    assert refused.value.code == ErrorCode.AUTH_ERROR
    assert "planted-pw" in secret_texts(waiting)


def test_what_of_a_token_answer_is_secret() -> None:
    raw = {
        "access_token": TOKEN,
        "id_token": "short.id.token",
        "token_type": "Bearer",
        "instance_url": "https://customer.example.com",
        "scope": "read write and much more",
        "authed_user": {"ACCESS_TOKEN": "planted-nested-token"},
        "tokens": {"main": ["planted-inside-tokens"], "short": "fifteen-letters"},
        "client_secret_hint": "planted-client-secret",
        "client_assertion": "planted-assertion-1",
        "device_code": "planted-device-code",
        "expires_in": 3600,
    }
    texts = secret_texts(credential(refreshToken="planted-refresh", rawResponse=raw))
    assert {
        TOKEN,
        "planted-refresh",
        "short.id.token",
        "planted-nested-token",
        "planted-inside-tokens",
        "planted-client-secret",
        "planted-assertion-1",
        "planted-device-code",
    } <= set(texts)
    assert not {"Bearer", "https://customer.example.com", raw["scope"], "fifteen-letters"} & set(texts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)
SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789+/=._- ", min_size=16, max_size=40).filter(str.strip)


@given(
    st.dictionaries(st.text(max_size=12), JSON, max_size=3),
    st.sampled_from(["access_token", "Refresh-Token", "clientSecret", "assertion", "authCode", "x_tokens"]),
    SECRETS,
    st.sampled_from(["{}", "said {} to us", "a={}&b"]),
)
@settings(max_examples=150)
def test_no_secret_of_the_answer_survives_redaction(raw: dict[str, Any], key: str, secret: str, around: str) -> None:
    payload = credential(rawResponse={**raw, "inner": [{key: secret}]})
    clean, _ = redact({"echo": [around.format(secret)], around.format(secret): TOKEN}, secret_texts(payload))
    assert secret not in str(clean)
    assert TOKEN not in str(clean)


@pytest.mark.parametrize(
    "oauth2",
    [
        URLS,
        {**URLS, "pkce": False},
        {"issuer": "https://idp.test"},
        {"issuer": "https://idp.test", "grantType": "device_code"},
        {"tokenUrl": "https://idp.test/token", "grantType": "client_credentials"},
        {"tokenUrl": "https://idp.test/token?tenant=1", "grantType": "jwt_bearer"},
        {"tokenUrl": "https://idp.test/token", "grantType": "password", "pkce": True},
        {"tokenUrl": "{config.url}/token", "grantType": "client_credentials"},
        {"tokenUrl": "{config.url}", "grantType": "client_credentials"},
        {"tokenUrl": "https://{config.host}:{config.port}/{config.tenant}/token", "grantType": "client_credentials"},
        {**URLS, "refreshUrl": "https://{connection.host}/refresh", "revocationUrl": "http://127.0.0.1:1/revoke"},
        {
            "tokenUrl": "https://idp.test/token",
            "deviceAuthorizationUrl": "https://idp.test/device",
            "grantType": "device_code",
        },
    ],
)
def test_what_a_grant_needs_is_enough(oauth2: dict[str, Any]) -> None:
    check_auth(definition(**oauth2))


@pytest.mark.parametrize(
    ("oauth2", "path"),
    [
        ({"tokenUrl": URLS["tokenUrl"]}, "authorizationUrl"),
        ({"authorizationUrl": URLS["authorizationUrl"]}, "tokenUrl"),
        ({"grantType": "client_credentials"}, "tokenUrl"),
        ({"tokenUrl": URLS["tokenUrl"], "grantType": "device_code"}, "deviceAuthorizationUrl"),
        ({"issuer": "https://idp.test", "grantType": "password", "pkce": False}, "pkce"),
        ({**URLS, "grantType": "jwt_bearer", "pkce": False}, "pkce"),
    ],
)
def test_what_a_grant_lacks_is_named(oauth2: dict[str, Any], path: str) -> None:
    assert refusal(**oauth2).path == f"oauth2Config.{path}"


@pytest.mark.parametrize("text", ["{credential.x}", "{connection.x}", "{x}", "{config.x"])
@pytest.mark.parametrize(("part", "path"), [("parameters", "a"), ("headers", "X-Key"), ("claims", "deep.a[1]")])
def test_a_token_request_is_made_of_config(part: str, path: str, text: str) -> None:
    def mapping(filled: str) -> dict[str, Any]:
        return {"deep": {"a": [1, filled]}} if part == "claims" else {path: filled}

    check_auth(definition(**URLS, tokenRequest={part: mapping("a {config.x}")}))
    assert refusal(**URLS, tokenRequest={part: mapping(text)}).path == f"oauth2Config.tokenRequest.{part}.{path}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.test/token",
        "/token",
        "ftp://idp.test/token",
        "file:///etc/passwd",
        "https://",
        "https://user@idp.test/",
        "https://idp.test/#fragment",
        "https://idp.test/a b",
        "https://idp.test/\n",
        "https://idp.test:0/",
        "https://idp.test:99999/",
        "https://[::1/",
        "https://idp.test/{tenant}",
        "https://idp.test/{credential.x}",
        "https://idp.test/{config.x",
        "{config.url} /token",
        "x{config.url}/token",
    ],
)
@pytest.mark.parametrize(
    "key", ["authorizationUrl", "tokenUrl", "refreshUrl", "revocationUrl", "deviceAuthorizationUrl", "issuer"]
)
def test_a_url_that_cannot_be_called_is_refused_at_its_place(key: str, url: str) -> None:
    assert refusal(**{**URLS, key: url}).path == f"oauth2Config.{key}"


@given(st.text(max_size=30))
@settings(max_examples=150)
def test_any_url_is_taken_or_refused_at_its_place(url: str) -> None:
    path: str | None = "oauth2Config.refreshUrl"
    try:
        check_auth(definition(**{**URLS, "refreshUrl": url}))
    except IntegrationError as refused:
        path = refused.path
    assert path == "oauth2Config.refreshUrl"


@pytest.mark.parametrize("scheme", ["", "two words", "Bearer\r\nX-Evil: 1", "a" * 65])
def test_a_scheme_is_one_word(scheme: str) -> None:
    with pytest.raises(IntegrationError) as refused:
        definition(**URLS, authorizationScheme=scheme)
    assert refused.value.path == "oauth2Config.authorizationScheme"
