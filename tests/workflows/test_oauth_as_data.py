"""A provider that bends the standard is described by its definition alone: from the token's request to the call."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.world import World, definition_file, method


def bent(name: str, *, get: JsonObject | None = None, **oauth2: Any) -> JsonObject:
    """JSON requests with a name of their own for the client, the token nested, the API's host told by the answer."""
    config = {
        "grantType": "client_credentials",
        "tokenUrl": "{config.url}/token",
        "tokenEndpointAuthMethod": "client_secret_post",
        "authorizationScheme": "Token",
        "tokenRequest": {"encoding": "json", "rename": {"client_id": "client_key"}},
        "tokenResponse": {
            "accessToken": "granted.token",
            "expiresIn": "granted.ttl",
            "expiresInUnit": "ms",
            "connection": {"api": "api_url"},
        },
        **oauth2,
    }
    config = {key: value for key, value in config.items() if value is not None}
    methods = [get or method("get", "GET", "/things")]
    return definition_file(name, authType="oauth2", oauth2Config=config, baseUrl="{connection.api}", methods=methods)


async def connect(world: World, keyring: Keyring, name: str, file: JsonObject) -> JsonObject:
    await world.publish(file)
    record = OAuthClientRecord(client_id="planted-client", client_secret="planted-client-secret")
    await OAuthClients(world.database, keyring).store(scope="global", definition=name, client=record)
    return await world.connect(name)


def provider(world: World, *, expired: str | None = None) -> Any:
    """Provider and API in one. A token that is `expired` is answered with 200, as some do."""
    given: list[str] = []

    async def answer(request: Request) -> Response:
        match request.url.path:
            case "/.well-known/openid-configuration":
                return JSONResponse({"issuer": world.upstream.url, "token_endpoint": f"{world.upstream.url}/token"})
            case "/token":
                asked = await request.json()
                assert (asked["client_key"], asked["grant_type"]) == ("planted-client", "client_credentials")
                given.append(f"planted-token-{len(given) + 1}")
                told = {"granted": {"token": given[-1], "ttl": 3_600_000}, "api_url": f"{world.upstream.url}/tenant-7"}
                return JSONResponse(told)
        if request.headers.get("authorization") == f"Token {expired}":
            return JSONResponse({"error": {"code": "token_expired"}})
        return JSONResponse({"path": request.url.path, "with": request.headers.get("authorization", "")[:5]})

    return answer


@pytest.mark.parametrize(
    "oauth2", [{}, {"tokenUrl": None, "issuer": "{config.url}"}], ids=["written out", "discovered"]
)
async def test_what_the_answer_tells_leads_the_call(
    world: World, keyring: Keyring, name: str, oauth2: JsonObject
) -> None:
    world.upstream.handler = provider(world)
    instance = await connect(world, keyring, name, bent(name, **oauth2))
    assert instance["status"] == "CONNECTED", instance
    result = await world.call(instance, "get")
    assert result.data == {"path": "/tenant-7/things", "with": "Token"}


async def test_an_expired_token_that_comes_as_a_success_is_renewed_within_the_call(
    world: World, keyring: Keyring, name: str
) -> None:
    world.upstream.handler = provider(world, expired="planted-token-1")
    signs = {"status": [200], "path": "error.code", "values": ["token_expired"]}
    instance = await connect(world, keyring, name, bent(name, tokenExpired=signs))
    result = await world.call(instance, "get")
    assert (result.data["path"], result.attempts) == ("/tenant-7/things", 1)
    assert [seen.path for seen in world.upstream.seen] == ["/token", "/tenant-7/things", "/token", "/tenant-7/things"]


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"returnUrl": "https://elsewhere.example/done"}, "returnUrl"),
        ({"redirectUri": "https://elsewhere.example/callback"}, "redirectUri"),
    ],
)
async def test_an_authorization_leads_back_to_where_it_may_only(
    world: World, keyring: Keyring, name: str, message: JsonObject, path: str
) -> None:
    file = bent(name, grantType=None, authorizationUrl="{config.url}/authorize")
    instance = await connect(world, keyring, name, file)
    assert instance["status"] == "PENDING_AUTHENTICATION"
    with pytest.raises(IntegrationError) as caught:
        await world.connection(instance).authorize(message)
    assert (caught.value.code, caught.value.path) == ("VALIDATION_ERROR", path)
