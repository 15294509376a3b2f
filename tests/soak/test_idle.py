"""Connections that nobody uses: what thousands of them cost."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.processes import Cost, costs
from integration_service.contracts.credentials import CredentialPayload
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.names import CONNECT_INSTANCE, TASK_QUEUE, connection_workflow_id
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.storage.credentials import Credentials
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.soak.conftest import Measured
from tests.waiting import eventually
from tests.world import World, definition_file

pytestmark = pytest.mark.slow

_AT_ONCE = 48


async def test_idle_connections(world: World, keyring: Keyring, name: str, full: bool, measured: Measured) -> None:
    """Each is an instance with a token that is good for weeks, its `ConnectInstance` and its `RefreshOAuth`."""
    count, window_s = (10_000, 120) if full else (60, 10)
    definition = await world.publish(
        definition_file(
            name,
            authType="oauth2",
            oauth2Config={"authorizationUrl": "{config.url}/authorize", "tokenUrl": "{config.url}/token"},
        )
    )
    client = OAuthClientRecord(client_id="app", client_secret=secrets.token_urlsafe(16))
    await OAuthClients(world.database, keyring).store(scope="global", definition=name, client=client)
    others = await _refreshers(world)
    before, size_before = await _quiet(window_s), await _database_bytes(world)
    began = time.monotonic()
    turn = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_connect(world, keyring, name, definition.id, turn) for _ in range(count)))

    async def all_kept_fresh() -> bool:
        return await _refreshers(world) >= others + count

    await eventually(all_kept_fresh, within_s=2400 if full else 60)
    took = time.monotonic() - began
    connected = await world.database.one(
        """SELECT count(*) AS found FROM integrations.instances
            WHERE definition_id = %(id)s AND status = 'CONNECTED'""",
        {"id": definition.id},
    )
    assert connected == {"found": count}
    await eventually(_is_calm, within_s=600)  # what connecting left to do is done
    memory, after = {kind: cost.mib for kind, cost in costs(memory=True).items()}, await _quiet(window_s)
    assert world.upstream.seen == []  # nobody asked for a token
    # One percent of a core each, above what the stack costs without them.
    for kind in ("worker", "temporal", "postgres"):
        assert after[kind] - before[kind] < 0.01 * max(1, count / 1000) + 0.02, (kind, before, after)
    measured(f"{count} connections opened in {took:.0f} s")
    for kind in sorted(after):
        measured(
            f"{kind}: idle CPU {before[kind]:.2%} of a core before, {after[kind]:.2%} after; {memory[kind]:.0f} MiB"
        )
    grown = await _database_bytes(world) - size_before
    measured(f"Postgres grew by {grown / count / 1024:.1f} KiB a connection ({grown / 1e6:.0f} MB)")


async def _connect(world: World, keyring: Keyring, name: str, definition_id: str, turn: asyncio.Semaphore) -> None:
    """A row and a credential as an earlier life left them, adopted by a new workflow."""
    async with turn:
        instance_id = str(uuid.uuid4())
        await world.database.one(
            """INSERT INTO integrations.instances (id, name, definition_id, config, status, last_connected_at)
               VALUES (%(id)s, %(name)s, %(definition_id)s, %(config)s, 'CONNECTED', now())""",
            {
                "id": instance_id,
                "name": f"idle {instance_id}",
                "definition_id": definition_id,
                "config": f'{{"url": "{world.upstream.url}"}}',
            },
        )
        expires_at = datetime.now(UTC) + timedelta(days=30)
        tokens = {
            "accessToken": secrets.token_urlsafe(24),
            "refreshToken": secrets.token_urlsafe(24),
            "tokenType": "Bearer",
            "expiresAt": expires_at.isoformat(),
        }
        payload = parse(CredentialPayload, {"type": "oauth2", "oauth2": tokens})
        await Credentials(world.database, keyring).store(
            instance_id=instance_id, scope="global", payload=payload, renewable=True
        )
        wanted = ConnectInstanceInput(
            instance_id=instance_id,
            definition=name,
            name=f"idle {instance_id}",
            config={"url": world.upstream.url},
        )
        await world.temporal.start_workflow(
            CONNECT_INSTANCE, wanted.to_wire(), id=connection_workflow_id(instance_id), task_queue=TASK_QUEUE
        )


async def _refreshers(world: World) -> int:
    query = "WorkflowType = 'RefreshOAuth' AND ExecutionStatus = 'Running'"
    return (await world.temporal.count_workflows(query)).count


async def _quiet(window_s: float) -> dict[str, float]:
    """The share of a core that each part uses while nobody asks it for anything."""
    began, first = time.monotonic(), costs()
    await asyncio.sleep(window_s)
    last, took = costs(), time.monotonic() - began
    return {kind: (last[kind].cpu_s - first.get(kind, Cost()).cpu_s) / took for kind in last}


async def _is_calm() -> bool:
    shares = await _quiet(10)
    return shares["worker"] + shares["temporal"] < 0.1


async def _database_bytes(world: World) -> int:
    row = await world.database.one("SELECT pg_database_size(current_database()) AS bytes", {})
    assert row is not None
    return int(row["bytes"])
