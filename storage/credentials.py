"""Credentials at rest: one encrypted row an instance, bound to everything that names it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Rollback

from integration_service.contracts.credentials import (
    CredentialPayload,
    IntegrationCredential,
)
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import refreshed_draft
from integration_service.storage.claim import OUTDATE_SUBMISSIONS, Claim, use_up
from integration_service.storage.database import Database
from integration_service.storage.outbox import drafts_parameter, ordered_events
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
    "epoch",
    "created_at",
    "updated_at",
    "expires_at",
    "granted_scope",
    "renewable",
    *ENVELOPE_COLUMNS,
)
_WRITTEN = ("type", "schema_version", "generation", "expires_at", "granted_scope", "renewable", *ENVELOPE_COLUMNS)
# Whether nothing was given or erased since the submission began; locked against what begins at this moment.
_FENCE = """
SELECT FROM integrations.instances
 WHERE id = %(instance_id)s AND submitted_at = coalesce(%(submission)s, submitted_at) FOR SHARE
"""
# Both are the compare of a compare-and-set: no row where there was none, or the row that was there, unchanged.
_INSERT = f"""
INSERT INTO vault.credentials (id, instance_id, scope, epoch, {", ".join(_WRITTEN)})
SELECT %(id)s, id, %(scope)s, %(generation)s, {", ".join(f"%({name})s" for name in _WRITTEN)}
  FROM integrations.instances
 WHERE id = %(instance_id)s AND erased_generation = %(generation)s - 1
   AND submitted_at = coalesce(%(submission)s, submitted_at) FOR SHARE
ON CONFLICT (instance_id) DO NOTHING
RETURNING generation
"""
_UPDATE = f"""
UPDATE vault.credentials
   SET {", ".join(f"{name} = %({name})s" for name in _WRITTEN)}, updated_at = now(), quarantined_at = NULL,
       epoch = CASE WHEN %(renewal)s THEN epoch ELSE %(generation)s END
 WHERE instance_id = %(instance_id)s AND id = %(id)s AND generation = %(generation)s - 1
   AND (%(submission)s::timestamptz IS NULL OR EXISTS (SELECT FROM fence))
RETURNING generation
"""


@dataclass(frozen=True)
class StoredCredential:
    """A credential row, still encrypted. What stands in clear beside the secret is not bound to it."""

    row: dict[str, Any]

    @property
    def generation(self) -> int:
        return int(self.row["generation"])

    @property
    def epoch(self) -> int:
        """The generation at which somebody gave the credential: it stays while tokens are only renewed."""
        return int(self.row["epoch"])

    @property
    def expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.row["expires_at"]
        return expires_at

    @property
    def granted_scope(self) -> str | None:
        granted: str | None = self.row["granted_scope"]
        return granted

    @property
    def renewable(self) -> bool:
        """Whether there is something to refresh with."""
        return bool(self.row["renewable"])

    @property
    def obtained_at(self) -> datetime:
        obtained_at: datetime = self.row["updated_at"]
        return obtained_at

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

    async def store(
        self,
        *,
        instance_id: str,
        scope: str,
        payload: CredentialPayload,
        expected: int | None = None,
        renewable: bool = False,
        renewal: bool = False,
        claim: Claim | None = None,
        submission: datetime | None = None,
    ) -> int:
        """Encrypt and keep a credential in place of the one before; returns its generation.

        The generation is part of what the secret is bound to, so it is read first and the write is a
        compare-and-set on it. `expected` is the generation that must still be the current one, 0 for none. The
        write ends the token request that was under way. `renewal` says that nobody gave anything new: the epoch
        stays, and an event tells of it. With `claim` it uses up that authorization, or fails. With
        `submission`, of `begin_submission`, it is refused once a newer one has begun. Raises IntegrationError
        VERSION_CONFLICT with both generations when another writer came between, INSTANCE_NOT_FOUND, or VALIDATION_ERROR
        (path ``sealed``, or what `use_up` raises).
        """
        before = await self._standing(instance_id)
        current = before["generation"] or 0
        if expected is not None and expected != current:
            raise _conflict(expected, current)
        row: dict[str, Any] = {
            "id": str(before["id"] or uuid.uuid4()),
            "instance_id": instance_id,
            "scope": scope,
            "type": payload.type.value,
            "schema_version": _SCHEMA_VERSION,
            "generation": (current or before["erased_generation"]) + 1,
        }
        plaintext = json.dumps(payload.to_wire()).encode()
        envelope = await encrypt(self._provider, plaintext, StoredCredential(row).context)
        statement = f"""WITH fence AS MATERIALIZED ({_FENCE}),
                     written AS ({_UPDATE if current else _INSERT}),
                     ended AS (DELETE FROM integrations.refresh_intents
                                WHERE instance_id = %(instance_id)s AND EXISTS (SELECT FROM written)),
                     renewed AS (
                         SELECT i.id AS instance_id, i.scope, d.name AS definition
                           FROM written
                           JOIN integrations.instances i ON i.id = %(instance_id)s
                           JOIN integrations.definitions d ON d.id = i.definition_id),
                     {ordered_events("renewed")}
                SELECT generation FROM written"""
        clear = _in_clear(payload)
        events = [refreshed_draft(clear["expires_at"], row["generation"])] if renewal else []
        values = {
            **row,
            **clear,
            **envelope.to_row(),
            "renewable": renewable,
            "renewal": renewal,
            "events": drafts_parameter(events),
            "submission": submission,
        }
        if claim is None:
            written = await self._database.one(statement, values)
        else:
            async with self._database.transaction() as connection:
                await use_up(connection, claim, instance_id)
                written = await (await connection.execute(statement.encode(), values)).fetchone()
                if written is None:
                    raise Rollback  # the authorization is not used up by a write that lost
        if written is None:
            now = await self._standing(instance_id)
            if submission not in (None, now["submitted_at"]):
                raise _superseded()
            raise _conflict(current, now["generation"] or 0)
        return int(written["generation"])

    async def begin_submission(self, instance_id: str, *, at: datetime) -> None:
        """Somebody gives a credential, which may take a while to be stored: what was given before is not stored any
        more. `at` names it for `store`: when Temporal scheduled the attempt, so that one that is late is told apart.

        Raises IntegrationError INSTANCE_NOT_FOUND, or VALIDATION_ERROR (path ``sealed``) when a newer one has begun.
        """
        row = await self._database.one(
            """UPDATE integrations.instances SET submitted_at = greatest(submitted_at, %(at)s)
                WHERE id = %(instance_id)s RETURNING submitted_at""",
            {"instance_id": instance_id, "at": at},
        )
        if row is None:
            raise _not_found(instance_id)
        if row["submitted_at"] != at:
            raise _superseded()

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

    async def erase(self, instance_id: str, *, at: datetime | None = None) -> None:
        """Delete an instance's credential. The next one's generation counts on from it.

        What was submitted before, and before `at` (as in `begin_submission`), is not stored any more.
        """
        values = {"id": instance_id, "at": at}
        async with self._database.transaction() as connection:
            # The instance first, as `store` does.
            await connection.execute(OUTDATE_SUBMISSIONS, values)
            await connection.execute(
                b"""WITH gone AS (
                        DELETE FROM vault.credentials WHERE instance_id = %(id)s RETURNING instance_id, generation)
                    UPDATE integrations.instances SET erased_generation = gone.generation
                      FROM gone WHERE id = gone.instance_id""",
                values,
            )

    async def _standing(self, instance_id: str) -> dict[str, Any]:
        row = await self._database.one(
            """SELECT i.erased_generation, i.submitted_at, c.id, c.generation
                 FROM integrations.instances i LEFT JOIN vault.credentials c ON c.instance_id = i.id
                WHERE i.id = %(instance_id)s""",
            {"instance_id": instance_id},
        )
        if row is None:
            raise _not_found(instance_id)
        return dict(row)

    async def _quarantine(self, credential_id: str) -> None:
        # Marked for the operator and kept as evidence; it is never taken for a reason to re-authorise.
        await self._database.one(
            """UPDATE vault.credentials SET quarantined_at = now()
                WHERE id = %(id)s AND quarantined_at IS NULL""",
            {"id": credential_id},
        )


def _in_clear(payload: CredentialPayload) -> dict[str, Any]:
    granted = payload.oauth2.scope if payload.oauth2 else None
    token = payload.oauth2 or payload.jwt
    return {
        "expires_at": token.expires_at if token else None,
        # A column cannot hold NUL, and no token is lost for that.
        "granted_scope": granted.replace("\x00", "") if granted is not None else None,
    }


def _not_found(instance_id: str) -> IntegrationError:
    return IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, f"no instance {instance_id}", path="instanceId")


def _superseded() -> IntegrationError:
    return IntegrationError(
        ErrorCode.VALIDATION_ERROR,
        "newer credentials were given, or these were given up, while they were on their way",
        path="sealed",
    )


def _conflict(expected: int, current: int) -> IntegrationError:
    return IntegrationError(
        ErrorCode.VERSION_CONFLICT,
        f"the credential is at generation {current}, this write was made from {expected}",
        details={"expected": expected, "current": current},
    )
