"""A provider on a test's own upstream: its answers can be held back, and what it was asked is counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.world import World, definition_file, method


class Provider:
    """Serves /token, /revoke, /device and metadata. While `open` is clear, token requests wait for it."""

    def __init__(self, world: World, keyring: Keyring, name: str) -> None:
        self.world, self.keyring, self.name = world, keyring, name
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        """A token request has arrived."""
        self.token_answers: deque[Response] = deque()
        self.revocations: deque[int] = deque()
        self.metadata_down = False
        self.revoked: list[str] = []
        self.tokens = 0
        world.upstream.handler = self.serve

    async def serve(self, request: Request) -> Response:
        match request.url.path:
            case "/token":
                return await self._token()
            case "/revoke":
                sent = parse_qs((await request.body()).decode())
                self.revoked.append(sent["token"][0])
                return JSONResponse({}, self.revocations.popleft() if self.revocations else 200)
            case "/device":
                where = {"verification_uri": f"{self.world.upstream.url}/type", "user_code": "AB-CD"}
                return JSONResponse({"device_code": "planted-device", "expires_in": 600, "interval": 600, **where})
            case "/.well-known/openid-configuration" if not self.metadata_down:
                url = self.world.upstream.url
                return JSONResponse({"issuer": url, "token_endpoint": f"{url}/token"})
            case "/things":
                return JSONResponse({"ok": True})
        return JSONResponse({}, 404)

    async def _token(self) -> Response:
        self.tokens += 1
        number = self.tokens
        self.asked.set()
        await self.open.wait()
        if self.token_answers:
            return self.token_answers.popleft()
        given = {"access_token": f"planted-access-{number}", "refresh_token": f"planted-refresh-{number}"}
        return JSONResponse({**given, "token_type": "Bearer", "expires_in": 3600})

    def file(self, **oauth2: Any) -> JsonObject:
        config: JsonObject = {
            "authorizationUrl": "{config.url}/authorize",
            "tokenUrl": "{config.url}/token",
            "revocationUrl": "{config.url}/revoke",
            **oauth2,
        }
        return definition_file(
            self.name,
            authType="oauth2",
            methods=[method("get", "GET", "/things")],
            oauth2Config={key: value for key, value in config.items() if value is not None},
        )

    async def instance(self, **oauth2: Any) -> JsonObject:
        """Published, with a client, and an instance of it that nobody has authorised."""
        await self.world.publish(self.file(**oauth2))
        client = OAuthClientRecord(client_id="app", client_secret="planted-client-secret")
        clients = OAuthClients(self.world.database, self.keyring)
        await clients.store(scope="global", definition=self.name, client=client)
        return await self.world.connect(self.name)

    async def connected(self, **oauth2: Any) -> JsonObject:
        """With tokens that were had elsewhere."""
        instance = await self.instance(**oauth2)
        held = {"accessToken": "planted-access-0", "refreshToken": "planted-refresh-0"}
        return await self.world.submit(instance, {"type": "oauth2", "oauth2": held})
