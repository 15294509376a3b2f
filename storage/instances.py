"""Where instances are kept. `ConnectInstance` is the only writer; the version column catches any other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from psycopg.errors import UniqueViolation

from integration_service.contracts.definitions import IntegrationDefinition
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import EventDraft, EventType, status_events
from integration_service.contracts.instances import (
    ConnectInstanceInput,
    InstanceError,
    IntegrationInstance,
    IntegrationInstanceStatus,
)
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.wire import JsonObject
from integration_service.storage.credentials import CREDENTIAL_COLUMNS, StoredCredential
from integration_service.storage.database import Database
from integration_service.storage.outbox import drafts_parameter, ordered_events
from integration_service.storage.upstream_health import HEALTH_COLUMNS, HEALTH_JOIN, UpstreamHealth

_SELECT = """
SELECT i.id, i.definition_id, i.name, i.config, i.status, i.error, i.created_at, i.updated_at, u.last_used_at,
       i.last_connected_at, i.scope, i.version, d.name AS definition, d.version AS definition_version,
       d.content ->> 'authType' AS auth_type
  FROM {source} i
  JOIN integrations.definitions d ON d.id = i.definition_id
  LEFT JOIN integrations.instance_usage u ON u.instance_id = i.id
"""
_READ = _SELECT.format(source="integrations.instances")
_DELETED = EventDraft(EventType.DISCONNECTED, {"reason": "DELETED"})
_IDS = ("id", "instance_id")
_CREDENTIAL_NAMES = tuple((name, f"credential_{name}") for name in CREDENTIAL_COLUMNS)
# Ids as text: psycopg makes a UUID of each, and for a call that is only to be made into text again.
_CREDENTIAL = ", ".join(f"c.{name}{'::text' if name in _IDS else ''} AS {column}" for name, column in _CREDENTIAL_NAMES)
_OF_A_CALL = f"""
SELECT i.id::text, i.scope, i.name, i.definition_id::text, i.config, i.status, i.error, {_CREDENTIAL},
       coalesce(r.sends, 0) AS refresh_sends, {HEALTH_COLUMNS}
  FROM integrations.instances i
  LEFT JOIN vault.credentials c ON c.instance_id = i.id
  LEFT JOIN integrations.refresh_intents r ON r.instance_id = i.id AND r.generation = c.generation
  {HEALTH_JOIN}
 WHERE i.scope = %(scope)s AND i.{{key}} = %(reference)s
"""
_FOR_CALL = {key: _OF_A_CALL.format(key=key) for key in ("id", "name")}


@dataclass(frozen=True)
class InstanceForCall:
    """What a call needs of its instance, in one round trip; the definition's content is fetched apart."""

    id: str
    scope: str
    name: str
    definition_id: str
    config: JsonObject
    status: IntegrationInstanceStatus
    error: InstanceError | None
    credential: StoredCredential | None
    refresh_sends: int
    """How many token requests left to replace the credential's current generation."""
    health: UpstreamHealth


class Instances:
    """The instances of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, wanted: ConnectInstanceInput, definition: IntegrationDefinition) -> IntegrationInstance:
        """Insert an instance, PENDING_CONFIGURATION, or adopt the row that is there already.

        Raises IntegrationError VALIDATION_ERROR when another instance of the scope has the name, or when the
        row is of another scope.
        """
        try:
            await self._database.one(
                """INSERT INTO integrations.instances (id, scope, name, definition_id, config, status)
                   SELECT %(id)s, %(scope)s, %(name)s, id, %(config)s, 'PENDING_CONFIGURATION'
                     FROM integrations.definitions
                    WHERE id = %(definition_id)s AND status = 'PUBLISHED' FOR KEY SHARE
                   ON CONFLICT (id) DO NOTHING""",
                {
                    "id": wanted.instance_id,
                    "scope": wanted.scope,
                    "name": wanted.name,
                    "definition_id": definition.id,
                    "config": json.dumps(wanted.config or {}),
                },
            )
        except UniqueViolation:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "another instance of this scope has the name", path="name"
            ) from None
        if not await self.exists(wanted.instance_id):
            raise IntegrationError(
                ErrorCode.DEFINITION_NOT_PUBLISHED, f"{definition.name} is no longer PUBLISHED", path="definition"
            )
        stored = await self.get(wanted.instance_id)
        if stored.scope != wanted.scope:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the instance belongs to another scope", path="scope")
        return stored

    async def exists(self, instance_id: str) -> bool:
        row = await self._database.one(
            "SELECT 1 AS found FROM integrations.instances WHERE id = %(id)s", {"id": instance_id}
        )
        return row is not None

    async def get(self, instance_id: str) -> IntegrationInstance:
        """An instance by id. Raises IntegrationError INSTANCE_NOT_FOUND."""
        row = await self._database.one(f"{_READ} WHERE i.id = %(id)s", {"id": instance_id})
        if row is None:
            raise not_found(instance_id)
        return _instance(row)

    async def find(self, scope: str, reference: str) -> IntegrationInstance:
        """An instance of a scope by id or name. Raises IntegrationError INSTANCE_NOT_FOUND."""
        row = await self._database.one(
            f"{_READ} WHERE i.scope = %(scope)s AND i.{_key(reference)} = %(reference)s",
            {"scope": scope, "reference": reference},
        )
        if row is None:
            raise not_found(reference)
        return _instance(row)

    async def list(self, *, scope: str | None = None) -> list[IntegrationInstance]:
        """Every instance, by scope and name."""
        rows = await self._database.all(
            f"""{_READ} WHERE %(scope)s::text IS NULL OR i.scope = %(scope)s
                ORDER BY i.scope, i.name""",
            {"scope": scope},
        )
        return [_instance(row) for row in rows]

    async def for_call(self, scope: str, reference: str, *, method: str | None = None) -> InstanceForCall:
        """What a call needs, credential still encrypted; with `method`, how its upstream fares.

        Raises IntegrationError INSTANCE_NOT_FOUND.
        """
        row = await self._database.one(
            _FOR_CALL[_key(reference)],
            {"scope": scope, "reference": reference, "method": method},
        )
        if row is None:
            raise not_found(reference)
        credential = {name: row[column] for name, column in _CREDENTIAL_NAMES}
        return InstanceForCall(
            id=row["id"],
            scope=row["scope"],
            name=row["name"],
            definition_id=row["definition_id"],
            config=row["config"],
            status=IntegrationInstanceStatus(row["status"]),
            error=InstanceError.model_validate(row["error"]) if row["error"] else None,
            credential=StoredCredential(credential) if credential["id"] is not None else None,
            refresh_sends=row["refresh_sends"],
            health=UpstreamHealth.read(row),
        )

    async def update(
        self,
        instance: IntegrationInstance,
        *,
        status: IntegrationInstanceStatus,
        error: InstanceError | None,
        config: JsonObject,
        definition_id: str,
    ) -> IntegrationInstance:
        """Write what changed, if the row still has the version that `instance` was read with.

        CONNECTED stamps `lastConnectedAt` when it is entered. The same statement writes the events of a changed
        status: the row's version vouches for the status before. Raises IntegrationError VERSION_CONFLICT with both
        versions, or INSTANCE_NOT_FOUND.
        """
        events = status_events(instance.status, status, error=error, error_before=instance.error)
        row = await self._database.one(
            f"""WITH written AS (
                  UPDATE integrations.instances
                     SET status = %(status)s, error = %(error)s, config = %(config)s,
                         definition_id = %(definition_id)s, version = version + 1, updated_at = now(),
                         last_connected_at = CASE WHEN %(status)s = 'CONNECTED' AND status <> 'CONNECTED'
                                                  THEN now() ELSE last_connected_at END
                   WHERE id = %(id)s AND version = %(version)s
               RETURNING *),
               changed AS (
                  SELECT w.id AS instance_id, w.scope, d.name AS definition
                    FROM written w JOIN integrations.definitions d ON d.id = w.definition_id),
               {ordered_events("changed")}
               {_SELECT.format(source="written")}""",
            {
                "events": drafts_parameter(events),
                "id": instance.id,
                "version": instance.version,
                "status": status.value,
                "error": json.dumps(error.to_wire()) if error else None,
                "config": json.dumps(config),
                "definition_id": definition_id,
            },
        )
        if row is not None:
            return _instance(row)
        current = await self.get(instance.id)
        raise IntegrationError(
            ErrorCode.VERSION_CONFLICT,
            f"the instance is at version {current.version}, this write was made from {instance.version}",
            path="version",
            details={"expected": instance.version, "current": current.version},
        )

    async def delete(self, instance_id: str) -> None:
        """Erase an instance with all that hangs on it; the name is free again, audit rows and events stay."""
        async with self._database.transaction() as connection:
            await connection.execute(b"DELETE FROM vault.credentials WHERE instance_id = %s", (instance_id,))
            await connection.execute(
                f"""WITH gone AS (DELETE FROM integrations.instances WHERE id = %(id)s RETURNING *),
                    ended AS (
                        SELECT g.id AS instance_id, g.scope, d.name AS definition
                          FROM gone g JOIN integrations.definitions d ON d.id = g.definition_id
                         WHERE g.status <> 'DISCONNECTED' AND g.last_connected_at IS NOT NULL),
                    {ordered_events("ended")}
                    SELECT 1""".encode(),
                {"id": instance_id, "events": drafts_parameter([_DELETED])},
            )


def not_found(reference: str) -> IntegrationError:
    """INSTANCE_NOT_FOUND for an id or a name."""
    return IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, f"no instance {reference}", path="instanceId")


def _key(reference: str) -> str:
    return "id" if is_canonical_uuid(reference) else "name"


def _instance(row: dict[str, Any]) -> IntegrationInstance:
    return IntegrationInstance.model_validate(
        {
            **{name: value for name, value in row.items() if name != "definition_id"},
            "id": str(row["id"]),
            "integration_definition_id": str(row["definition_id"]),
        }
    )
