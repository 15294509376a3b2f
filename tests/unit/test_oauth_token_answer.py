"""Token answers: what providers say, and what no provider should."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from integration_service.activities.oauth.token_answer import TokenRefused, Tokens, read_tokens
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.wire import parse

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
BEFORE = OAuth2Credential(
    access_token="old-access",
    refresh_token="old-refresh",
    scope="read",
    connection={"host": "https://eu.example", "realm": "7"},
    account="ada",
)
Mapping = dict[str, Any]


def answer(body: Any, status: int = 200, **headers: str) -> InboundResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return InboundResponse(status, {"content-type": "application/json", **named}, raw)


def config(mapping: Mapping | None = None) -> OAuth2Config:
    return parse(OAuth2Config, {"tokenResponse": mapping or {}})


def read(body: Any, mapping: Mapping | None = None, status: int = 200, **more: Any) -> Tokens:
    return read_tokens(config(mapping), answer(body, status), now=NOW, **more)


def refused(body: Any, status: int = 200, mapping: Mapping | None = None, **headers: str) -> TokenRefused:
    with pytest.raises(TokenRefused) as error:
        read_tokens(config(mapping), answer(body, status, **headers), now=NOW)
    assert "planted" not in f"{error.value} {error.value.details} {error.value!r}"
    return error.value


def expiry(mapping: Mapping | None = None, **body: Any) -> datetime | None:
    return read({"access_token": "a", **body}, mapping).credential.expires_at


def test_the_standards_own_answer() -> None:
    body = {
        "access_token": "2YotnFZFEjr1zCsicMWpAA",
        "token_type": "example",
        "expires_in": 3600,
        "refresh_token": "tGzv3JOkF0XG5Qx2TlKWIA",
        "example_parameter": "example_value",
        "scope": "read write",
        "id_token": "a.b.c",
    }
    tokens = read(body)
    held = tokens.credential
    assert (held.access_token, held.refresh_token) == (body["access_token"], body["refresh_token"])
    assert (held.token_type, held.scope) == ("example", "read write")
    assert held.expires_at == NOW + timedelta(hours=1)
    assert held.raw_response == body
    assert tokens.id_token == "a.b.c"
    assert "a.b.c" not in repr(tokens)
    assert "2Yot" not in repr(tokens)


def test_what_a_refresh_omits_is_kept() -> None:
    held = read({"access_token": "new"}, {"connection": {"host": "api_url"}}, previous=BEFORE).credential
    assert (held.access_token, held.refresh_token, held.scope) == ("new", "old-refresh", "read")
    assert (held.connection, held.account) == (BEFORE.connection, "ada")
    assert held.expires_at is None


def test_what_a_refresh_says_replaces_it() -> None:
    body = {"access_token": "new", "refresh_token": "newer", "scope": "read write", "api_url": "https://us.example"}
    held = read(body, {"connection": {"host": "api_url"}}, previous=BEFORE).credential
    assert (held.refresh_token, held.scope) == ("newer", "read write")
    assert held.connection == {"host": "https://us.example", "realm": "7"}


@pytest.mark.parametrize("nothing", [None, "", 7, ["x"], {}])
def test_a_refresh_token_that_is_none_does_not_replace_one(nothing: Any) -> None:
    assert (
        read({"access_token": "a", "refresh_token": nothing}, previous=BEFORE).credential.refresh_token == "old-refresh"
    )


# Providers, as data


SLACK = {"accessToken": "authed_user.access_token", "scope": "authed_user.scope", "account": "authed_user.id"}


def test_slack_nests_the_persons_token() -> None:
    body = {
        "ok": True,
        "access_token": "xoxb-bot",
        "token_type": "bot",
        "scope": "commands",
        "authed_user": {"id": "U1", "scope": "chat:write,users:read", "access_token": "xoxp-user"},
        "team": {"id": "T9"},
    }
    tokens = read(body, {**SLACK, "connection": {"team": "team.id"}})
    assert (tokens.credential.access_token, tokens.account) == ("xoxp-user", "U1")
    assert tokens.credential.scope == "chat:write,users:read"
    assert tokens.credential.connection == {"team": "T9"}


def test_slack_nests_nothing_in_the_answer_to_a_refresh() -> None:
    body = {"ok": True, "access_token": "xoxe.xoxp-2", "refresh_token": "xoxe-2", "expires_in": 43200}
    held = read(body, SLACK, previous=BEFORE).credential
    assert (held.access_token, held.refresh_token) == ("xoxe.xoxp-2", "xoxe-2")
    assert held.expires_at == NOW + timedelta(hours=12)
    assert refused(body, mapping=SLACK).lost  # in the answer to a code it is the bot's


def test_slack_refuses_with_200() -> None:
    error = refused(
        {"ok": False, "error": "invalid_refresh_token"}, mapping={"invalidGrant": ["invalid_refresh_token"]}
    )
    assert (error.code, error.invalid_grant, error.lost) == (ErrorCode.REAUTH_REQUIRED, True, False)
    assert refused({"ok": False, "error": "bad_client_secret"}).code == ErrorCode.AUTH_ERROR


def test_tiktok_wraps_everything_in_data_and_says_zero_for_no_error() -> None:
    mapping = {
        "accessToken": "data.access_token",
        "refreshToken": "data.refresh_token",
        "expiresIn": "data.expires_in",
        "account": "data.open_id",
        "error": "data.error_code",
        "invalidGrant": ["10010"],
    }
    body = {"data": {"access_token": "a", "refresh_token": "r", "expires_in": 86400, "open_id": "o", "error_code": 0}}
    tokens = read(body, mapping)
    assert (tokens.credential.refresh_token, tokens.account) == ("r", "o")
    assert tokens.credential.expires_at == NOW + timedelta(days=1)
    error = refused({"data": {"error_code": 10010, "description": "planted"}}, mapping=mapping)
    assert (error.invalid_grant, error.error) == (True, "10010")


def test_salesforce_tells_its_host_and_no_expiry() -> None:
    body = {
        "access_token": "00D!AQ",
        "instance_url": "https://eu7.salesforce.example",
        "id": "https://login.salesforce.example/id/00D/005",
        "issued_at": str(EPOCH * 1000),
        "token_type": "Bearer",
    }
    mapping = {"connection": {"instance_url": "instance_url"}, "account": "id", "defaultExpiresInMs": 7_200_000}
    tokens = read(body, mapping)
    assert tokens.credential.connection == {"instance_url": "https://eu7.salesforce.example"}
    assert tokens.credential.expires_at == NOW + timedelta(hours=2)
    assert tokens.account == tokens.credential.account == body["id"]


def test_instagram_gives_no_refresh_token_and_numbers_its_users() -> None:
    tokens = read({"access_token": "IG", "user_id": 17841, "expires_in": 5183944}, {"account": "user_id"})
    assert tokens.account == "17841"
    assert tokens.credential.refresh_token is None


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded; charset=utf-8", "text/plain", ""])
def test_github_answers_with_a_form(content_type: str) -> None:
    body = urlencode({"access_token": "gho_1", "scope": "repo,user", "token_type": "bearer", "expires_in": "28800"})
    tokens = read_tokens(config(), answer(body.encode(), content_type=content_type), now=NOW)
    assert (tokens.credential.access_token, tokens.credential.scope) == ("gho_1", "repo,user")
    assert tokens.credential.expires_at == NOW + timedelta(hours=8)
    error = refused(
        b"error=bad_refresh_token&error_description=planted", mapping={"invalidGrant": ["bad_refresh_token"]}
    )
    assert error.invalid_grant


def test_realm_and_host_may_stand_in_the_callback() -> None:
    mapping = {"connection": {"realm": "callback.realmId", "none": "callback.x"}, "account": "callback.realmId"}
    tokens = read({"access_token": "a", "callback": {"x": "planted"}}, mapping, callback={"realmId": "9130"})
    assert tokens.credential.connection == {"realm": "9130"}
    assert tokens.account == "9130"


@pytest.mark.parametrize(
    ("scope", "kept"),
    [(["a", "b", 7], "a b"), ("a\x00b", "a b"), ("", None), (7, None), ({}, None), ("x" * 20_000, None)],
)
def test_a_scope_is_a_text(scope: Any, kept: str | None) -> None:
    assert read({"access_token": "a", "scope": scope}).credential.scope == kept


@pytest.mark.parametrize("token_type", [None, "", "bad type", "a\r\nb", 7, "x" * 100])
def test_a_token_type_that_is_none_is_bearer(token_type: Any) -> None:
    assert read({"access_token": "a", "token_type": token_type}).credential.token_type == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token":"t","name":"\\ud800"}',
        b'{"access_token":"t","score":1e999,"other":NaN}',
        b'\xef\xbb\xbf{"access_token":"t"}',
        b'{"access_token":"t","deep":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_a_token_is_not_lost_to_what_stands_beside_it(body: bytes) -> None:
    credential = read(body).credential
    assert credential.access_token == "t"
    json.dumps(credential.to_wire(), allow_nan=False).encode()


# Expiry


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ({}, None),
        ({"expires_in": 3600}, 3600),
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": " 3600.5 "}, 3600.5),
        ({"expires_in": 0}, 0),
        ({"expires_in": -5}, 0),
        ({"expires_in": "soon"}, None),
        ({"expires_in": True}, None),
        ({"expires_in": None}, None),
        ({"expires_in": [3600]}, None),
        ({"expires_in": EPOCH + 60}, 60),
        ({"expires_in": (EPOCH + 60) * 1000}, 60),
        ({"expires_in": str(EPOCH - 60)}, 0),
        ({"expires_in": 10**400}, None),
        ({"expires_in": 1e300}, None),
        ({"expires_at": EPOCH + 60}, 60),
        ({"expires_at": str(EPOCH + 60)}, 60),
        ({"expires_at": (EPOCH + 60) * 1000}, 60),
        ({"expires_at": "2026-06-01T12:01:00Z"}, 60),
        ({"expires_at": "2026-06-01t14:01:00.000+02:00"}, 60),
        ({"expires_at": "2026-06-01 12:01:00"}, 60),
        ({"expires_at": EPOCH - 60}, 0),
        ({"expires_at": 0}, 0),
        ({"expires_at": "9999-12-31T23:59:59Z"}, None),
        ({"expires_at": "whenever"}, None),
        ({"expires_in": 60, "expires_at": EPOCH + 9999}, 60),
        ({"expires_in": "never", "expires_at": EPOCH + 99}, 99),
    ],
)
def test_every_spelling_of_an_expiry_is_understood(body: dict[str, Any], after: float | None) -> None:
    assert expiry(**body) == (None if after is None else NOW + timedelta(seconds=after))


@pytest.mark.parametrize(
    ("mapping", "body", "after"),
    [
        ({"expiresInUnit": "ms"}, {"expires_in": 3_600_000}, 3600),
        ({"expiresInUnit": "ms"}, {"expires_in": 5_184_000_000}, 5_184_000),
        ({"expiresInUnit": "ms"}, {"expires_in": (EPOCH + 60) * 1000}, 60),
        ({"defaultExpiresInMs": 60_000}, {}, 60),
        ({"defaultExpiresInMs": 60_000}, {"expires_in": "?"}, 60),
        ({"defaultExpiresInMs": 60_000}, {"expires_in": 5}, 5),
        ({"expiresIn": "token.ttl"}, {"token": {"ttl": 9}}, 9),
        ({"expiresAt": "end"}, {"end": EPOCH + 60, "expires_in": 9}, 60),
    ],
)
def test_a_definition_says_how_an_expiry_is_meant(mapping: Mapping, body: dict[str, Any], after: float) -> None:
    assert expiry(mapping, **body) == NOW + timedelta(seconds=after)


@given(st.one_of(st.integers(), st.floats(), st.text(), st.from_regex(r"[-0-9TZ:.+ ]{1,30}"), st.none(), st.booleans()))
@settings(max_examples=300)
def test_no_expiry_breaks_an_answer_or_lies_in_the_past(value: Any) -> None:
    for key in ("expires_in", "expires_at"):
        moment = expiry(**{key: value})
        assert moment is None or moment >= NOW


# Refusals


@pytest.mark.parametrize(
    ("body", "status", "code", "error", "invalid_grant", "lost"),
    [
        ({"error": "invalid_grant"}, 400, "REAUTH_REQUIRED", "invalid_grant", True, False),
        ({"error": "invalid_grant"}, 401, "REAUTH_REQUIRED", "invalid_grant", True, False),
        ({"error": "invalid_grant"}, 200, "REAUTH_REQUIRED", "invalid_grant", True, False),
        ({"error": "invalid_grant"}, 500, "UNAVAILABLE", "invalid_grant", False, True),
        ({"error": "invalid_grant"}, 302, "UNAVAILABLE", "invalid_grant", False, True),
        ({"error": "invalid_grant"}, 429, "RATE_LIMITED", "invalid_grant", False, False),
        ({"error": "invalid_client"}, 401, "AUTH_ERROR", "invalid_client", False, False),
        ({"error": "unauthorized_client"}, 400, "AUTH_ERROR", "unauthorized_client", False, False),
        ({"error": "authorization_pending"}, 400, "AUTH_ERROR", "authorization_pending", False, False),
        ({"error": "authorization_pending"}, 200, "AUTH_ERROR", "authorization_pending", False, False),
        ({"error": "slow_down"}, 400, "AUTH_ERROR", "slow_down", False, False),
        ({"error": "temporarily_unavailable"}, 400, "UNAVAILABLE", "temporarily_unavailable", False, False),
        ({"error": "planted text with spaces"}, 400, "AUTH_ERROR", None, False, False),
        ({"error": {"code": "x.y", "message": "planted"}}, 400, "AUTH_ERROR", "x.y", False, False),
        ({"error": {"message": "planted"}}, 200, "AUTH_ERROR", None, False, False),
        ({"error": True}, 200, "AUTH_ERROR", None, False, False),
        ({"message": "planted"}, 403, "AUTH_ERROR", None, False, False),
        ({"message": "planted"}, 408, "UNAVAILABLE", None, False, True),
        ({"message": "planted"}, 200, "UNAVAILABLE", None, False, True),
        (b"<html>planted</html>", 200, "UNAVAILABLE", None, False, True),
        (b"<html>planted</html>", 403, "UNAVAILABLE", None, False, True),
        (b"", 200, "UNAVAILABLE", None, False, True),
        (b"", 302, "UNAVAILABLE", None, False, True),
        (b'["planted"]', 200, "UNAVAILABLE", None, False, True),
        (b'{"access_token": "planted', 200, "UNAVAILABLE", None, False, True),
        (b"\xff\xfeplanted", 200, "UNAVAILABLE", None, False, True),
        ({"access_token": "planted"}, 502, "UNAVAILABLE", None, False, True),
        ({"access_token": "planted"}, 429, "RATE_LIMITED", None, False, False),
        ({"access_token": ""}, 200, "UNAVAILABLE", None, False, True),
        ({"access_token": 7}, 200, "UNAVAILABLE", None, False, True),
        ({"access_token": "planted\r\nX: y"}, 200, "UNAVAILABLE", None, False, True),
    ],
)
def test_a_refusal_says_what_it_decides(
    body: Any, status: int, code: str, error: str | None, invalid_grant: bool, lost: bool
) -> None:
    found = refused(body, status)
    assert (found.code, found.error, found.invalid_grant, found.lost) == (code, error, invalid_grant, lost)
    assert found.details == ({"error": error} if error else {})


@pytest.mark.parametrize(("status", "waits"), [(429, True), (503, True), (500, False), (400, False)])
def test_a_wait_is_passed_on(status: int, waits: bool) -> None:
    error = refused({"error": "x"}, status, retry_after="7")
    assert error.retry_after == (timedelta(seconds=7) if waits else None)


@pytest.mark.parametrize("error", ["", None, 0, False])
def test_an_error_that_says_nothing_is_none(error: Any) -> None:
    assert read({"access_token": "a", "error": error}).credential.access_token == "a"


def test_json_under_another_label_is_still_json() -> None:
    tokens = read_tokens(config(), answer({"access_token": "a"}, content_type="text/html"), now=NOW)
    assert tokens.credential.access_token == "a"


_KEYS = st.sampled_from(["access_token", "refresh_token", "expires_in", "error", "scope", "token_type", "authed_user"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text().map(lambda text: f"planted{text}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(), inner, max_size=5),
    max_leaves=12,
)


@given(
    st.binary(max_size=300) | _JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 408, 429, 500, 503]),
    st.sampled_from(["application/json", "text/html", "application/x-www-form-urlencoded", ""]),
    st.booleans(),
)
@example(b"[" * 100_000, 200, "application/json", False)
@example(b'{"a":' * 50_000, 200, "application/json", False)
@example(b"9" * 5000, 200, "application/json", False)
@example(b'{"access_token":' + b"9" * 5000 + b"}", 200, "application/json", True)
@example(b'{"error":"planted\\n"}', 400, "application/json", False)
@example(b"access_token=&error", 400, "", False)
@settings(max_examples=400)
def test_no_body_breaks_anything_or_shows(body: bytes, status: int, content_type: str, refreshing: bool) -> None:
    response = InboundResponse(status, {"content-type": content_type, "retry-after": "x"}, body)
    shown = ""
    try:
        tokens = read_tokens(config(SLACK), response, now=NOW, previous=BEFORE if refreshing else None)
        assert 200 <= status < 300
        json.dumps(tokens.credential.to_wire(), allow_nan=False).encode()
    except TokenRefused as refusal:
        shown = f"{refusal} {refusal.message} {json.dumps(refusal.details)}".replace(refusal.error or "\0", "")
    assert "planted" not in shown


@pytest.mark.parametrize(("asked", "waits"), [("3599", 3599), ("3601", 3600), ("86400", 3600)])
def test_no_wait_is_longer_than_an_hour(asked: str, waits: int) -> None:
    assert refused({"error": "x"}, 429, retry_after=asked).retry_after == timedelta(seconds=waits)
