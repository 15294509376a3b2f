"""OAuth client records: a client's registration at a provider, in the vault and never back out."""

from __future__ import annotations

import json

from psycopg.errors import ForeignKeyViolation

from integration_service.contracts.names import DEFAULT_SCOPE
from integration_service.contracts.oauth import OAuthClientRecord
from integration_service.contracts.wire import parse
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

_ENVELOPE = ", ".join(ENVELOPE_COLUMNS)


class OAuthClients:
    """The OAuth clients of one database: of a definition in a scope, or of one instance alone."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def store(
        self, *, scope: str, definition: str, client: OAuthClientRecord, instance_id: str | None = None
    ) -> None:
        """Keep a client in place of the one before. Raises IntegrationError INSTANCE_NOT_FOUND."""
        plaintext = json.dumps(client.to_wire()).encode()
        envelope = await encrypt(self._provider, plaintext, _context(scope, definition, instance_id))
        try:
            await self._database.one(
                f"""INSERT INTO vault.oauth_clients (scope, definition_name, instance_id, {_ENVELOPE})
                    VALUES (%(scope)s, %(definition)s, %(instance_id)s,
                            {", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)})
                    ON CONFLICT (scope, definition_name, instance_id) DO UPDATE
                       SET updated_at = now(), {", ".join(f"{name} = excluded.{name}" for name in ENVELOPE_COLUMNS)}""",
                {"scope": scope, "definition": definition, "instance_id": instance_id, **envelope.to_row()},
            )
        except ForeignKeyViolation:
            raise not_found(instance_id or "") from None

    async def load(self, *, scope: str, definition: str, instance_id: str | None = None) -> OAuthClientRecord | None:
        """The client to use, or None: the instance's own, else its scope's, else the global one."""
        row = await self._database.one(
            f"""SELECT scope, instance_id, {_ENVELOPE} FROM vault.oauth_clients
                 WHERE definition_name = %(definition)s
                   AND (scope = %(scope)s AND instance_id = %(instance_id)s
                        OR scope IN (%(scope)s, %(global)s) AND instance_id IS NULL)
                 ORDER BY instance_id IS NULL, scope <> %(scope)s LIMIT 1""",
            {"scope": scope, "definition": definition, "instance_id": instance_id, "global": DEFAULT_SCOPE},
        )
        if row is None:
            return None
        owner = str(row["instance_id"]) if row["instance_id"] else None
        plaintext = await decrypt(self._provider, Envelope.from_row(row), _context(row["scope"], definition, owner))
        return parse(OAuthClientRecord, json.loads(plaintext), at="client")

    async def erase(self, instance_id: str) -> None:
        """Delete the client that an instance has of its own."""
        await self._database.one(
            "DELETE FROM vault.oauth_clients WHERE instance_id = %(instance_id)s", {"instance_id": instance_id}
        )


def _context(scope: str, definition: str, instance_id: str | None) -> Context:
    return Context("oauth_client", (scope, definition, *([instance_id] if instance_id else [])))
