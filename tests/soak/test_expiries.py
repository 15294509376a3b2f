"""Short-lived tokens, expiry after expiry, under a caller that never pauses: nothing is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from integration_service.contracts.names import refresh_workflow_id
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.world import World

pytestmark = pytest.mark.slow

_MARGINS = {"in time": {}, "at expiry": {"refreshTokenConfig": {"strategy": "auto", "timeBeforeExpiryMs": 0}}}
_SLACK = 3


async def test_expiries_in_a_row(
    world: World, keyring: Keyring, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """Two instances: one refreshed by the default margin, one at the very moment of expiry."""
    expiries, seconds = (50, 5) if full else (4, 3)
    identity = await provide(access_seconds=seconds)
    instances = {}
    for number, (label, oauth2) in enumerate(_MARGINS.items()):
        setting = Setting(world, identity, keyring, f"{name}-{number}")
        instances[label] = await setting.connected(**oauth2)
    before = len(identity.token_requests(grant_type="refresh_token"))
    calls = await asyncio.gather(
        *(
            _call_until(world, instance, generation=1 + expiries, within_s=_SLACK * expiries * seconds)
            for instance in instances.values()
        )
    )
    requests = identity.token_requests(grant_type="refresh_token")
    assert {line["status"] for line in requests} == {200}
    assert len(requests) - before >= 2 * expiries - 2  # connecting may have taken a token's whole life
    assert len({line["refresh_token_sha256"] for line in requests}) == len(requests)  # none was spent twice
    for (label, instance), (count, took) in zip(instances.items(), calls, strict=True):
        rows = await world.audit(instance)
        assert {row["status"] for row in rows} == {"SUCCEEDED"}
        status = await world.connection(instance).status()
        assert (status["status"], status.get("error")) == ("CONNECTED", None)
        generation = await _generation(world, instance)
        assert generation >= 1 + expiries
        measured(f"{label}: generation {generation} after {took:.0f} s, {count} calls, 0 failed")


async def _call_until(world: World, instance: JsonObject, *, generation: int, within_s: float) -> tuple[int, float]:
    """Call in a loop; every call succeeds. Returns how many there were, and the time that they took."""
    began, count = time.monotonic(), 0
    while count % 10 or await _generation(world, instance) < generation:
        assert time.monotonic() < began + within_s, "the generations do not grow"
        result = await world.call(instance, "whoami")
        assert (result.data, result.attempts) == ({"user": "ada"}, 1)
        count += 1
    return count, time.monotonic() - began


async def _generation(world: World, instance: JsonObject) -> int:
    handle = world.temporal.get_workflow_handle(refresh_workflow_id(instance["id"]))
    state: JsonObject = await handle.query("status", result_type=dict)
    return int(state["token"]["generation"])
