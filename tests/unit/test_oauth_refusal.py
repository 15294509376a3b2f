"""A provider that answers with what it was sent: nothing of that becomes an error code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from integration_service.activities.oauth.refusal import TokenRefused, check_answer, without_what_was_sent
from integration_service.activities.oauth.token_request import Grant, PasswordGrant, RefreshGrant, token_request
from integration_service.activities.outbound.messages import InboundResponse
from integration_service.contracts.definitions import OAuth2Config
from integration_service.contracts.oauth import OAuthClientRecord, TokenResponseMapping
from integration_service.contracts.wire import parse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLIENT = OAuthClientRecord(client_id="app", client_secret="planted-client.secret_1")
PASSWORD = PasswordGrant("ada", "planted-password")


def refused(error: Any, *, method: str, grant: Grant = PASSWORD) -> TokenRefused:
    told = {"tokenUrl": "https://idp.test/token", "tokenEndpointAuthMethod": method}
    config = parse(OAuth2Config, told)
    request = token_request(config, CLIENT, grant, url="https://idp.test/token", values={}, now=NOW)
    body = {"error": error}
    response = InboundResponse(400, {"content-type": "application/json"}, json.dumps(body).encode())
    with pytest.raises(TokenRefused) as raised, without_what_was_sent(request):
        check_answer(TokenResponseMapping(), response, body, now=NOW)
    return raised.value


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("said", ["planted-client.secret_1", "planted-password", "client.secret", "planted-refresh"])
@pytest.mark.parametrize("grant", [PASSWORD, RefreshGrant("planted-refresh", "an-access-token")])
def test_it_is_no_error_code(method: str, said: str, grant: Grant) -> None:
    sent = said in {"planted-password" if grant is PASSWORD else "planted-refresh"} or "secret" in said
    error = refused(said, method=method, grant=grant)
    assert error.error == (None if sent else said)
    assert error.details == ({} if sent else {"error": said})


@pytest.mark.parametrize("said", ["invalid_client", "bad_verification_code"])
def test_a_real_code_stays(said: str) -> None:
    assert refused(said, method="client_secret_basic").error == said
