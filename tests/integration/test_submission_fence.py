"""Credentials that were submitted and are stored late: whatever was given or taken back meanwhile stays."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from integration_service.activities.parts import Parts
from integration_service.contracts.connections import ConnectionState, StoreCredential
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import Credentials
from integration_service.storage.instances import Instances
from integration_service.storage.vault.keyring import Keyring
from tests.provider import Provider
from tests.waiting import eventually
from tests.world import World

PASSWORD = {"grantType": "password", "authorizationUrl": None}
SLOW = {"type": "oauth2", "basicAuth": {"username": "ada", "password": "planted-old"}}
NEWER = {"type": "oauth2", "oauth2": {"accessToken": "planted-newer", "refreshToken": "planted-newer-refresh"}}


@pytest.fixture
def provider(world: World, keyring: Keyring, name: str) -> Provider:
    return Provider(world, keyring, name)


class Submissions:
    """Attempts of the activity that keeps what was submitted, each scheduled when the test says."""

    def __init__(self, provider: Provider, parts: Parts) -> None:
        self.provider, self.world, self.parts = provider, provider.world, parts

    async def keep(self, instance: JsonObject, credential: JsonObject, *, at: datetime) -> ConnectionState:
        wanted = StoreCredential(
            instance=await Instances(self.world.database).find("global", instance["id"]),
            sealed=await self.world.sealed(instance["id"], credential),
        )
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, current_attempt_scheduled_time=at)
        found: ConnectionState = await environment.run(self.parts.connections.store_credential, wanted)
        return found

    async def held(self, instance: JsonObject) -> str | None:
        """The access token in the vault."""
        credentials = Credentials(self.world.database, self.provider.keyring)
        stored = await credentials.load(instance["id"])
        opened = (await credentials.open(stored)).oauth2 if stored else None
        return opened.access_token if opened else None


@pytest.fixture
def submissions(provider: Provider, parts: Parts) -> Submissions:
    return Submissions(provider, parts)


async def under_way(submissions: Submissions, instance: JsonObject) -> asyncio.Task[ConnectionState]:
    """One that was scheduled a minute ago and still waits for the provider's token."""
    submissions.provider.open.clear()
    earlier = datetime.now(UTC) - timedelta(minutes=1)
    late = asyncio.create_task(submissions.keep(instance, SLOW, at=earlier))
    await submissions.provider.asked.wait()
    return late


async def test_one_that_ends_late_does_not_overwrite_a_newer_one(
    submissions: Submissions, provider: Provider, world: World
) -> None:
    instance = await provider.instance(**PASSWORD)
    late = await under_way(submissions, instance)
    assert (await world.submit(instance, NEWER))["status"] == "CONNECTED"
    provider.open.set()
    with pytest.raises(ApplicationError) as refused:
        await late
    assert (refused.value.type, refused.value.non_retryable) == ("VALIDATION_ERROR", True)
    assert await submissions.held(instance) == "planted-newer"


async def test_one_that_ends_after_a_disconnect_gives_its_tokens_back(
    submissions: Submissions, provider: Provider, world: World
) -> None:
    instance = await provider.instance(**PASSWORD)
    late = await under_way(submissions, instance)
    await world.connection(instance).update("disconnect")
    provider.open.set()
    with pytest.raises(ApplicationError):
        await late
    assert await submissions.held(instance) is None
    assert provider.revoked == ["planted-refresh-1", "planted-access-1"]


async def test_the_next_attempt_of_the_same_one_stores(submissions: Submissions, provider: Provider) -> None:
    """Its predecessor was given up for dead, and is not."""
    instance = await provider.instance(**PASSWORD)
    late = await under_way(submissions, instance)
    again = asyncio.create_task(submissions.keep(instance, SLOW, at=datetime.now(UTC)))

    async def both_asked() -> bool:
        return provider.tokens == 2

    await eventually(both_asked)
    provider.open.set()
    assert (await again).generation == 1
    with pytest.raises(ApplicationError):
        await late
    assert await submissions.held(instance) is not None


@pytest.mark.parametrize("meanwhile", ["submitted", "disconnected"])
async def test_one_that_even_begins_late_stores_nothing(
    submissions: Submissions, provider: Provider, world: World, meanwhile: str
) -> None:
    """A worker that stood still between being given the task and beginning it."""
    instance, before = await provider.instance(**PASSWORD), datetime.now(UTC) - timedelta(minutes=1)
    await world.submit(instance, NEWER)
    if meanwhile == "disconnected":
        await world.connection(instance).update("disconnect")
    with pytest.raises(ApplicationError) as refused:
        await submissions.keep(instance, SLOW, at=before)
    assert refused.value.type == "VALIDATION_ERROR"
    assert provider.tokens == 0
    assert await submissions.held(instance) == (None if meanwhile == "disconnected" else "planted-newer")
