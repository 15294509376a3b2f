"""Hears that deliveries were queued, so that whoever delivers need not ask all the time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from integration_service.contracts.errors import IntegrationError
from integration_service.storage.database import Database

_AGAIN_AFTER = timedelta(seconds=5)


class DeliveryNews:
    """The news of one database, for one listener. Some may be lost: behind a pooler that lends a connection for a
    transaction none is heard, and none while the database is away. So it spares asking, and replaces it never."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard = asyncio.Event()

    async def listen(self) -> None:
        """Until it is cancelled. It holds a connection of its own."""
        while True:
            try:
                await self._hear()
            except IntegrationError:
                await asyncio.sleep(_AGAIN_AFTER.total_seconds())

    async def wait(self) -> None:
        """Returns once deliveries were queued since it returned last; whoever looks afterwards finds them."""
        await self._heard.wait()
        self._heard.clear()

    async def _hear(self) -> None:
        async with self._database.connection() as connection:
            try:
                await connection.execute(b"LISTEN integrations_deliveries")
                self._heard.set()  # what was queued before that was told to nobody
                async for _ in connection.notifies():
                    self._heard.set()
            finally:
                await connection.close()  # nobody else gets one that listens
