"""Refreshes while the worker is killed with -9 again and again: every loss is explained, and told as what it is."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from integration_service.contracts.errors import IntegrationError
from integration_service.contracts.wire import JsonObject
from integration_service.storage.vault.keyring import Keyring
from tests.identity import Identity
from tests.oauth_setting import Setting
from tests.soak.conftest import Measured, Provide
from tests.soak.workers import Workers
from tests.waiting import eventually
from tests.world import World

pytestmark = pytest.mark.slow

_RECOVERY_S = 120
_REQUEST_LIVES = timedelta(seconds=25)
"""A request that is on its way when its worker dies may still be answered; ours live no longer than this."""


@dataclass
class Run:
    """Instances that are refreshed again and again, and what became of them."""

    setting: Setting
    refreshes: int = 0
    kills: list[datetime] = field(default_factory=list)
    losses: list[JsonObject] = field(default_factory=list)
    authorising: int = 0
    over: bool = False
    moments: random.Random = field(default_factory=lambda: random.Random(9700))

    @property
    def world(self) -> World:
        return self.setting.world

    @property
    def identity(self) -> Identity:
        return self.setting.identity

    async def refresh(self, instance: JsonObject) -> None:
        """Refresh one instance at random moments until the run is over; a lost one is authorised again."""
        while not self.over:
            await asyncio.sleep(self.moments.uniform(0, 1))
            try:
                answer = await self.world.integrations.refresh(instance["id"])
            except IntegrationError as error:
                if error.code == "REAUTH_REQUIRED":
                    await self._lost(instance, error)
                elif error.code != "UNAVAILABLE":  # that is what a caller hears while no worker runs
                    raise
                continue
            if (wait := answer.get("retryAfterMs")) is None:
                self.refreshes += 1
            else:
                await asyncio.sleep(wait / 1000)

    async def use(self, instance: JsonObject) -> None:
        """A call succeeds; what the last kill cost comes out here at the latest."""
        try:
            result = await self.world.call(instance, "whoami")
        except IntegrationError as error:
            if error.code != "REAUTH_REQUIRED":
                raise
            await self._lost(instance, error)
            result = await self.world.call(instance, "whoami")
        assert result.data == {"user": "ada"}

    async def kill(self, workers: Workers, times: int) -> None:
        """Kill at random moments, each within a second after the last kill's worker has a successor that refreshes.

        Not while a person authorises again: workers that live for a second would not let them come to an end.
        """
        for _ in range(times):
            before = self.refreshes

            async def goes_on(before: int = before) -> bool:
                return self.refreshes > before and not self.authorising

            await eventually(goes_on, within_s=_RECOVERY_S)
            await asyncio.sleep(self.moments.uniform(0, 1))
            workers.kill()
            self.kills.append(datetime.now(UTC))

    async def _lost(self, instance: JsonObject, error: IntegrationError) -> None:
        status = await eventually(lambda: self._in_error(instance), within_s=_RECOVERY_S)
        row = await self.world.database.one(
            "SELECT token_hash FROM integrations.refresh_intents WHERE instance_id = %(id)s", {"id": instance["id"]}
        )
        assert row is not None
        requests = self.identity.token_requests(refresh_token_sha256=row["token_hash"].hex())
        self.losses.append(
            {
                "told": [error.details, status["error"]["code"], status["error"]["details"]],
                "statuses": [line["status"] for line in requests],
                "sent": datetime.fromisoformat(requests[0]["time"]),
            }
        )
        self.authorising += 1
        await eventually(lambda: self._authorised_again(instance), within_s=_RECOVERY_S)
        self.authorising -= 1

    async def _in_error(self, instance: JsonObject) -> JsonObject | None:
        status = await self.status(instance)
        return status if status and status["status"] == "AUTH_ERROR" else None

    async def status(self, instance: JsonObject) -> JsonObject | None:
        """None while no worker answers."""
        with contextlib.suppress(IntegrationError):
            return await self.world.connection(instance).status()
        return None

    async def _authorised_again(self, instance: JsonObject) -> bool:
        try:
            return (await self.setting.authorized(instance))["status"] == "CONNECTED"
        except (AssertionError, IntegrationError, httpx2.TransportError):
            return False  # the worker was killed amid it: the person begins anew

    def explained(self, loss: JsonObject) -> bool:
        """Its token was spent with success, and a worker was killed before that answer could be stored."""
        killed = any(
            loss["sent"] - timedelta(seconds=1) <= kill <= loss["sent"] + _REQUEST_LIVES for kill in self.kills
        )
        return loss["statuses"][0] == 200 and set(loss["statuses"][1:]) == {400} and killed


async def test_kills_without_grace(
    world: World, workers: Workers, keyring: Keyring, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """A refresh token that comes twice ends the connection: only a lost answer may cost one."""
    if not full:
        pytest.skip("only whole: a lost answer takes the lease to be found out")
    run = Run(Setting(world, await provide(grace_seconds=0), keyring, name))
    await _run(run, workers, measured, instances=20, refreshes=200, kills=40)
    unknown = {"cause": "outcome_unknown"}
    for loss in run.losses:
        assert loss["told"] == [unknown, "REAUTH_REQUIRED", unknown]
        assert run.explained(loss), loss


async def test_kills_with_grace(
    world: World, workers: Workers, keyring: Keyring, provide: Provide, name: str, full: bool, measured: Measured
) -> None:
    """A provider that takes the last token once more loses nobody."""
    run = Run(Setting(world, await provide(grace_seconds=600), keyring, name))
    instances, refreshes, kills = (20, 200, 40) if full else (6, 6, 2)
    await _run(run, workers, measured, instances=instances, refreshes=refreshes, kills=kills, settle=full)
    assert run.losses == []
    assert {line["status"] for line in run.identity.token_requests()} == {200}


async def _run(
    run: Run,
    workers: Workers,
    measured: Measured,
    *,
    instances: int,
    refreshes: int,
    kills: int,
    settle: bool = True,
) -> None:
    began = time.monotonic()
    await run.setting.publish()
    connected = [await run.setting.authorized() for _ in range(instances)]
    drivers = [asyncio.create_task(run.refresh(instance)) for instance in connected]
    try:
        await _unless_failed(drivers, run.kill(workers, kills))

        async def enough() -> bool:
            return run.refreshes >= refreshes

        await _unless_failed(drivers, eventually(enough, within_s=_RECOVERY_S))
        run.over = True
        if settle:
            await asyncio.wait_for(asyncio.gather(*drivers), _RECOVERY_S)
    finally:
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
    for instance in connected:
        if settle:
            await run.use(instance)
        status = await eventually(lambda instance=instance: run.status(instance), within_s=_RECOVERY_S)
        assert (status["status"], status.get("error")) == ("CONNECTED", None)
    spent: dict[str, int] = {}
    for line in run.identity.token_requests(grant_type="refresh_token"):
        spent[line["refresh_token_sha256"]] = spent.get(line["refresh_token_sha256"], 0) + 1
    took = time.monotonic() - began
    measured(
        f"{run.refreshes} refreshes of {instances} instances, {len(run.kills)} kills in {took:.0f} s; "
        f"{sum(count > 1 for count in spent.values())} tokens sent more than once; {len(run.losses)} re-authorisations"
    )


async def _unless_failed(drivers: list[asyncio.Task[None]], work: object) -> None:
    """Await `work`; what a driver raises meanwhile is raised."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait({task, *drivers}, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        assert task.done()
    finally:
        task.cancel()
