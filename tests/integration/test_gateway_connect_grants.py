"""The connect page with what nobody types a key for: OAuth's other grants, minted tokens, and connections that were
lost and are made again."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.plain_browser import Browser, link
from tests.planted import found_anywhere
from tests.provider import Provider
from tests.waiting import eventually
from tests.world import World, definition_file, method

SECRET = "Planted-Grant-5e81/2+z"
WRONG = "Planted-Grant-Wrong-77"
INVALID_GRANT = {"error": "invalid_grant", "error_description": f"not {WRONG}"}


@pytest.fixture
def provider(world: World, keyring: Keyring, name: str) -> Provider:
    return Provider(world, keyring, name)


def token_requests(world: World) -> list[dict[str, str]]:
    """What the token endpoint was asked, oldest first."""
    bodies = [one.body.decode() for one in world.upstream.seen if one.path == "/token"]
    return [{key: values[0] for key, values in parse_qs(body).items()} for body in bodies]


async def test_a_password_is_refused_then_taken(world: World, provider: Provider) -> None:
    instance = await provider.instance(grantType="password", authorizationUrl=None)
    provider.token_answers.append(JSONResponse(INVALID_GRANT, 400))
    seen = []
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page, basicAuth__username="ada", basicAuth__password=WRONG)
        assert page.status_code == 422
        assert "The provider does not accept this." in page.text
        seen.append(page.text)
        # Some have a code of their own for it. What they say of it, or send back, is not told.
        provider.token_answers.append(JSONResponse({"error": "planted-client-secret"}, 400))
        page = await browser.sends(page, basicAuth__password=WRONG)
        assert page.status_code == 422
        assert "refuses the token request" in page.text
        seen.append(page.text)
        page = await browser.sends(page, basicAuth__password=SECRET)
        assert page.status_code == 200, page.text
        seen.append(page.text)
    asked = token_requests(world)
    assert [one["password"] for one in asked] == [WRONG, WRONG, SECRET]
    assert {one["grant_type"] for one in asked} == {"password"}
    assert {one["username"] for one in asked} == {"ada"}
    assert (await world.connection(instance).status())["status"] == "CONNECTED"
    secrets = [SECRET, WRONG, "planted-client-secret", "planted-access-3", "planted-refresh-3"]
    assert await found_anywhere(world, secrets, seen) == []


async def test_client_credentials_ask_nobody(world: World, provider: Provider) -> None:
    await provider.instance(grantType="client_credentials", authorizationUrl=None)
    instance = await world.connect(provider.name, config={})
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        assert "Credentials" not in page.text
        # It is asked for when the config is set, and once more since there is none then.
        provider.token_answers.extend(JSONResponse({"error": "invalid_client"}, 401) for _ in range(2))
        page = await browser.sends(page, config__url=world.upstream.url)
        assert page.status_code == 422
        assert "invalid_client" in page.text
        page = await browser.sends(page)
        assert page.status_code == 200, page.text
    assert {one["grant_type"] for one in token_requests(world)} == {"client_credentials"}
    assert (await world.connection(instance).status())["status"] == "CONNECTED"


async def test_jwt_bearer_asks_nobody_and_signs(world: World, provider: Provider, keyring: Keyring) -> None:
    key = ECKey.generate_key("P-256")
    more = {"claims": {"sub": "robot"}, "algorithm": "ES256"}
    await provider.instance(grantType="jwt_bearer", authorizationUrl=None, tokenRequest=more)
    record = OAuthClientRecord(client_id="app", private_key=key.as_pem(private=True).decode(), key_id="k1")
    await OAuthClients(world.database, keyring).store(scope="global", definition=provider.name, client=record)
    instance = await world.connect(provider.name, config={})
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page, config__url=world.upstream.url)
        assert page.status_code == 200, page.text
    asked = token_requests(world)[-1]
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.decode(asked["assertion"], key, algorithms=["ES256"]).claims["sub"] == "robot"


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
async def test_a_key_that_tokens_are_minted_with(world: World, name: str, algorithm: str) -> None:
    key: Any = OctKey.import_key(SECRET) if algorithm == "HS256" else ECKey.generate_key("P-256")
    given = {"jwt__secret": SECRET} if algorithm == "HS256" else {"jwt__privateKey": key.as_pem(private=True).decode()}

    async def only_signed(request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            jwt.decode(token, key, algorithms=[algorithm])
        except Exception:
            return JSONResponse({"given": token}, 401)
        return JSONResponse({})

    world.upstream.handler = only_signed
    config = {"algorithm": algorithm, "claims": {"iss": "acme"}, "lifetimeMs": 60_000}
    file = definition_file(
        name, authType="jwt", jwtConfig=config, connectionTest="me", methods=[method("me", "GET", "/me")]
    )
    await world.publish(file)
    instance = await world.connect(name, config={"url": world.upstream.url})
    wrong = {"jwt__secret": WRONG} if algorithm == "HS256" else {"jwt__privateKey": "-----BEGIN NOTHING-----"}
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page, **wrong, jwt__keyId="k7")
        assert page.status_code == 422
        # The key id is no secret and stays; the key does not.
        assert 'value="k7"' in page.text
        assert WRONG not in page.text
        assert "BEGIN NOTHING" not in page.text
        page = await browser.sends(page, **given)
        assert page.status_code == 200, page.text
    assert (await world.connection(instance).status())["status"] == "CONNECTED"


async def test_a_lost_grant_is_given_again(world: World, provider: Provider) -> None:
    """The code flow of an instance that is CONNECTED, is refused by the provider, and is connected again."""
    whole = f"{world.upstream.url}/authorize"
    instance = await provider.connected(authorizationUrl=whole)
    provider.token_answers.append(JSONResponse(INVALID_GRANT, 400))
    with pytest.raises(IntegrationError, match="refuses"):
        await world.integrations.refresh(instance["id"])

    async def lost() -> bool:
        status = await world.connection(instance).status()
        return (status["status"], (status.get("error") or {}).get("code")) == ("AUTH_ERROR", "REAUTH_REQUIRED")

    await eventually(lost)
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page)
        assert page.status_code == 303
        target = urlsplit(page.headers["location"])
        assert f"{target.scheme}://{target.netloc}{target.path}" == whole
        state = parse_qs(target.query)["state"][0]
        back = await browser.get(f"/oauth/callback?code=a-code&state={state}")
        assert back.status_code == 200, back.text
    status: JsonObject = await world.connection(instance).status()
    assert status["status"] == "CONNECTED"
    assert "error" not in status


async def test_a_machines_connection_that_was_ended_is_made_again(world: World, provider: Provider) -> None:
    instance = await provider.instance(grantType="client_credentials", authorizationUrl=None)
    await world.connection(instance).disconnect()
    async with Browser(world.stack.ready.gateway) as browser:
        page = await browser.opens(await link(world, instance))
        page = await browser.sends(page)
        assert page.status_code == 200, page.text
    assert (await world.connection(instance).status())["status"] == "CONNECTED"
