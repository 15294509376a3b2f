"""Where a provider says its endpoints are, and that it is the provider."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration_service.activities.oauth.discovery import metadata_urls, read_metadata
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.errors import ErrorCode, IntegrationError

ISSUER = "https://provider.example/tenant"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "device_authorization_endpoint": f"{ISSUER}/device",
    "authorization_response_iss_parameter_supported": True,
}


def answer(body: Any, status: int = 200) -> InboundResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return InboundResponse(status, {"content-type": "application/json"}, raw)


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://a.example",
            [
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server",
            ],
        ),
        (
            "https://a.example:8443/x/y/",
            [
                "https://a.example:8443/x/y/.well-known/openid-configuration",
                "https://a.example:8443/.well-known/oauth-authorization-server/x/y",
            ],
        ),
    ],
)
def test_metadata_lie_in_two_places(issuer: str, urls: list[str]) -> None:
    assert metadata_urls(issuer) == urls


@pytest.mark.parametrize(
    "issuer", ["", "a.example", "ftp://a.example", "https://a.example?x", "https://[", "https://u@a"]
)
def test_an_issuer_that_is_no_url_is_refused(issuer: str) -> None:
    with pytest.raises(IntegrationError) as error:
        metadata_urls(issuer)
    assert (error.value.code, error.value.path) == (ErrorCode.CONFIG_ERROR, "oauth2Config.issuer")


def test_metadata_are_read() -> None:
    found = read_metadata(ISSUER, answer(METADATA))
    assert found.authorization_endpoint == f"{ISSUER}/authorize"
    assert found.token_endpoint == f"{ISSUER}/token"
    assert found.revocation_endpoint == f"{ISSUER}/revoke"
    assert found.device_authorization_endpoint == f"{ISSUER}/device"
    assert found.iss_parameter_supported
    bare = read_metadata(ISSUER, answer({"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}))
    assert (bare.revocation_endpoint, bare.iss_parameter_supported) == (None, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (METADATA | {"issuer": ISSUER + "/"}, 200),
        (METADATA | {"issuer": "https://evil.example"}, 200),
        (METADATA | {"issuer": None}, 200),
        (METADATA, 404),
        (METADATA | {"token_endpoint": "http://provider.example/token"}, 200),
        (METADATA | {"token_endpoint": "/token"}, 200),
        (METADATA | {"token_endpoint": "https://["}, 200),
        (METADATA | {"token_endpoint": "https://a@evil.example/"}, 200),
        (METADATA | {"authorization_endpoint": "javascript:alert(1)"}, 200),
        (METADATA | {"revocation_endpoint": 7}, 200),
        ([METADATA], 200),
        (b"<html>", 200),
        (b"[" * 100_000, 200),
    ],
)
def test_anything_else_is_refused(body: Any, status: int) -> None:
    with pytest.raises(IntegrationError) as error:
        read_metadata(ISSUER, answer(body, status))
    assert error.value.code == ErrorCode.MALFORMED_RESPONSE
    assert "evil" not in str(error.value)


@given(st.text())
def test_no_endpoint_breaks_anything(text: str) -> None:
    try:
        found = read_metadata(ISSUER, answer(METADATA | {"token_endpoint": text}))
    except IntegrationError:
        return
    assert (found.token_endpoint or "").startswith("https://")
