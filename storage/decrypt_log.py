"""The log of decrypts: who opened which secret, under which key, and why. Never the secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from integration_service.storage.database import Database
from integration_service.storage.vault.openings import Opening

_Named = dict[str, Any]
_COLUMNS = {
    "kind": "text",
    "scope": "text",
    "instance_id": "uuid",
    "subject": "text",
    "generation": "bigint",
    "key_id": "text",
    "key_version": "integer",
    "reason": "text",
    "worker": "text",
    "activity_type": "text",
    "activity_id": "text",
    "attempt": "integer",
    "workflow_id": "text",
    "run_id": "text",
}
# What each kind's `Context.parts` are: they name the row that was opened.
_NAMES: dict[str, Callable[..., _Named]] = {
    "credential": lambda scope, instance, id_, _type, _version, generation: {
        "scope": scope,
        "instance_id": instance,
        "subject": id_,
        "generation": int(generation),
    },
    "oauth_client": lambda scope, definition, instance=None: {
        "scope": scope,
        "instance_id": instance,
        "subject": definition,
    },
    "authorization": lambda hashed, instance: {"instance_id": instance, "subject": hashed},
    "seal_key": lambda key: {"subject": key},
    "subscription_secret": lambda scope, _subscription, id_: {"scope": scope, "subject": id_},
}

INSERT_DECRYPTS = f"""
INSERT INTO audit.decrypts ({", ".join(_COLUMNS)})
SELECT * FROM json_to_recordset(%(decrypts)s::json) AS opened ({", ".join(map(" ".join, _COLUMNS.items()))})
"""
"""Writes what `decrypt_parameters` gives, on its own or as ``WITH decrypts AS (…)`` of another statement."""


def decrypt_parameters(openings: Sequence[Opening]) -> dict[str, str]:
    """The parameter of `INSERT_DECRYPTS`. No opening, no row."""
    return {"decrypts": to_json([_row(opening) for opening in openings]).decode()}


class DecryptLog:
    """The log of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, openings: Sequence[Opening]) -> None:
        """Commit a row for each. Raises IntegrationError UNAVAILABLE."""
        await self._database.one(INSERT_DECRYPTS, decrypt_parameters(openings))

    async def prune(self, older_than: timedelta, *, limit: int = 10_000) -> int:
        """Delete at most `limit` rows of that age, the oldest first; returns how many."""
        rows = await self._database.all(
            """DELETE FROM audit.decrypts WHERE id IN (
                   SELECT id FROM audit.decrypts
                    WHERE opened_at < now() - %(age)s ORDER BY id LIMIT %(limit)s)
               RETURNING id""",
            {"age": older_than, "limit": limit},
        )
        return len(rows)


def _row(opening: Opening) -> _Named:
    use = opening.use
    name = _NAMES.get(opening.kind)
    named = name(*opening.parts) if name else {"subject": "/".join(opening.parts)}
    return {
        "kind": opening.kind,
        **named,
        "key_id": opening.key.key_id,
        "key_version": opening.key.version,
        "reason": use.reason,
        "worker": use.worker,
        "activity_type": use.activity_type,
        "activity_id": use.activity_id,
        "attempt": use.attempt,
        "workflow_id": use.workflow_id,
        "run_id": use.run_id,
    }
