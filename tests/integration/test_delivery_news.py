"""Whoever delivers is told at once that there is something, and knows when there will be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from integration_service.activities.webhooks import new_secret
from integration_service.contracts.events import EventDraft, EventType, NewSubscription
from integration_service.contracts.wire import parse
from integration_service.devstack.stack import Stack
from integration_service.storage.database import Database
from integration_service.storage.deliveries import Deliveries
from integration_service.storage.delivery_news import DeliveryNews
from integration_service.storage.outbox import Outbox
from integration_service.storage.subscriptions import Subscriptions
from integration_service.storage.vault.keyring import Keyring
from tests.fresh_database import fresh_database
from tests.waiting import eventually

_NOBODY = "SELECT count(*) AS found FROM pg_stat_activity WHERE query LIKE 'LISTEN %%' AND datname = current_database()"


@pytest.fixture
async def own(stack: Stack) -> AsyncIterator[Database]:
    """A database in which no worker delivers."""
    async with fresh_database(stack) as fresh, Database(fresh.url) as database:
        yield database


@pytest.fixture
async def news(own: Database) -> AsyncIterator[DeliveryNews]:
    heard = DeliveryNews(own)
    listening = asyncio.create_task(heard.listen())
    await heard.wait()  # as it begins: what was queued before that
    yield heard
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    async def gone() -> bool:
        return await own.one(_NOBODY, {}) == {"found": 0}

    await eventually(gone)  # its connection is lent to nobody else


async def subscribe(own: Database, keyring: Keyring) -> str:
    asked = {"webhook": {"url": "https://receiver.example/"}, "eventTypes": ["integration.audit.alert"]}
    return (await Subscriptions(own, keyring).add(parse(NewSubscription, asked), secret=new_secret())).id


async def happen(own: Database, kind: EventType = EventType.AUDIT_ALERT) -> None:
    await Outbox(own).publish(EventDraft(kind, {}), subject="s")


async def hears(news: DeliveryNews, within_s: float) -> bool:
    try:
        await asyncio.wait_for(news.wait(), within_s)
    except TimeoutError:
        return False
    return True


async def test_it_is_told_of_what_is_queued_and_of_nothing_else(
    own: Database, news: DeliveryNews, keyring: Keyring
) -> None:
    await happen(own)
    await subscribe(own, keyring)
    await happen(own, EventType.AUDIT_SEALED)
    assert not await hears(news, 0.3)
    for _ in range(3):
        await happen(own)
        assert await hears(news, 5)


async def test_it_is_told_when_the_transaction_is_committed_and_never_before(
    own: Database, news: DeliveryNews, keyring: Keyring
) -> None:
    subscription = await subscribe(own, keyring)
    await happen(own)
    assert await hears(news, 5)
    async with own.transaction() as connection:
        await connection.execute("DELETE FROM integrations.deliveries")
        await connection.execute(
            "INSERT INTO integrations.deliveries (subscription_id, event_id) SELECT %s, id FROM integrations.events",
            (subscription,),
        )
        assert not await hears(news, 0.3)
    assert await hears(news, 5)


async def test_a_connection_that_is_lost_is_followed_by_another(own: Database, news: DeliveryNews) -> None:
    killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %%'"
    await own.all(f"{killed} AND datname = current_database()")
    assert await hears(news, 30)  # it looks once when it listens again: what it missed meanwhile is found


async def test_it_knows_when_the_next_one_is_due(own: Database, keyring: Keyring) -> None:
    deliveries = Deliveries(own)
    assert await deliveries.next_due() is None
    await subscribe(own, keyring)
    await happen(own)
    [claimed] = await deliveries.claim(limit=9, each=9, lease=timedelta(seconds=30))
    lease = await deliveries.next_due()
    assert lease is not None
    assert timedelta(seconds=20) < lease <= timedelta(seconds=30)
    await deliveries.failed(claimed, "HTTP_500", again_in=timedelta(seconds=3))
    retry = await deliveries.next_due()
    assert retry is not None
    assert timedelta(0) < retry <= timedelta(seconds=3)
    [again] = await eventually(lambda: deliveries.claim(limit=9, each=9, lease=timedelta(seconds=30)))
    await deliveries.delivered(again)
    assert await deliveries.next_due() is None
