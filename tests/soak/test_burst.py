"""Tokens that expire within the same minute: all are refreshed in time, spread out, while callers keep calling."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.soak.conftest import Measured
from tests.waiting import eventually
from tests.world import World, definition_file, method

pytestmark = pytest.mark.slow

_CONNECTING = 16
"""Instances that are connected at the same time."""


@dataclass
class TokenServer:
    """Provider and upstream: it rotates refresh tokens, and refuses access tokens that have expired."""

    expiries: dict[str, float] = field(default_factory=dict)
    """When each access token expires."""
    current: dict[str, str] = field(default_factory=dict)
    """The access token of each refresh token that is still good."""
    slack: list[float] = field(default_factory=list)
    """How long before its token's expiry each token request came."""
    at: list[float] = field(default_factory=list)
    refused: int = 0

    def issue(self, expires_at: float) -> tuple[str, str]:
        access, refresh = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self.expiries[access], self.current[refresh] = expires_at, access
        return access, refresh

    async def __call__(self, request: Request) -> Response:
        now = time.time()
        if request.url.path != "/token":
            token = request.headers["authorization"].removeprefix("Bearer ")
            good = now < self.expiries.get(token, 0)
            self.refused += not good
            return JSONResponse({}, 200 if good else 401)
        [refresh] = parse_qs((await request.body()).decode())["refresh_token"]
        old = self.current.pop(refresh, None)
        if old is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.at.append(now)
        self.slack.append(self.expiries.pop(old) - now)
        access, successor = self.issue(now + 3600)
        return JSONResponse(
            {"access_token": access, "refresh_token": successor, "token_type": "Bearer", "expires_in": 3600}
        )

    def per_window(self, window_s: int) -> list[int]:
        """Token requests in each window since the first."""
        counts = Counter(int((at - self.at[0]) // window_s) for at in sorted(self.at))
        return [counts[number] for number in range(max(counts) + 1)]


async def test_tokens_that_expire_within_a_minute(
    world: World, keyring: Keyring, name: str, full: bool, measured: Measured
) -> None:
    """The margin is the default: five minutes, or half of what is left of a shorter life."""
    count, callers, until_expiry, within = (2000, 50, 900, 60) if full else (40, 5, 25, 5)
    server = world.upstream.handler = TokenServer()
    await world.publish(
        definition_file(
            name,
            authType="oauth2",
            oauth2Config={"authorizationUrl": "{config.url}/authorize", "tokenUrl": "{config.url}/token"},
            methods=[method("get", "GET", "/things/{id}")],
        )
    )
    client = OAuthClientRecord(client_id="app", client_secret=secrets.token_urlsafe(16))
    await OAuthClients(world.database, keyring).store(scope="global", definition=name, client=client)
    began = time.time()
    first_expiry = began + until_expiry
    instances = await _connected(world, name, server, count, first_expiry, within)
    took = time.time() - began
    assert not server.at, "connecting took too long: the first token is refreshed already"
    done = asyncio.Event()
    calling = [asyncio.create_task(_call_until(done, world, instances, seed)) for seed in range(callers)]

    async def all_refreshed() -> bool:
        return len(server.at) >= count

    try:
        await eventually(all_refreshed, within_s=until_expiry + within - took)
    finally:
        done.set()
    latencies = sorted(itertools.chain.from_iterable(await asyncio.gather(*calling)))
    assert len(server.at) == count
    assert min(server.slack) > 0
    assert server.refused == 0
    for instance in random.Random(1).sample(instances, min(count, 20)):
        assert (await world.connection(instance).status())["status"] == "CONNECTED"
    window = 10 if full else 1
    measured(f"{count} instances connected in {took:.0f} s; all refreshed {min(server.slack):.0f} s or more in time")
    measured(
        f"token requests per {window} s: {server.per_window(window)}; in the busiest second {max(server.per_window(1))}"
    )
    measured(
        f"{len(latencies)} calls by {callers} callers, 0 failed; "
        f"p50 {statistics.median(latencies):.2f} s, p99 {latencies[len(latencies) * 99 // 100]:.2f} s"
    )


async def _connected(
    world: World, name: str, server: TokenServer, count: int, first_expiry: float, within: int
) -> list[JsonObject]:
    """Instances with a token of their own each, as if they had been connected elsewhere."""
    moments = random.Random(2)
    turn = asyncio.Semaphore(_CONNECTING)

    async def one() -> JsonObject:
        async with turn:
            instance = await world.connect(name)
            expires_at = first_expiry + moments.uniform(0, within)
            access, refresh = server.issue(expires_at)
            tokens = {
                "accessToken": access,
                "refreshToken": refresh,
                "expiresAt": datetime.fromtimestamp(expires_at, UTC).isoformat(),
            }
            status = await world.submit(instance, {"type": "oauth2", "oauth2": tokens})
            assert status["status"] == "CONNECTED", status
            return status

    return await asyncio.gather(*(one() for _ in range(count)))


async def _call_until(done: asyncio.Event, world: World, instances: list[JsonObject], seed: int) -> list[float]:
    """Call one instance after another; every call succeeds. Returns how long each took."""
    which, took = random.Random(seed), []
    while not done.is_set():
        began = time.monotonic()
        result = await world.call(which.choice(instances), "get", {"id": len(took)})
        assert (result.status_code, result.attempts) == (200, 1)
        took.append(time.monotonic() - began)
    return took
