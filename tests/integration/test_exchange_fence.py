"""A code's exchange that ends late: its tokens are stored only while the authorization is still the one to complete."""

from __future__ import annotations

import asyncio
import logging

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from integration_service.activities.parts import Parts
from integration_service.contracts.connections import ConnectionRef, ConnectionState, PollDevice, ReturnedAuthorization
from integration_service.contracts.oauth import PollOutcome, state_hash
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import Credentials
from integration_service.storage.instances import Instances
from integration_service.storage.vault.keyring import Keyring
from tests.provider import Provider
from tests.world import World

DEVICE = {"grantType": "device_code", "authorizationUrl": None, "deviceAuthorizationUrl": "{config.url}/device"}


@pytest.fixture
def provider(world: World, keyring: Keyring, name: str) -> Provider:
    return Provider(world, keyring, name)


class Attempts:
    """Attempts of one activity: the same run and activity, as Temporal tries it again."""

    def __init__(self, provider: Provider, parts: Parts) -> None:
        self.provider, self.world, self.parts = provider, provider.world, parts

    async def returned(self, instance: JsonObject) -> ReturnedAuthorization:
        """A person said yes; what came back with them."""
        begun = await self.world.connection(instance).authorize()
        found = await Instances(self.world.database).find("global", instance["id"])
        sealed = await self.world.sealed(instance["id"], {"code": "planted-code"})
        return ReturnedAuthorization(instance=found, state_hash=begun["stateHash"], sealed=sealed)

    async def complete(self, returned: ReturnedAuthorization) -> ConnectionState:
        found: ConnectionState = await ActivityEnvironment().run(self.parts.authorizations.complete, returned)
        return found

    async def poll(self, polled: PollDevice) -> PollOutcome:
        found: PollOutcome = await ActivityEnvironment().run(self.parts.authorizations.poll, polled)
        return found

    async def generation(self, instance: JsonObject) -> int:
        stored = await Credentials(self.world.database, self.provider.keyring).load(instance["id"])
        return stored.generation if stored else 0


@pytest.fixture
def attempts(provider: Provider, parts: Parts) -> Attempts:
    return Attempts(provider, parts)


async def test_an_exchange_that_ends_after_a_disconnect_gives_its_tokens_back(
    attempts: Attempts, provider: Provider, world: World
) -> None:
    instance = await provider.instance()
    returned = await attempts.returned(instance)
    provider.open.clear()
    late = asyncio.create_task(attempts.complete(returned))
    await provider.asked.wait()
    await world.connection(instance).update("disconnect")
    provider.open.set()
    with pytest.raises(ApplicationError) as refused:
        await late
    assert refused.value.type == "VALIDATION_ERROR"
    assert await attempts.generation(instance) == 0
    assert provider.revoked == ["planted-refresh-1", "planted-access-1"]


async def test_an_exchange_that_was_overtaken_by_a_newer_authorization_stores_nothing(
    attempts: Attempts, provider: Provider, world: World
) -> None:
    instance = await provider.instance()
    returned = await attempts.returned(instance)
    provider.open.clear()
    late = asyncio.create_task(attempts.complete(returned))
    await provider.asked.wait()
    newer = await attempts.returned(instance)
    provider.open.set()
    with pytest.raises(ApplicationError):
        await late
    assert await attempts.generation(instance) == 0
    assert (await attempts.complete(newer)).generation == 1


async def test_a_worker_that_dies_after_the_store_is_followed_by_one_that_says_so(
    attempts: Attempts, provider: Provider
) -> None:
    returned = await attempts.returned(await provider.instance())
    first = await attempts.complete(returned)
    again = await attempts.complete(returned)
    assert (first.generation, again.generation, provider.tokens) == (1, 1, 1)


async def test_a_code_whose_answer_was_lost_is_still_not_sent_again(attempts: Attempts, provider: Provider) -> None:
    returned = await attempts.returned(await provider.instance())
    provider.open.clear()
    lost = asyncio.create_task(attempts.complete(returned))
    await provider.asked.wait()
    with pytest.raises(ApplicationError) as refused:
        await attempts.complete(returned)
    assert refused.value.type == "OUTCOME_UNKNOWN"
    assert provider.tokens == 1
    provider.open.set()
    await lost


async def test_a_discovery_that_fails_has_spent_no_code(attempts: Attempts, provider: Provider) -> None:
    instance = await provider.instance(tokenUrl=None, issuer="{config.url}")
    returned = await attempts.returned(instance)
    provider.metadata_down = True
    with pytest.raises(ApplicationError) as failed:
        await attempts.complete(returned)
    assert (failed.value.type, failed.value.non_retryable) == ("UNAVAILABLE", False)
    provider.metadata_down = False
    assert (await attempts.complete(returned)).generation == 1


async def test_a_poll_that_ends_after_a_disconnect_gives_its_tokens_back(
    attempts: Attempts, provider: Provider, world: World
) -> None:
    instance = await provider.instance(**DEVICE)
    polled = await _device(world, instance)
    provider.open.clear()
    late = asyncio.create_task(attempts.poll(polled))
    await provider.asked.wait()
    await world.connection(instance).update("disconnect")
    provider.open.set()
    assert await late == PollOutcome(refused="expired_token")
    assert await attempts.generation(instance) == 0
    assert provider.revoked == ["planted-refresh-1", "planted-access-1"]


async def test_a_poll_that_died_after_the_store_is_followed_by_one_that_says_so(
    attempts: Attempts, provider: Provider, world: World
) -> None:
    polled = await _device(world, await provider.instance(**DEVICE))
    assert await attempts.poll(polled) == PollOutcome(done=True)
    assert await attempts.poll(polled) == PollOutcome(done=True)
    assert provider.tokens == 1
    other = polled.model_copy(update={"state_hash": state_hash("another")})
    assert await attempts.poll(other) == PollOutcome(refused="expired_token")


async def test_a_provider_in_trouble_is_asked_again_to_revoke_and_what_it_keeps_is_an_alert(
    provider: Provider, parts: Parts, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    instance = await provider.connected()
    ref = ConnectionRef(instance_id=instance["id"], scope="global")
    provider.revocations.extend([503, 503, 200, 400])
    with caplog.at_level(logging.WARNING):
        await ActivityEnvironment().run(parts.tokens.revoke, ref)
    assert provider.revoked == ["planted-refresh-0"] * 3 + ["planted-access-0"]
    [line] = [record.getMessage() for record in caplog.records if "revoke" in record.getMessage()]
    assert "status 400" in line
    assert "planted" not in caplog.text
    provider.revocations.extend([503] * 3)
    provider.revoked.clear()
    await ActivityEnvironment().run(parts.tokens.revoke, ref)
    assert provider.revoked == ["planted-refresh-0"] * 3
    about = f"% of instance {instance['id']} %"
    alerts = await world.database.all(
        "SELECT kind, sentence FROM audit.alerts WHERE sentence LIKE %(about)s ORDER BY id", {"about": about}
    )
    assert {row["kind"] for row in alerts} == {"token_not_revoked"}
    assert [row["sentence"].split(": ")[1] for row in alerts] == [
        "the provider refused (status 400)",
        "the provider is in trouble (status 503)",
    ]
    events = await world.database.all(
        "SELECT type, data FROM integrations.events WHERE data ->> 'instanceId' = %(id)s AND type LIKE %(type)s",
        {"id": instance["id"], "type": "%.audit.alert"},
    )
    assert [row["data"]["token"] for row in events] == ["access_token", "refresh_token"]
    assert "planted" not in repr((alerts, events))


async def _device(world: World, instance: JsonObject) -> PollDevice:
    begun = await world.connection(instance).authorize()
    found = await Instances(world.database).find("global", instance["id"])
    return PollDevice(instance=found, state_hash=begun["stateHash"])
