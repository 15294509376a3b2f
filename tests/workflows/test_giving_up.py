"""Connections that are given up: who waits for them is told, and the provider too."""

from __future__ import annotations

import pytest
from joserfc.jwk import ECKey

from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from integration_service.storage.waiters import Waiters
from tests.provider import Provider
from tests.waiting import eventually
from tests.world import World, definition_file


@pytest.fixture
def provider(world: World, keyring: Keyring, name: str) -> Provider:
    return Provider(world, keyring, name)


async def test_a_parked_call_ends_when_its_instance_is_disconnected(world: World, provider: Provider) -> None:
    instance = await provider.instance()
    call = MethodCall(instance_id=instance["id"], method="get", on_auth_error="wait")
    parked = await world.integrations.start_call(call)
    await eventually(lambda: _waits(world, instance))
    await world.connection(instance).update("disconnect")
    with pytest.raises(IntegrationError) as ended:
        await world.integrations.result_of(parked)
    assert (ended.value.code, ended.value.details["status"]) == ("INSTANCE_NOT_CONNECTED", "DISCONNECTED")


async def test_a_parked_call_whose_signal_was_lost_finds_out_by_itself(world: World, provider: Provider) -> None:
    instance = await provider.instance()
    call = MethodCall(instance_id=instance["id"], method="get", on_auth_error="wait")
    parked = await world.integrations.start_call(call)
    await eventually(lambda: _waits(world, instance))
    await Waiters(world.database).take(instance["id"])  # whoever took them died before the signal
    await world.connection(instance).update("delete")
    with pytest.raises(IntegrationError) as ended:
        await world.integrations.result_of(parked)
    assert ended.value.code == "INSTANCE_NOT_FOUND"


async def test_an_upgrade_to_another_kind_of_authentication_revokes_first(world: World, provider: Provider) -> None:
    instance = await provider.connected()
    assert instance["status"] == "CONNECTED"
    await world.publish(definition_file(provider.name, version="2.0.0"))
    status = await world.connection(instance).update("upgrade", {"version": "2.0.0"})
    assert (status["status"], status["definitionVersion"]) == ("CONNECTED", "2.0.0")
    assert provider.revoked == ["planted-refresh-0", "planted-access-0"]


async def test_a_key_that_cannot_sign_is_refused_when_it_is_submitted(world: World, name: str) -> None:
    file = definition_file(name, authType="jwt", jwtConfig={"algorithm": "RS256"})
    instance = await world.instance(file)
    key = ECKey.generate_key("P-256").as_pem(private=True).decode()
    with pytest.raises(IntegrationError) as refused:
        await world.submit(instance, {"type": "jwt", "jwt": {"privateKey": key}})
    assert (refused.value.code, refused.value.path) == ("VALIDATION_ERROR", "sealed.jwt")
    assert "RS256" in refused.value.message
    assert (await world.connection(instance).status())["status"] == "PENDING_AUTHENTICATION"


async def _waits(world: World, instance: JsonObject) -> bool:
    query = "SELECT 1 FROM integrations.waiters WHERE instance_id = %(id)s"
    return await world.database.one(query, {"id": instance["id"]}) is not None
