"""OAuth client records: `clientId` and `clientSecret` of a definition, in the vault and never back out."""

from __future__ import annotations

import json

from integration_service.contracts.wire import JsonObject
from integration_service.storage.database import Database
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

_ENVELOPE = ", ".join(ENVELOPE_COLUMNS)


class OAuthClients:
    """The OAuth clients of one database, keyed (scope, definition name)."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def store(self, *, scope: str, definition: str, client: JsonObject) -> None:
        """Keep a client in place of the one before. `client` has `clientId` and maybe `clientSecret`."""
        envelope = await encrypt(self._provider, json.dumps(client).encode(), _context(scope, definition))
        await self._database.one(
            f"""INSERT INTO vault.oauth_clients (scope, definition_name, {_ENVELOPE})
                VALUES (%(scope)s, %(definition)s, {", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)})
                ON CONFLICT (scope, definition_name) DO UPDATE
                   SET updated_at = now(), {", ".join(f"{name} = excluded.{name}" for name in ENVELOPE_COLUMNS)}""",
            {"scope": scope, "definition": definition, **envelope.to_row()},
        )

    async def load(self, *, scope: str, definition: str) -> JsonObject | None:
        """The client, decrypted, or None."""
        row = await self._database.one(
            f"""SELECT {_ENVELOPE} FROM vault.oauth_clients
                 WHERE scope = %(scope)s AND definition_name = %(definition)s""",
            {"scope": scope, "definition": definition},
        )
        if row is None:
            return None
        plaintext = await decrypt(self._provider, Envelope.from_row(row), _context(scope, definition))
        client: JsonObject = json.loads(plaintext)
        return client


def _context(scope: str, definition: str) -> Context:
    return Context("oauth_client", (scope, definition))
