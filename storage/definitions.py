"""Where definitions are kept: unique by (scope, name, version), immutable once published."""

from __future__ import annotations

import json
import uuid
from typing import Any

from integration_service.contracts.definitions import (
    DefinitionFile,
    IntegrationDefinition,
    IntegrationDefinitionStatus,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import DEFAULT_SCOPE, is_prerelease, semver_key
from integration_service.storage.database import Connection, Database

_COLUMNS = "id, scope, name, version, status, content, created_at, updated_at, published_at"
_Status = IntegrationDefinitionStatus


class Definitions:
    """The definitions of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Published content never changes, so it is read once. Status does change and is never taken from here.
        self._immutable: dict[str, IntegrationDefinition] = {}

    async def apply(self, file: DefinitionFile, *, publish: bool = False) -> IntegrationDefinition:
        """Store a definition as DRAFT, or publish it too; the same content again changes nothing.

        Raises IntegrationError VERSION_CONFLICT for other content under a version that was published once.
        """
        async with self._database.transaction() as connection:
            # One writer a name: two that apply the same new version at once must not both insert.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{file.scope}/{file.name}",)
            )
            stored = await self._stored(connection, file.scope, file.name, file.version)
            if stored is None:
                stored = await _write(connection, _INSERT, file, id=str(uuid.uuid4()))
            elif stored.content() != file.content():
                if stored.status is not _Status.DRAFT:
                    raise IntegrationError(
                        ErrorCode.VERSION_CONFLICT,
                        f"{file.name} {file.version} is {stored.status} with other content; "
                        "give the change a new version",
                        path="version",
                    )
                stored = await _write(connection, _REPLACE, file, id=stored.id)
            if publish and stored.status is not _Status.PUBLISHED:
                stored = await self._move(connection, stored, _Status.PUBLISHED)
            return stored

    async def move(
        self, scope: str, name: str, version: str | None, to: IntegrationDefinitionStatus
    ) -> IntegrationDefinition:
        """Take a definition one step on in its life; without a version, the only one that can take it.

        Raises IntegrationError for a step that the lifecycle has not, or ARCHIVED while instances use it.
        """
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{scope}/{name}",))
            stored = (
                await self._stored(connection, scope, name, version)
                if version
                else await self._only_candidate(connection, scope, name, to)
            )
            if stored is None:
                raise not_found(name, version)
            return await self._move(connection, stored, to)

    async def _only_candidate(
        self, connection: Connection, scope: str, name: str, to: IntegrationDefinitionStatus
    ) -> IntegrationDefinition | None:
        cursor = await connection.execute(
            f"SELECT {_COLUMNS} FROM integrations.definitions WHERE scope = %s AND name = %s", (scope, name)
        )
        every = [_definition(row) for row in await cursor.fetchall()]
        fitting = [one for one in every if one.status.may_become(to)]
        if len(fitting) > 1:
            versions = ", ".join(sorted((one.version for one in fitting), key=semver_key))
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, f"say which version of {name}: {versions}", path="version"
            )
        return next(iter(fitting or every), None)

    async def _move(
        self, connection: Connection, stored: IntegrationDefinition, to: IntegrationDefinitionStatus
    ) -> IntegrationDefinition:
        if stored.status is to:
            return stored
        if not stored.status.may_become(to):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"{stored.name} {stored.version} is {stored.status} and cannot become {to}",
                path="status",
            )
        if to is _Status.ARCHIVED:
            # Whoever adds an instance holds a key-share lock on the definition: wait for it, then count.
            await connection.execute("SELECT 1 FROM integrations.definitions WHERE id = %s FOR UPDATE", (stored.id,))
            cursor = await connection.execute(
                "SELECT count(*) AS used FROM integrations.instances WHERE definition_id = %s", (stored.id,)
            )
            row = await cursor.fetchone()
            if row and row["used"]:
                raise IntegrationError(
                    ErrorCode.VALIDATION_ERROR,
                    f"{row['used']} instance(s) use {stored.name} {stored.version}",
                    path="status",
                )
        cursor = await connection.execute(
            f"""UPDATE integrations.definitions
                   SET status = %(to)s, revision = revision + 1, updated_at = now(),
                       published_at = CASE WHEN %(to)s = 'PUBLISHED' THEN now() ELSE published_at END
                 WHERE id = %(id)s RETURNING {_COLUMNS}""",
            {"to": to.value, "id": stored.id},
        )
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - we hold the name's lock
        return _definition(row)

    async def get(self, definition_id: str) -> IntegrationDefinition:
        """A definition that was published once, by id; its content comes from memory after the first time."""
        known = self._immutable.get(definition_id)
        if known is not None:
            return known
        row = await self._database.one(
            f"SELECT {_COLUMNS} FROM integrations.definitions WHERE id = %(id)s", {"id": definition_id}
        )
        if row is None:
            raise not_found(definition_id, None)
        definition = _definition(row)
        if definition.status is not _Status.DRAFT:
            self._immutable[definition_id] = definition
        return definition

    async def find(self, scope: str, name: str, version: str | None = None) -> IntegrationDefinition | None:
        """As `list` would show it: the exact version, or the newest of any status. This scope only."""
        every = await self.list(scope=scope, name=name)
        fitting = [one for one in every if version in (None, one.version)]
        return max(fitting, key=lambda one: semver_key(one.version), default=None)

    async def connectable(self, scope: str, name: str, version: str | None = None) -> IntegrationDefinition:
        """The definition that a new instance is pinned to: its own scope's first, then the global one.

        Without a version, the highest PUBLISHED one that is no pre-release. Raises IntegrationError
        DEFINITION_NOT_FOUND or DEFINITION_NOT_PUBLISHED.
        """
        for place in dict.fromkeys((scope, DEFAULT_SCOPE)):
            every = [one for one in await self.list(scope=place, name=name) if version in (None, one.version)]
            published = [one for one in every if one.status is _Status.PUBLISHED]
            choice = [one for one in published if version or not is_prerelease(one.version)]
            if choice:
                return max(choice, key=lambda one: semver_key(one.version))
            if every:
                raise IntegrationError(
                    ErrorCode.DEFINITION_NOT_PUBLISHED,
                    f"{name} {version} is {every[0].status}"
                    if version
                    else f"no version of {name} is PUBLISHED, pre-releases aside",
                    path="definition",
                )
        raise not_found(name, version)

    async def list(self, *, scope: str | None = None, name: str | None = None) -> list[IntegrationDefinition]:
        """Every definition, by scope, name and version."""
        rows = await self._database.all(
            f"""SELECT {_COLUMNS} FROM integrations.definitions
                 WHERE (%(scope)s::text IS NULL OR scope = %(scope)s)
                   AND (%(name)s::text IS NULL OR name = %(name)s)""",
            {"scope": scope, "name": name},
        )
        return sorted(
            (_definition(row) for row in rows),
            key=lambda one: (one.scope, one.name, semver_key(one.version)),
        )

    async def _stored(
        self, connection: Connection, scope: str, name: str, version: str
    ) -> IntegrationDefinition | None:
        cursor = await connection.execute(
            f"""SELECT {_COLUMNS} FROM integrations.definitions
                 WHERE scope = %s AND name = %s AND version = %s""",
            (scope, name, version),
        )
        row = await cursor.fetchone()
        return _definition(row) if row else None


def not_found(name: str, version: str | None) -> IntegrationError:
    """DEFINITION_NOT_FOUND for `name`."""
    return IntegrationError(
        ErrorCode.DEFINITION_NOT_FOUND,
        f"no definition {name}" + (f" {version}" if version else ""),
        path="definition",
    )


_INSERT = f"""INSERT INTO integrations.definitions (id, scope, name, version, status, content)
              VALUES (%(id)s, %(scope)s, %(name)s, %(version)s, 'DRAFT', %(content)s) RETURNING {_COLUMNS}"""
_REPLACE = f"""UPDATE integrations.definitions
                  SET content = %(content)s, revision = revision + 1, updated_at = now()
                WHERE id = %(id)s RETURNING {_COLUMNS}"""


async def _write(
    connection: Connection,
    statement: str,
    file: DefinitionFile,
    *,
    id: str,  # noqa: A002 - the column
) -> IntegrationDefinition:
    content = {key: value for key, value in file.content().items() if key not in _OWN_COLUMNS}
    cursor = await connection.execute(
        statement.encode(),
        {
            "id": id,
            "scope": file.scope,
            "name": file.name,
            "version": file.version,
            "content": json.dumps(content),
        },
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - RETURNING of a row we locked
    return _definition(row)


_OWN_COLUMNS = ("scope", "name", "version")


def _definition(row: dict[str, Any]) -> IntegrationDefinition:
    return IntegrationDefinition.model_validate(
        {
            **row["content"],
            "id": str(row["id"]),
            "scope": row["scope"],
            "name": row["name"],
            "version": row["version"],
            "status": row["status"],
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
            "publishedAt": row["published_at"],
        }
    )
