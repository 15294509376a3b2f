"""The authorization request."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.activities.oauth.authorization import (
    authorization_url,
    missing_scope,
    new_secret,
    requested_scope,
)
from integration_service.contracts.definitions import OAuth2Config

# RFC 7636 appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def url(endpoint: str = "https://provider.example/authorize", **changes: Any) -> str:
    given = {
        "client_id": "app",
        "redirect_uri": "https://us.example/oauth/callback",
        "state": "state-1",
        "scope": "read write",
        "verifier": VERIFIER,
        "nonce": None,
        "extra": {},
        "rename": {},
        **changes,
    }
    return authorization_url(endpoint=endpoint, **given)


def query(text: str) -> dict[str, str]:
    found = parse_qs(urlsplit(text).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def test_the_request_is_the_standards() -> None:
    built = url()
    assert built.startswith("https://provider.example/authorize?")
    assert query(built) == {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": "https://us.example/oauth/callback",
        "scope": "read write",
        "state": "state-1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    assert VERIFIER not in built


def test_what_is_not_wanted_is_not_said() -> None:
    said = query(url(scope=None, verifier=None))
    assert said.keys() == {"response_type", "client_id", "redirect_uri", "state"}
    assert query(url(nonce="n-1"))["nonce"] == "n-1"


def test_the_endpoints_own_query_stands_as_it_is() -> None:
    built = url("https://provider.example/authorize?tenant=a%2fb&flag#top")
    assert built.startswith("https://provider.example/authorize?tenant=a%2fb&flag&response_type=code&")
    assert "#" not in built


def test_no_parameter_stands_twice() -> None:
    built = url(
        "https://provider.example/authorize?state=fixed&prompt=none&keep=1",
        extra={"state": "other", "redirect_uri": "https://evil.example", "prompt": "consent"},
    )
    said = query(built)
    assert (said["state"], said["prompt"], said["keep"]) == ("state-1", "consent", "1")
    assert said["redirect_uri"] == "https://us.example/oauth/callback"


def test_a_provider_may_call_things_otherwise() -> None:
    said = query(url(rename={"client_id": "client_key"}, extra={"user_scope": "chat:write"}))
    assert said["client_key"] == "app"
    assert "client_id" not in said
    assert said["user_scope"] == "chat:write"


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4), st.text(max_size=12))
def test_any_text_arrives_as_it_was(extra: dict[str, str], scope: str) -> None:
    said = dict(parse_qsl(urlsplit(url(extra=extra, scope=scope)).query, keep_blank_values=True))
    assert (said["scope"], said["state"]) == (scope, "state-1")
    own = query(url()).keys()
    assert {name: said[name] for name in extra if name not in own} == {
        name: value for name, value in extra.items() if name not in own
    }


def test_a_secret_has_256_bits_and_is_a_verifier() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in made)


@pytest.mark.parametrize(
    ("scope", "separator", "asked"),
    [
        (None, None, None),
        ("  ", None, None),
        ("read  write", None, "read write"),
        ("read write", ",", "read,write"),
        ("read,write", ",", "read,write"),
        ("read,activity:all", None, "read,activity:all"),  # Strava's, as its page has it
    ],
)
def test_a_scope_is_joined_as_the_provider_wants_it(
    scope: str | None, separator: str | None, asked: str | None
) -> None:
    assert requested_scope(OAuth2Config(scope=scope, scope_separator=separator)) == asked


@pytest.mark.parametrize(
    ("requested", "granted", "separator", "missing"),
    [
        ("read write", None, None, []),
        (None, "read", None, []),
        ("read write", "write read more", None, []),
        ("read write", "read", None, ["write"]),
        ("read write", "", None, ["read", "write"]),
        ("repo user", "repo,user", None, []),
        ("repo,user", "user repo", ",", []),
        ("a+b", "b", "+", ["a"]),
        ("read,all", "read", None, ["all"]),
        ("Read", "read", None, ["Read"]),
    ],
)
def test_a_scope_that_was_not_granted_is_named(
    requested: str | None, granted: str | None, separator: str | None, missing: list[str]
) -> None:
    assert missing_scope(requested, granted, separator) == missing


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("openid https://www.googleapis.com/auth/userinfo.email", ["profile"]),
        ("openid email profile", []),
        ("https://www.googleapis.com/auth/userinfo.email https://www.googleapis.com/auth/userinfo.profile openid", []),
        ("", ["openid", "email", "profile"]),
    ],
)
def test_a_scope_may_be_granted_under_another_name(granted: str, missing: list[str]) -> None:
    """As Google does it."""
    aliases = {name: f"https://www.googleapis.com/auth/userinfo.{name}" for name in ("email", "profile")}
    assert missing_scope("openid email profile", granted, None, aliases=aliases) == missing
