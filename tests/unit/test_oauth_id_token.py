"""The ID token: bound to our request, or refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from integration_service.activities.oauth.id_token import account_of, claims_of
from integration_service.activities.oauth.token_answer import Tokens
from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import parse

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
ISSUER = "https://provider.example"
CLAIMS: dict[str, Any] = {"iss": ISSUER, "sub": "ada", "aud": "app", "exp": EPOCH + 300, "nonce": "planted-n"}


def token(claims: Any, header: Any = None) -> str:
    parts = (json.dumps(part).encode() for part in (header or {"alg": "RS256"}, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "c2ln"])


def read(text: str, *, issuer: str | None = ISSUER, nonce: str | None = "planted-n") -> dict[str, Any]:
    return claims_of(text, issuer=issuer, client_id="app", nonce=nonce, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["app"]},
        {"aud": ["other", "app"], "azp": "app"},
        {"aud": ["other", "app"]},
        {"exp": EPOCH - 60},  # our clocks may differ
        {"name": "☃\ud800"},
    ],
)
def test_a_token_for_this_request_is_read(changes: dict[str, Any]) -> None:
    claims = read(token(CLAIMS | changes))
    assert claims["sub"] == "ada"
    json.dumps(claims, ensure_ascii=False).encode()


def test_what_was_not_asked_for_is_not_checked() -> None:
    assert read(token(CLAIMS | {"iss": "x", "nonce": "y"}), issuer=None, nonce=None)["sub"] == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"aud": "planted"},
        {"aud": ["planted"]},
        {"aud": None},
        {"aud": "app2"},
        {"aud": {"app": 1}},
        {"aud": ["app", "planted"], "azp": "planted"},
        {"exp": EPOCH - 3600},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": float("nan")},
        {"nonce": "planted-other"},
        {"nonce": None},
    ],
)
def test_a_token_for_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrationError) as error:
        read(token(CLAIMS | changes))
    assert (error.value.code, error.value.path) == (ErrorCode.AUTH_ERROR, "id_token")
    assert "planted" not in f"{error.value} {error.value.details}"


@given(st.text() | st.lists(st.text(), min_size=3, max_size=3).map(".".join) | st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*"))
@example("a.b.c.d.e")
@example(token([1]))
@example(token("x"))
@example("e30." + base64.urlsafe_b64encode(b"[" * 100_000).decode() + ".x")
def test_no_text_breaks_anything(text: str) -> None:
    with pytest.raises(IntegrationError) as error:
        read(text)
    assert error.value.code == ErrorCode.AUTH_ERROR


@pytest.mark.parametrize(
    ("mapped", "account", "claims", "expected"),
    [
        (None, None, {"sub": "ada"}, "ada"),
        (None, None, None, None),
        (None, None, {"sub": ["x"]}, None),
        ("user.id", "7", {"sub": "ada"}, "7"),
        ("oid", None, {"sub": "ada", "oid": "o-1"}, "o-1"),
        ("user.id", None, {"sub": "ada"}, None),  # one kind of name is not compared with another
    ],
)
def test_an_account_is_told_by_one_kind_of_name(
    mapped: str | None, account: str | None, claims: dict[str, Any] | None, expected: str | None
) -> None:
    config = parse(OAuth2Config, {"tokenResponse": {"account": mapped}} if mapped else {})
    tokens = Tokens(OAuth2Credential(access_token="a", expires_at=NOW + timedelta(hours=1)), account)
    assert account_of(config, tokens, claims) == expected
