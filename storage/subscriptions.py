"""Subscriptions: who is told of what, and the secrets that webhooks are signed with, in the vault."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.events import (
    NewSubscription,
    Subscription,
    WebhookTarget,
    WorkflowTarget,
    like_pattern,
)
from integration_service.storage.database import Connection, Database
from integration_service.storage.vault.envelope import ENVELOPE_COLUMNS, Context, Envelope, decrypt, encrypt
from integration_service.storage.vault.keyring import KeyProvider

SUBSCRIPTION_COLUMNS = (
    "id",
    "scope",
    "all_scopes",
    "webhook_url",
    "workflow_id",
    "signal_name",
    "event_types",
    "definition",
    "instance_id",
    "enabled",
    "disabled_reason",
    "created_at",
)
_COLUMNS = ", ".join(SUBSCRIPTION_COLUMNS)


class Subscriptions:
    """The subscriptions of one database."""

    def __init__(self, database: Database, provider: KeyProvider) -> None:
        self._database = database
        self._provider = provider

    async def add(self, wanted: NewSubscription, *, secret: str | None = None) -> Subscription:
        """Keep a subscription; a webhook's needs the secret (``whsec_…``) that it is signed with.

        It hears what happens from now on. Raises IntegrationError VALIDATION_ERROR without one, or with one for a
        workflow.
        """
        if (wanted.webhook is None) != (secret is None):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "a webhook has a signing secret, and nothing else has", path="secret"
            )
        subscription_id = str(uuid.uuid4())
        values = {
            "id": subscription_id,
            "scope": wanted.scope,
            "all_scopes": wanted.all_scopes,
            "webhook_url": wanted.webhook.url if wanted.webhook else None,
            "workflow_id": wanted.workflow.workflow_id if wanted.workflow else None,
            "signal_name": wanted.workflow.signal_name if wanted.workflow else None,
            "event_types": wanted.event_types,
            "type_patterns": [like_pattern(pattern) for pattern in wanted.event_types],
            "definition": wanted.definition,
            "instance_id": wanted.instance_id,
        }
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                f"""INSERT INTO integrations.subscriptions ({", ".join(values)})
                    VALUES ({", ".join(f"%({name})s" for name in values)}) RETURNING {_COLUMNS}""".encode(),
                values,
            )
            row = await cursor.fetchone()
            if secret is not None:
                await self._keep(connection, wanted.scope, subscription_id, secret)
        if row is None:
            raise _not_found(subscription_id)
        return _subscription(row)

    async def get(self, subscription_id: str) -> Subscription:
        """Raises IntegrationError VALIDATION_ERROR where there is none."""
        row = await self._database.one(
            f"SELECT {_COLUMNS} FROM integrations.subscriptions WHERE id = %(id)s", {"id": subscription_id}
        )
        if row is None:
            raise _not_found(subscription_id)
        return _subscription(row)

    async def list(self, *, scope: str | None = None) -> list[Subscription]:
        """Every subscription, the oldest first."""
        rows = await self._database.all(
            f"""SELECT {_COLUMNS} FROM integrations.subscriptions
                 WHERE %(scope)s::text IS NULL OR scope = %(scope)s ORDER BY created_at, id""",
            {"scope": scope},
        )
        return [_subscription(row) for row in rows]

    async def remove(self, subscription_id: str) -> None:
        """Forget a subscription, its secrets and what is still owed to it. Raises IntegrationError."""
        async with self._database.transaction() as connection:
            gone = await connection.execute(
                b"DELETE FROM integrations.subscriptions WHERE id = %s RETURNING id", (subscription_id,)
            )
            if await gone.fetchone() is None:
                raise _not_found(subscription_id)
            await connection.execute(
                b"DELETE FROM integrations.deliveries WHERE subscription_id = %s", (subscription_id,)
            )

    async def enable(self, subscription_id: str) -> Subscription:
        """Hear events again. What was missed meanwhile comes by a replay. Raises IntegrationError."""
        row = await self._database.one(
            f"""UPDATE integrations.subscriptions SET enabled = true, disabled_reason = NULL
                 WHERE id = %(id)s RETURNING {_COLUMNS}""",
            {"id": subscription_id},
        )
        if row is None:
            raise _not_found(subscription_id)
        return _subscription(row)

    async def rotate(self, subscription_id: str, secret: str, *, keep_old_for: timedelta) -> None:
        """Sign with a new secret, and for a while with the old ones too. Raises IntegrationError."""
        found = await self.get(subscription_id)
        if found.webhook is None:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "a workflow's has no secret", path="subscription")
        async with self._database.transaction() as connection:
            await connection.execute(
                b"""UPDATE vault.subscription_secrets
                       SET expires_at = least(expires_at, now() + %(keep)s)
                     WHERE subscription_id = %(id)s""",
                {"id": subscription_id, "keep": keep_old_for},
            )
            await connection.execute(
                b"DELETE FROM vault.subscription_secrets WHERE subscription_id = %s AND expires_at <= now()",
                (subscription_id,),
            )
            await self._keep(connection, found.scope, subscription_id, secret)

    async def secrets(self, subscription_id: str) -> tuple[str, ...]:
        """The secrets to sign with, the newest first. Raises IntegrationError INTEGRITY_ERROR or KEY_UNAVAILABLE."""
        rows = await self._database.all(
            f"""SELECT k.id, s.scope, {", ".join(f"k.{name}" for name in ENVELOPE_COLUMNS)}
                  FROM vault.subscription_secrets k JOIN integrations.subscriptions s ON s.id = k.subscription_id
                 WHERE k.subscription_id = %(id)s AND (k.expires_at IS NULL OR k.expires_at > now())
                 ORDER BY k.created_at DESC""",
            {"id": subscription_id},
        )
        found = []
        for row in rows:
            context = _context(row["scope"], subscription_id, str(row["id"]))
            found.append((await decrypt(self._provider, Envelope.from_row(row), context)).decode())
        return tuple(found)

    async def _keep(self, connection: Connection, scope: str, subscription_id: str, secret: str) -> None:
        secret_id = str(uuid.uuid4())
        envelope = await encrypt(self._provider, secret.encode(), _context(scope, subscription_id, secret_id))
        values = {"id": secret_id, "subscription_id": subscription_id, **envelope.to_row()}
        await connection.execute(
            f"""INSERT INTO vault.subscription_secrets ({", ".join(values)})
                VALUES ({", ".join(f"%({name})s" for name in values)})""".encode(),
            values,
        )


def _context(scope: str, subscription_id: str, secret_id: str) -> Context:
    return Context("subscription_secret", (scope, subscription_id, secret_id))


def _not_found(subscription_id: str) -> IntegrationError:
    return IntegrationError(ErrorCode.VALIDATION_ERROR, f"no subscription {subscription_id}", path="subscription")


def _subscription(row: dict[str, Any]) -> Subscription:
    return Subscription(
        id=str(row["id"]),
        scope=row["scope"],
        all_scopes=row["all_scopes"],
        webhook=WebhookTarget(url=row["webhook_url"]) if row["webhook_url"] else None,
        workflow=WorkflowTarget(workflow_id=row["workflow_id"], signal_name=row["signal_name"])
        if row["workflow_id"]
        else None,
        event_types=row["event_types"],
        definition=row["definition"],
        instance_id=str(row["instance_id"]) if row["instance_id"] else None,
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        created_at=row["created_at"],
    )
