"""A provider that answers no more: the connection stays, and comes back by itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.waiting import eventually
from tests.world import World

pytestmark = pytest.mark.slow

_FAULTS = {
    "it hangs": {"kind": "hang", "seconds": 120},
    "it closes the connection": {"kind": "lose"},
}
_RECOVERY_S = 120


async def test_answers_that_do_not_come(
    world: World, keyring: Keyring, provide: Provide, name: str, measured: Measured
) -> None:
    """The provider takes a refresh token once more, so what was lost can be asked for again."""
    await asyncio.gather(
        *(_survives(world, keyring, provide, f"{name}-{number}", what, measured) for number, what in enumerate(_FAULTS))
    )


async def _survives(world: World, keyring: Keyring, provide: Provide, name: str, what: str, measured: Measured) -> None:
    identity = await provide(grace_seconds=600)
    setting = Setting(world, identity, keyring, name)
    instance = await setting.connected()
    identity.fault(**_FAULTS[what])
    began = time.monotonic()
    seen: set[str] = set()

    async def refreshed() -> bool:
        status: JsonObject = await world.connection(instance).status()
        seen.add(status["status"])
        assert (await world.call(instance, "whoami")).data == {"user": "ada"}  # the old token is good meanwhile
        return (await setting.generation(instance)) == 2

    answer = await world.integrations.refresh(instance["id"])
    assert answer["generation"] == 1
    assert answer["retryAfterMs"] > 0
    await eventually(refreshed, within_s=_RECOVERY_S)
    assert seen == {"CONNECTED"}
    requests = identity.token_requests(grant_type="refresh_token")
    assert [line["status"] for line in requests] == [200, 200]
    assert len({line["refresh_token_sha256"] for line in requests}) == 1
    measured(f"{what}: CONNECTED all the time, a new token {time.monotonic() - began:.0f} s later")
