"""Token requests and waiting calls in a real Postgres: one flight an instance, none forgotten."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta

import pytest

from integration_service.contracts.credentials import parse_credential
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.instances import ConnectInstanceInput
from integration_service.contracts.wire import parse
from integration_service.storage.credentials import Credentials
from integration_service.storage.database import Database
from integration_service.storage.definitions import Definitions
from integration_service.storage.instances import Instances
from integration_service.storage.refresh_intents import Intent, RefreshIntents
from integration_service.storage.vault.keyring import Keyring
from integration_service.storage.waiters import Waiters
from tests.world import definition_file

PAYLOAD = parse_credential(b'{"type":"oauth2","oauth2":{"accessToken":"a","refreshToken":"r"}}')
LEASE = timedelta(minutes=2)
OVER = timedelta(0)
"""A lease whose deadline has passed when the next one begins."""


@dataclass
class Place:
    """One instance, its credential and its token requests."""

    database: Database
    intents: RefreshIntents
    credentials: Credentials
    instance: str

    async def begin(self, generation: int = 1, *, lease: timedelta = LEASE) -> Intent:
        return await self.intents.begin(
            instance_id=self.instance, generation=generation, token_hash=b"hash", lease=lease
        )

    async def answered(self, *, lost: bool, generation: int = 1, send: int | None = None) -> None:
        await self.intents.answered(instance_id=self.instance, generation=generation, lost=lost, send=send)

    async def store(self, **more: int) -> int:
        return await self.credentials.store(instance_id=self.instance, scope="global", payload=PAYLOAD, **more)

    async def sends(self) -> int:
        return (await Instances(self.database).for_call("global", self.instance)).refresh_sends

    async def blocked(self, generation: int = 1) -> timedelta:
        with pytest.raises(IntegrationError) as refused:
            await self.begin(generation)
        assert refused.value.code == ErrorCode.UNAVAILABLE
        assert refused.value.message == "another token request of this instance may still be on its way"
        assert refused.value.retry_after is not None
        return refused.value.retry_after


@pytest.fixture
async def place(database: Database, keyring: Keyring, name: str) -> Place:
    """An instance with a credential of generation 1."""
    definition = await Definitions(database).apply(parse(DefinitionFile, definition_file(name)), publish=True)
    id_ = str(uuid.uuid4())
    await Instances(database).add(ConnectInstanceInput(instance_id=id_, definition=name, name=f"i {id_}"), definition)
    place = Place(database, RefreshIntents(database), Credentials(database, keyring), id_)
    await place.store()
    return place


async def test_a_second_request_waits_for_the_firsts_deadline(place: Place) -> None:
    assert await place.begin() == Intent(lost=False, send=1)
    assert timedelta(seconds=60) < await place.blocked() <= LEASE
    assert await place.sends() == 1


async def test_of_ten_that_begin_at_once_one_wins(place: Place) -> None:
    for lost in (False, True):
        results = await asyncio.gather(*(place.begin() for _ in range(10)), return_exceptions=True)
        assert [one for one in results if isinstance(one, Intent)] == [Intent(lost=lost, send=2 if lost else 1)]
        assert [one.code for one in results if isinstance(one, IntegrationError)] == [ErrorCode.UNAVAILABLE] * 9
        # The next ten find a row, whose deadline has passed.
        await place.database.one(
            "UPDATE integrations.refresh_intents SET deadline = now() WHERE instance_id = %(id)s",
            {"id": place.instance},
        )


async def test_after_the_deadline_an_unanswered_request_counts_as_lost(place: Place) -> None:
    assert await place.begin(lease=OVER) == Intent(lost=False, send=1)
    assert await place.begin(lease=OVER) == Intent(lost=True, send=2)
    assert await place.begin() == Intent(lost=True, send=3)
    assert await place.sends() == 3


async def test_an_answered_request_frees_the_way_at_once(place: Place) -> None:
    await place.begin()
    await place.answered(lost=False)
    assert await place.begin() == Intent(lost=False, send=2)


async def test_what_was_lost_once_stays_lost_for_the_generation(place: Place) -> None:
    await place.begin()
    await place.answered(lost=True)
    assert await place.begin() == Intent(lost=True, send=2)
    await place.answered(lost=False)
    assert await place.begin() == Intent(lost=True, send=3)
    assert await place.store() == 2
    assert await place.begin(2) == Intent(lost=False, send=1)


async def test_the_answer_of_another_generation_or_flight_ends_nothing(place: Place) -> None:
    await place.begin(lease=OVER)
    await place.begin()
    await place.answered(lost=False, generation=2)
    await place.answered(lost=False, send=1)
    await place.blocked()
    await place.answered(lost=False, send=2)
    await place.begin()


async def test_an_intent_of_a_generation_that_has_moved_blocks_nobody(place: Place) -> None:
    await place.begin()
    await place.database.one(
        "UPDATE vault.credentials SET generation = 2 WHERE instance_id = %(id)s", {"id": place.instance}
    )
    assert await place.sends() == 0
    assert await place.begin(2) == Intent(lost=False, send=1)
    assert await place.sends() == 1


async def test_a_new_token_ends_the_flight(place: Place) -> None:
    await place.begin()
    assert await place.store(expected=1) == 2
    assert await place.sends() == 0
    row = await place.database.one(
        "SELECT 1 AS found FROM integrations.refresh_intents WHERE instance_id = %(id)s", {"id": place.instance}
    )
    assert row is None


async def test_a_refused_token_leaves_the_flight_alone(place: Place) -> None:
    await place.begin()
    with pytest.raises(IntegrationError):
        await place.store(expected=7)
    assert await place.sends() == 1


@pytest.mark.parametrize("generation", [0, 2])
async def test_a_token_that_is_no_longer_current_is_not_sent(place: Place, generation: int) -> None:
    with pytest.raises(IntegrationError) as refused:
        await place.begin(generation)
    assert refused.value.code == ErrorCode.VERSION_CONFLICT
    assert refused.value.details == {"expected": generation, "current": 1}


async def test_a_token_that_is_being_replaced_at_this_moment_is_not_sent(place: Place) -> None:
    async with place.database.transaction() as connection:
        await connection.execute(
            b"UPDATE vault.credentials SET generation = 2 WHERE instance_id = %s", (place.instance,)
        )
        late = asyncio.create_task(place.begin())
        # Committed only when the other one stands at the lock.
        while not await place.database.one("SELECT 1 AS yes FROM pg_locks WHERE NOT granted", {}):
            assert not late.done()
    with pytest.raises(IntegrationError) as refused:
        await late
    assert refused.value.code == ErrorCode.VERSION_CONFLICT


async def test_the_first_token_is_of_generation_0(place: Place) -> None:
    await place.credentials.erase(place.instance)
    assert await place.begin(0) == Intent(lost=False, send=1)
    assert await place.sends() == 0
    await place.blocked(0)


async def test_what_was_erased_is_forgotten(place: Place) -> None:
    await place.begin()
    await place.intents.erase(place.instance)
    assert await place.begin() == Intent(lost=False, send=1)


async def test_deletion_takes_requests_and_waiters_along(place: Place) -> None:
    waiters = Waiters(place.database)
    await place.begin()
    await waiters.add(instance_id=place.instance, workflow_id="w", run_id="r")
    await Instances(place.database).delete(place.instance)
    assert await waiters.take(place.instance) == []
    for write in (place.begin(0), waiters.add(instance_id=place.instance, workflow_id="w", run_id="r"), place.store()):
        with pytest.raises(IntegrationError) as refused:
            await write
        assert refused.value.code == ErrorCode.INSTANCE_NOT_FOUND


async def test_waiters_are_taken_once_with_their_newest_run(place: Place) -> None:
    waiters = Waiters(place.database)
    for workflow, run in (("a", "1"), ("b", "1"), ("a", "2")):
        await waiters.add(instance_id=place.instance, workflow_id=workflow, run_id=run)
    taken = await asyncio.gather(*(waiters.take(place.instance) for _ in range(3)))
    assert sorted(one for taker in taken for one in taker) == [("a", "2"), ("b", "1")]
    assert await waiters.take(place.instance) == []
