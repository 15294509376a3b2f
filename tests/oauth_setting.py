"""One OAuth definition at a real provider, and what tests do with it."""

from __future__ import annotations

from typing import Any

import httpx2

from integration_service.contracts.credentials import OAuth2Credential
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import JsonObject
from integration_service.devstack.identity import Application
from integration_service.storage.credentials import Credentials
from integration_service.storage.oauth_clients import OAuthClients
from integration_service.storage.vault.keyring import Keyring
from tests.identity import Identity
from tests.world import World


class Setting:
    """One definition at the provider, and what tests do with it."""

    def __init__(self, world: World, identity: Identity, keyring: Keyring, name: str) -> None:
        self.world, self.identity, self.keyring, self.name = world, identity, keyring, name

    async def publish(self, client: Application | None = None, **oauth2: Any) -> None:
        await self.world.publish(self.identity.definition(self.name, **oauth2))
        await self.register(client or self.identity.app)

    async def register(self, client: Application) -> None:
        record = OAuthClientRecord(client_id=client.client_id, client_secret=client.client_secret or None)
        clients = OAuthClients(self.world.database, self.keyring)
        await clients.store(scope="global", definition=self.name, client=record)

    async def instance(self) -> JsonObject:
        return await self.world.connect(self.name, config={"url": self.identity.url})

    async def authorized(self, instance: JsonObject | None = None, *, refused: bool = False, **more: Any) -> JsonObject:
        """Go through the whole flow as a person does; returns the status object."""
        instance = instance or await self.instance()
        connection = self.world.connection(instance)
        begun = await connection.authorize(more or None)
        page = await self.identity.connect(begun["authorizationUrl"])
        assert page.status_code == (502 if refused else 200), page.text
        return await connection.status()

    async def connected(self, **oauth2: Any) -> JsonObject:
        await self.publish(**oauth2)
        return await self.authorized()

    async def tokens(self, instance: JsonObject) -> OAuth2Credential:
        """What the vault holds."""
        credentials = Credentials(self.world.database, self.keyring)
        stored = await credentials.load(instance["id"])
        assert stored is not None
        opened = (await credentials.open(stored)).oauth2
        assert opened is not None
        return opened

    async def generation(self, instance: JsonObject) -> int:
        """The generation that the vault holds."""
        stored = await Credentials(self.world.database, self.keyring).load(instance["id"])
        assert stored is not None
        return stored.generation

    async def revoke_elsewhere(self, instance: JsonObject) -> None:
        """As somebody does on the provider's own page: both tokens are dead."""
        held, client = await self.tokens(instance), self.identity.app
        async with httpx2.AsyncClient(trust_env=False) as http:
            for token in (held.refresh_token, held.access_token):
                answer = await http.post(
                    f"{self.identity.url}/o/revoke_token/",
                    data={"token": token, "client_id": client.client_id, "client_secret": client.client_secret},
                )
                assert answer.status_code == 200, answer.text
