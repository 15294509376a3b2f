"""Credentials at rest: one encrypted row an instance, bound to everything that names it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from integration_service.contracts.credentials import (
    CredentialPayload,
    IntegrationCredential,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

_SCHEMA_VERSION = 1
CREDENTIAL_COLUMNS = (
    "id",
    "instance_id",
    "scope",
    "type",
    "schema_version",
    "generation",
    "created_at",
    "updated_at",
    *ENVELOPE_COLUMNS,
)
_VALUES = ", ".join(f"%({name})s" for name in ENVELOPE_COLUMNS)


@dataclass(frozen=True)
class StoredCredential:
    """A credential row, still encrypted."""

    row: dict[str, Any]

    @property
    def generation(self) -> int:
        return int(self.row["generation"])

    @property
    def context(self) -> Context:
        """Everything that names the row; with any of it changed the secret does not open."""
        names = ("scope", "instance_id", "id", "type", "schema_version", "generation")
        return Context("credential", tuple(str(self.row[name]) for name in names))


class Credentials:
    """Writes and opens credentials."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def store(self, *, instance_id: str, scope: str, payload: CredentialPayload) -> int:
        """Encrypt and keep a credential in place of the one before; returns its generation.

        The generation is part of what the secret is bound to, so it is read first and the write is a
        compare-and-set on it. Raises IntegrationError VERSION_CONFLICT when another writer came between.
        """
        before = await self._database.one(
            "SELECT id, generation FROM vault.credentials WHERE instance_id = %(instance_id)s",
            {"instance_id": instance_id},
        )
        row: dict[str, Any] = {
            "id": str(before["id"]) if before else str(uuid.uuid4()),
            "instance_id": instance_id,
            "scope": scope,
            "type": payload.type.value,
            "schema_version": _SCHEMA_VERSION,
            "generation": before["generation"] + 1 if before else 1,
        }
        plaintext = json.dumps(payload.to_wire()).encode()
        envelope = await encrypt(self._provider, plaintext, StoredCredential(row).context)
        written = await self._database.one(
            f"""INSERT INTO vault.credentials
                       (id, instance_id, scope, type, schema_version, generation, {", ".join(ENVELOPE_COLUMNS)})
                VALUES (%(id)s, %(instance_id)s, %(scope)s, %(type)s, %(schema_version)s, %(generation)s, {_VALUES})
                ON CONFLICT (instance_id) DO UPDATE
                   SET type = excluded.type, schema_version = excluded.schema_version,
                       generation = excluded.generation, updated_at = now(), quarantined_at = NULL,
                       {", ".join(f"{name} = excluded.{name}" for name in ENVELOPE_COLUMNS)}
                 WHERE vault.credentials.generation = excluded.generation - 1
                   AND vault.credentials.id = excluded.id
                RETURNING generation""",
            {**row, **envelope.to_row()},
        )
        if written is None:
            raise IntegrationError(ErrorCode.VERSION_CONFLICT, "another writer stored a credential at the same time")
        return int(written["generation"])

    async def open(self, stored: StoredCredential) -> IntegrationCredential:
        """Decrypt a row. Raises IntegrationError INTEGRITY_ERROR (the row is then marked) or KEY_UNAVAILABLE."""
        row = stored.row
        try:
            plaintext = await decrypt(self._provider, Envelope.from_row(row), stored.context)
        except IntegrationError as error:
            if error.code == ErrorCode.INTEGRITY_ERROR:
                await self._quarantine(str(row["id"]))
            raise
        return IntegrationCredential.model_validate(
            {
                **json.loads(plaintext),
                "id": str(row["id"]),
                "integrationInstanceId": str(row["instance_id"]),
                "createdAt": row["created_at"],
                "updatedAt": row["updated_at"],
                "generation": row["generation"],
            }
        )

    async def load(self, instance_id: str) -> StoredCredential | None:
        """The row of an instance, or None."""
        row = await self._database.one(
            f"SELECT {', '.join(CREDENTIAL_COLUMNS)} FROM vault.credentials WHERE instance_id = %(id)s",
            {"id": instance_id},
        )
        return StoredCredential(dict(row)) if row else None

    async def erase(self, instance_id: str) -> None:
        """Delete an instance's credential."""
        await self._database.one("DELETE FROM vault.credentials WHERE instance_id = %(id)s", {"id": instance_id})

    async def _quarantine(self, credential_id: str) -> None:
        # Marked for the operator and kept as evidence; it is never taken for a reason to re-authorise.
        await self._database.one(
            """UPDATE vault.credentials SET quarantined_at = now()
                WHERE id = %(id)s AND quarantined_at IS NULL""",
            {"id": credential_id},
        )
