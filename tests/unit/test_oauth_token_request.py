"""Token requests: grants, client authentication, and how providers bend both."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from integration_service.activities.oauth.device import device_request
from integration_service.activities.oauth.revocation import revocation_request
from integration_service.activities.oauth.token_request import (
    ClientCredentialsGrant,
    CodeGrant,
    DeviceGrant,
    Grant,
    JwtBearerGrant,
    PasswordGrant,
    RefreshGrant,
    token_request,
)
from integration_service.activities.outbound.messages import OutboundRequest
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse

URL = "https://provider.example/token"
NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
CLIENT = OAuthClientRecord(client_id="app", client_secret="planted-secret")
RSA = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
KEYED = OAuthClientRecord(client_id="app", private_key=RSA.as_pem(private=True).decode(), key_id="key-1")
REFRESH = RefreshGrant("planted-refresh", "planted-access")
GRANTS: list[Grant] = [
    CodeGrant("planted-code", "https://us.example/cb", "planted-verifier"),
    REFRESH,
    ClientCredentialsGrant(),
    DeviceGrant("planted-device"),
    PasswordGrant("planted-user", "planted-password"),
]


def sent(
    grant: Grant, client: OAuthClientRecord = CLIENT, *, url: str = URL, values: Any = None, **config: Any
) -> OutboundRequest:
    oauth = parse(OAuth2Config, config)
    return token_request(oauth, client, grant, url=url, values=values or {}, now=NOW)


def form(request: OutboundRequest) -> dict[str, str]:
    pairs = parse_qsl((request.body or b"").decode(), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def refused(*args: Any, **config: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as error:
        sent(*args, **config)
    assert "planted" not in f"{error.value} {error.value.details}"
    return error.value


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        (
            CodeGrant("c", "https://us.example/cb", "v"),
            {
                "grant_type": "authorization_code",
                "code": "c",
                "redirect_uri": "https://us.example/cb",
                "code_verifier": "v",
            },
        ),
        (
            CodeGrant("c", "https://us.example/cb", None),
            {"grant_type": "authorization_code", "code": "c", "redirect_uri": "https://us.example/cb"},
        ),
        (RefreshGrant("r", "a"), {"grant_type": "refresh_token", "refresh_token": "r"}),
        (ClientCredentialsGrant(), {"grant_type": "client_credentials", "scope": "read write"}),
        (DeviceGrant("d"), {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": "d"}),
        (
            PasswordGrant("u", "p"),
            {"grant_type": "password", "username": "u", "password": "p", "scope": "read write"},
        ),
    ],
)
def test_a_grant_says_what_its_standard_says(grant: Grant, said: dict[str, str]) -> None:
    request = sent(grant, scope="read write")
    assert form(request) == said
    assert (request.method, request.url) == ("POST", URL)
    assert request.header("accept") == "application/json"
    assert request.header("content-type") == "application/x-www-form-urlencoded"
    assert not request.follow_redirects


@pytest.mark.parametrize("grant", GRANTS)
def test_nothing_secret_shows(grant: Grant) -> None:
    assert "planted" not in repr(grant)
    assert "planted" not in repr(sent(grant, tokenEndpointAuthMethod="client_secret_post"))


@given(st.text(min_size=1), st.text(min_size=1))
def test_basic_authentication_comes_back_as_it_was(client_id: str, secret: str) -> None:
    request = sent(REFRESH, OAuthClientRecord(client_id=client_id, client_secret=secret))
    header = request.header("authorization") or ""
    name, colon, password = base64.b64decode(header.removeprefix("Basic ")).decode("ascii").partition(":")
    assert (unquote_plus(name), colon, unquote_plus(password)) == (client_id, ":", secret)
    assert request.secret_headers >= {"authorization"}
    assert form(request).keys() == {"grant_type", "refresh_token"}


def test_basic_authentication_encodes_as_in_a_form_first() -> None:
    request = sent(REFRESH, OAuthClientRecord(client_id="a:b c", client_secret="ü+/"))
    expected = base64.b64encode(b"a%3Ab+c:%C3%BC%2B%2F").decode()
    assert request.header("authorization") == f"Basic {expected}"


def test_a_client_may_authenticate_in_the_body_or_not_at_all() -> None:
    post = sent(REFRESH, tokenEndpointAuthMethod="client_secret_post")
    assert form(post) | {"client_id": "app", "client_secret": "planted-secret"} == form(post)
    none = sent(REFRESH, tokenEndpointAuthMethod="none")
    assert form(none)["client_id"] == "app"
    assert "client_secret" not in form(none)
    for request in (post, none):
        assert request.header("authorization") is None


@pytest.mark.parametrize("audience", [None, "https://provider.example"])
def test_a_private_key_proves_the_client(audience: str | None) -> None:
    mapping = {"audience": audience} if audience else {}
    request = sent(REFRESH, KEYED, tokenEndpointAuthMethod="private_key_jwt", tokenRequest=mapping)
    said = form(request)
    assert said["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    token = jwt.decode(said["client_assertion"], RSA, algorithms=["RS256"])
    assert token.header["kid"] == "key-1"
    claims = token.claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("app", "app", audience or URL)
    assert claims["exp"] == (NOW + timedelta(minutes=5)).timestamp()
    assert claims["jti"]


@pytest.mark.parametrize(
    ("client", "kind"),
    [
        (CLIENT, "basic"),
        (OAuthClientRecord(client_id="app", client_secret="s", private_key="k"), "basic"),
        (KEYED, "key"),
        (OAuthClientRecord(client_id="app"), "none"),
        (OAuthClientRecord(client_id="app", client_secret=""), "none"),
    ],
)
def test_a_definition_need_not_say_how(client: OAuthClientRecord, kind: str) -> None:
    request = sent(REFRESH, client)
    said = form(request)
    assert (request.header("authorization") is not None) == (kind == "basic")
    assert ("client_assertion" in said) == (kind == "key")
    assert ("client_id" in said) == (kind != "basic")


@pytest.mark.parametrize(
    ("method", "client", "path"),
    [
        ("client_secret_basic", KEYED, "oauth2Config.clientSecret"),
        ("client_secret_post", KEYED, "oauth2Config.clientSecret"),
        ("private_key_jwt", CLIENT, "oauth2Config.privateKey"),
    ],
)
def test_a_client_that_lacks_what_it_needs_is_told(method: str, client: OAuthClientRecord, path: str) -> None:
    error = refused(REFRESH, client, tokenEndpointAuthMethod=method)
    assert (error.code, error.path) == (ErrorCode.CONFIG_ERROR, path)


def test_a_bad_key_is_named_and_not_quoted() -> None:
    error = refused(REFRESH, OAuthClientRecord(client_id="app", private_key="planted"))
    assert (error.code, error.path) == (ErrorCode.VALIDATION_ERROR, "privateKey")


def test_an_assertion_is_a_grant_of_its_own() -> None:
    mapping = {"claims": {"sub": "{config.user}", "scope": "a b", "n": [1, "{config.user}"]}, "audience": "https://aud"}
    values = {"user": "ada@example.com"}
    request = sent(JwtBearerGrant(), KEYED, values=values, grantType="jwt_bearer", tokenRequest=mapping)
    said = form(request)
    assert said["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert "client_assertion" not in said
    claims = jwt.decode(said["assertion"], RSA, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("app", "ada@example.com", "https://aud")
    assert (claims["scope"], claims["n"]) == ("a b", [1, "ada@example.com"])
    assert claims["exp"] - claims["iat"] == 300


def test_a_claim_may_be_taken_away() -> None:
    request = sent(JwtBearerGrant(), KEYED, grantType="jwt_bearer", tokenRequest={"claims": {"sub": None}})
    assert "sub" not in jwt.decode(form(request)["assertion"], RSA, algorithms=["RS256"]).claims


def test_tiktok_names_the_client_otherwise() -> None:
    request = sent(
        REFRESH, tokenEndpointAuthMethod="client_secret_post", tokenRequest={"rename": {"client_id": "client_key"}}
    )
    assert form(request).keys() == {"grant_type", "refresh_token", "client_key", "client_secret"}


def test_instagram_refreshes_by_get_and_the_access_token() -> None:
    mapping = {"method": "GET", "refreshWith": "access_token", "refreshGrantType": "ig_refresh_token"}
    request = sent(REFRESH, url=f"{URL}?v=1", tokenEndpointAuthMethod="none", tokenRequest=mapping)
    assert (request.method, request.body) == ("GET", None)
    assert dict(parse_qsl(urlsplit(request.url).query)) == {
        "v": "1",
        "grant_type": "ig_refresh_token",
        "access_token": "planted-access",
        "client_id": "app",
    }
    assert "planted" not in repr(request)


def test_a_refresh_token_may_have_another_name() -> None:
    request = sent(REFRESH, tokenRequest={"refreshParameter": "token"})
    assert form(request) == {"grant_type": "refresh_token", "token": "planted-refresh"}


def test_without_a_refresh_token_somebody_must_authorise() -> None:
    assert refused(RefreshGrant(None, "a")).code == ErrorCode.REAUTH_REQUIRED


def test_a_body_may_be_json_or_stand_in_the_url() -> None:
    as_json = sent(REFRESH, tokenRequest={"encoding": "json"})
    assert as_json.header("content-type") == "application/json"
    assert json.loads(as_json.body or b"") == {"grant_type": "refresh_token", "refresh_token": "planted-refresh"}
    as_query = sent(REFRESH, tokenRequest={"encoding": "query"})
    assert (as_query.method, as_query.body) == ("POST", None)
    assert dict(parse_qsl(urlsplit(as_query.url).query))["refresh_token"] == "planted-refresh"


def test_zoom_wants_a_grant_type_and_an_account_of_its_own() -> None:
    mapping = {"parameters": {"grant_type": "account_credentials", "account_id": "{config.account}"}}
    request = sent(
        ClientCredentialsGrant(), values={"account": "a 1"}, grantType="client_credentials", tokenRequest=mapping
    )
    assert form(request) == {"grant_type": "account_credentials", "account_id": "a 1"}


def test_additional_parameters_go_to_the_request_that_begins_a_grant() -> None:
    more = {"audience": "https://{config.x}", "grant_type": "no"}
    begun = form(sent(ClientCredentialsGrant(), values={"x": "api"}, additionalParameters=more))
    assert (begun["audience"], begun["grant_type"]) == ("https://api", "client_credentials")
    assert "audience" not in form(sent(REFRESH, values={"x": "api"}, additionalParameters=more))


def test_a_definitions_headers_go_along_as_secrets() -> None:
    mapping = {"headers": {"X-Key": "k-{config.key}", "authorization": "Custom {config.key}"}}
    request = sent(REFRESH, values={"key": "planted"}, tokenRequest=mapping)
    assert request.header("x-key") == "k-planted"
    assert request.header("Authorization") == "Custom planted"
    assert request.secret_headers == {"x-key", "authorization"}


@pytest.mark.parametrize("value", ["a\r\nX-Evil: planted", "snow☃"])
def test_a_config_value_adds_no_header(value: str) -> None:
    error = refused(REFRESH, values={"key": value}, tokenRequest={"headers": {"X-Key": "{config.key}"}})
    assert (error.code, error.path) == (ErrorCode.CONFIG_ERROR, "oauth2Config.tokenRequest.headers.X-Key")


def test_a_missing_config_value_is_named() -> None:
    error = refused(REFRESH, tokenRequest={"parameters": {"account": "{config.account}"}})
    assert (error.code, error.path) == (ErrorCode.CONFIG_ERROR, "config.account")


@pytest.mark.parametrize("encoding", ["form", "json", "query"])
def test_a_code_from_a_browser_may_be_any_text(encoding: str) -> None:
    sent(CodeGrant("\ud800☃", "https://us.example/cb"), tokenRequest={"encoding": encoding})


def test_a_device_flow_begins_with_the_clients_id_and_the_scope() -> None:
    config = parse(OAuth2Config, {"scope": "read", "grantType": "device_code", "tokenRequest": {"method": "GET"}})
    request = device_request(config, CLIENT, url=URL, values={}, now=NOW)
    assert request.method == "POST"
    assert form(request) == {"client_id": "app", "scope": "read"}
    assert (request.header("authorization") or "").startswith("Basic ")
    assert not request.follow_redirects


def test_a_revocation_names_the_token_and_is_authenticated_as_the_definition_says() -> None:
    mapping = {"algorithm": "ES256", "audience": "https://aud", "parameters": {"x": "y"}, "encoding": "json"}
    config = parse(OAuth2Config, {"tokenRequest": mapping})
    client = OAuthClientRecord(client_id="app", private_key=EC.as_pem(private=True).decode())
    request = revocation_request(config, client, url=URL, token="t", hint="refresh_token", values={}, now=NOW)
    said = form(request)
    assert (said["token"], said["token_type_hint"]) == ("t", "refresh_token")
    assert "x" not in said
    assert jwt.decode(said["client_assertion"], EC, algorithms=["ES256"]).claims["aud"] == "https://aud"


def test_a_refresh_may_have_a_method_of_its_own() -> None:
    """As Instagram has it: the code by POST, the refresh by GET."""
    mapping = {"refreshMethod": "GET", "refreshWith": "access_token", "refreshGrantType": "ig_refresh_token"}
    code = sent(GRANTS[0], tokenRequest=mapping, tokenEndpointAuthMethod="none")
    assert (code.method, form(code)["grant_type"]) == ("POST", "authorization_code")
    refresh = sent(REFRESH, tokenRequest=mapping, tokenEndpointAuthMethod="none")
    assert (refresh.method, refresh.body) == ("GET", None)
    assert dict(parse_qsl(urlsplit(refresh.url).query))["access_token"] == "planted-access"
