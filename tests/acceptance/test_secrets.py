"""A planted credential is found in no byte that we or Temporal store."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import Credentials
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.identity import identity_provider
from tests.planted import found_anywhere, spellings
from tests.world import World, definition_file, method

SECRETS = [
    "Planted-Password-71c!e&x",
    "Planted-Header-Key-5b2f/9+z",
    "Planted-Query-Key-88d=?a",
    "Planted-Wrong-Key-0f0f",
]


def _credential(kind: str, secret: str) -> JsonObject:
    if kind == "basic":
        return {"type": "basic", "basicAuth": {"username": "ada", "password": secret}}
    key = {"key": secret, "headerOrParam": "x-key" if kind == "header" else "key", "inHeader": kind == "header"}
    return {"type": "api_key", "apiKey": key}


async def _echo(request: Request) -> Response:
    """The worst upstream: whatever it was sent comes back, in keys, values and headers."""
    seen = {**dict(request.headers), "url": str(request.url), "query": dict(request.query_params)}
    if request.url.path == "/refuse":
        return JSONResponse(seen, 401)
    nested = {"echo": [seen, {str(value): key for key, value in seen.items()}]}
    return JSONResponse(nested, 500 if request.url.path == "/fail" else 200, headers={"X-Echo": str(seen)[:500]})


async def test_planted_credentials_are_found_nowhere(world: World, name: str) -> None:
    world.upstream.handler = _echo
    methods = [
        method("whoami", "GET", "/me"),
        method("fail", "GET", "/fail"),
        method("refuse", "GET", "/refuse"),
        method("shape", "GET", "/shape", resultSchema={"type": "array"}),
        method("nowhere", "GET", "/{config.missing}"),
    ]
    results: list[Any] = []
    for kind, secret in zip(("basic", "header", "query"), SECRETS, strict=False):
        auth = "basic" if kind == "basic" else "api_key"
        file = definition_file(f"{name}{kind}", authType=auth, connectionTest="whoami", methods=methods)
        instance = await world.instance(file)
        with pytest.raises(IntegrationError):
            await world.submit(instance, {"type": auth, "jwt": {"token": SECRETS[3]}})
        await world.submit(instance, _credential(kind, SECRETS[3]))
        connected = await world.submit(instance, _credential(kind, secret))
        assert connected["status"] == "CONNECTED"
        results.append((await world.call(connected, "whoami", {"x": 1})).data)
        for failing in ("fail", "shape", "nowhere", "refuse"):
            with pytest.raises(IntegrationError) as caught:
                await world.call(connected, failing)
            results.append([str(caught.value), caught.value.details])
        # Nothing listens there: the connection error must not tell the URL.
        await world.connection(connected).configure({"url": "http://127.0.0.1:9"})
        results.append(await world.connection(connected).status())
    assert "[REDACTED]" in str(results)
    assert {bytes(seen.headers.get("x-key", ""), "ascii") for seen in world.upstream.seen} >= {SECRETS[1].encode()}

    assert await found_anywhere(world, SECRETS, results) == []


async def test_what_oauth_handles_is_found_nowhere(world: World, name: str, keyring: Keyring) -> None:
    """Codes, tokens, client secrets and passwords, through connecting, refreshing, failing and disconnecting."""
    with tempfile.TemporaryDirectory(prefix="integrations-idp-") as folder:
        async with identity_provider(Path(folder) / "idp") as identity:
            await world.publish(identity.definition(name))
            record = OAuthClientRecord(client_id=identity.client_id, client_secret=identity.client_secret)
            clients = OAuthClients(world.database, keyring)
            await clients.store(scope="global", definition=name, client=record)
            instance = await world.connect(name, config={"url": identity.url})
            connection = world.connection(instance)
            planted = [identity.client_secret, identity.user.password]
            for _ in range(2):  # the second is a re-authorisation in place
                begun = await connection.authorize()
                back = await identity.authorize(begun["authorizationUrl"])
                planted.append(httpx2.URL(back).params["code"])
                async with httpx2.AsyncClient(trust_env=False) as http:
                    assert (await http.get(back)).status_code == 200
                    assert (await http.get(back)).status_code == 400
                planted += await _tokens(world, keyring, instance)
            identity.fault("status", status=500, body=f"<html>{planted[-1]}</html>")
            results: list[Any] = [await world.integrations.refresh(instance["id"])]
            results.append(await world.integrations.refresh(instance["id"]))
            planted += await _tokens(world, keyring, instance)
            results.append((await world.call(instance, "whoami")).data)
            results.append(await connection.update("disconnect"))
            assert len(set(planted)) == 2 + 2 + 3 * 3
            assert await found_anywhere(world, planted, results) == []


async def _tokens(world: World, keyring: Keyring, instance: JsonObject) -> list[str]:
    """The tokens as the vault holds them now, those of `rawResponse` too."""
    credentials = Credentials(world.database, keyring)
    stored = await credentials.load(instance["id"])
    assert stored is not None
    oauth2 = (await credentials.open(stored)).oauth2
    assert oauth2 is not None
    raw = oauth2.raw_response or {}
    assert raw["access_token"] == oauth2.access_token
    return [oauth2.access_token, str(oauth2.refresh_token), raw.get("id_token", f"none {oauth2.access_token}")]


def test_the_search_would_find_what_is_there() -> None:
    for prefix in (b"", b"a", b"ab"):
        text = base64.b64encode(prefix + SECRETS[0].encode() + b"tail")
        assert any(needle in text for needle in spellings(SECRETS[0]))
