"""How punctual refreshes are: tokens that expire within one minute, how late each request is, and what was left."""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from benchmarks.load import percentile
from benchmarks.scene import Scene, definition, publish
from benchmarks.upstream import SHORT_LIVED
from integration_service.client import Connection, Integrations
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.key_file import open_keyring
from integration_service.storage.vault.seal import seal

TOKENS = 200
_MARGIN_MS = 20_000
_AT_ONCE = 16
_LOOK_EVERY_S = 0.5
_PATIENCE = timedelta(minutes=3)
_NAME = "refreshed"
_STORED = """
SELECT instance_id::text AS instance, updated_at FROM vault.credentials
 WHERE generation = 3 AND instance_id = ANY (%(instances)s::uuid[])
"""


@dataclass(frozen=True)
class _Token:
    """One that is to be refreshed: when the service means to, and when it is too late."""

    instance: str
    due: datetime
    expires_at: datetime


async def measure_refreshes(scene: Scene, *, tokens: int = TOKENS) -> dict[str, float]:
    """Seconds: how late new tokens were stored after their due time, and what the old ones had left."""
    await _publish(scene)
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one() -> _Token:
        async with turn:
            return await _short_lived(scene)

    async with asyncio.TaskGroup() as group:
        connecting = [group.create_task(one()) for _ in range(tokens)]
    short = [task.result() for task in connecting]
    stored = await _refreshed(scene, short)
    late = [(stored[token.instance] - token.due).total_seconds() for token in short]
    left = [(token.expires_at - stored[token.instance]).total_seconds() for token in short]
    return {
        "tokens": tokens,
        "lateP50": percentile(late, 0.5),
        "lateP99": percentile(late, 0.99),
        "lateMost": max(late),
        "leftLeast": min(left),
    }


async def _publish(scene: Scene) -> None:
    oauth = {
        "authorizationUrl": "{config.url}/authorize",
        "tokenUrl": "{config.url}/token",
        "refreshTokenConfig": {"strategy": "auto", "timeBeforeExpiryMs": _MARGIN_MS},
    }
    await publish(scene.database, definition(_NAME, authType="oauth2", oauth2Config=oauth))
    client = OAuthClientRecord(client_id="bench", client_secret=secrets.token_urlsafe(16))
    keyring = open_keyring(scene.stack.environment["INTEGRATIONS_KEYRING"])
    await OAuthClients(scene.database, keyring).store(scope="global", definition=_NAME, client=client)


async def _short_lived(scene: Scene) -> _Token:
    """An instance whose token was just refreshed, and lives for a minute."""
    instance = str(uuid.uuid4())
    integrations = Integrations(scene.temporal)
    connection = integrations.connection(instance)
    await integrations.connect(
        ConnectInstanceInput(
            instance_id=instance, definition=_NAME, name=f"token {instance}", config={"url": scene.url}
        )
    )
    tokens: JsonObject = {"accessToken": secrets.token_urlsafe(16), "refreshToken": SHORT_LIVED}
    sealed = seal(scene.seal_key, instance, json.dumps({"type": "oauth2", "oauth2": tokens}).encode())
    status = await connection.submit_credentials(sealed)
    if status["status"] != "CONNECTED":
        raise RuntimeError(f"an instance is {status['status']}")
    answer = await integrations.refresh(instance)
    return _Token(instance, await _due(connection), datetime.fromisoformat(answer["expiresAt"]))


async def _due(connection: Connection) -> datetime:
    """When the next refresh is planned; the connection is told by a signal."""
    while True:
        if (at := (await connection.status()).get("nextRefreshAt")) is not None:
            return datetime.fromisoformat(at)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _refreshed(scene: Scene, tokens: list[_Token]) -> dict[str, datetime]:
    """When each instance's next token was stored. Raises RuntimeError when one never was."""
    instances = [token.instance for token in tokens]
    until = datetime.now(UTC) + _PATIENCE
    while True:
        rows = await scene.database.all(_STORED, {"instances": instances})
        if len(rows) == len(tokens):
            return {row["instance"]: row["updated_at"] for row in rows}
        if datetime.now(UTC) > until:
            raise RuntimeError(f"{len(tokens) - len(rows)} tokens were not refreshed")
        await asyncio.sleep(_LOOK_EVERY_S)
