"""Token requests under way: at most one an instance, whoever dies, by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from psycopg.errors import ForeignKeyViolation

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.database import Database
from integration_service.storage.instances import not_found

_SHORTEST_WAIT = timedelta(milliseconds=10)

# The credential's row is locked against a writer, so that a generation that is being replaced at this moment
# is seen replaced: its token was spent, and a second send of it may end the connection (RFC 9700 §4.14.2).
_BEGIN = """
WITH current AS MATERIALIZED (
    SELECT generation FROM vault.credentials WHERE instance_id = %(instance_id)s FOR SHARE
), written AS (
    INSERT INTO integrations.refresh_intents AS intent
           (instance_id, generation, token_hash, deadline, sends, lost, answered)
    SELECT %(instance_id)s, %(generation)s, %(token_hash)s, clock_timestamp() + %(lease)s, 1, false, false
     WHERE %(generation)s = coalesce((SELECT generation FROM current), 0)
    ON CONFLICT (instance_id) DO UPDATE
       SET generation = excluded.generation, token_hash = excluded.token_hash,
           deadline = clock_timestamp() + %(lease)s,
           sends = CASE WHEN intent.generation = excluded.generation THEN intent.sends + 1 ELSE 1 END,
           lost = intent.generation = excluded.generation AND (intent.lost OR NOT intent.answered),
           answered = false
     WHERE intent.generation <> excluded.generation OR intent.answered OR intent.deadline <= clock_timestamp()
    RETURNING lost, sends
)
SELECT coalesce((SELECT generation FROM current), 0) AS current, lost, sends
  FROM (SELECT) AS always LEFT JOIN written ON true
"""


@dataclass(frozen=True)
class Intent:
    """Leave to send one token request.

    `lost` says that an earlier send of the same generation had no answer; its answer may be lost. `send`
    counts the sends of the generation from 1.
    """

    lost: bool
    send: int = 1


class RefreshIntents:
    """The intents of one database to spend a refresh token."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, *, instance_id: str, generation: int, token_hash: bytes, lease: timedelta) -> Intent:
        """Commit the intent to send the token of `generation` (0: there is no credential yet).

        `lease` must be longer than the request can live. Raises IntegrationError UNAVAILABLE with `retry_after`
        while another request may be on its way, VERSION_CONFLICT when the generation is not the current one,
        INSTANCE_NOT_FOUND.
        """
        try:
            [row] = await self._database.all(
                _BEGIN,
                {"instance_id": instance_id, "generation": generation, "token_hash": token_hash, "lease": lease},
            )
        except ForeignKeyViolation:
            raise not_found(instance_id) from None
        if row["current"] != generation:
            raise IntegrationError(
                ErrorCode.VERSION_CONFLICT,
                "the credential was replaced since it was read",
                details={"expected": generation, "current": row["current"]},
            )
        if row["sends"] is None:
            raise IntegrationError(
                ErrorCode.UNAVAILABLE,
                "another token request of this instance may still be on its way",
                retry_after=await self._remaining(instance_id),
            )
        return Intent(lost=row["lost"], send=row["sends"])

    async def answered(self, *, instance_id: str, generation: int, lost: bool, send: int | None = None) -> None:
        """The flight is over without a new token; `lost` when there may have been an answer that nobody read.

        With `send` (of the `Intent`), a late word of an older flight does not end a newer one.
        """
        await self._database.one(
            """UPDATE integrations.refresh_intents SET answered = true, lost = lost OR %(lost)s
                WHERE instance_id = %(instance_id)s AND generation = %(generation)s
                  AND sends = coalesce(%(send)s, sends)""",
            {"instance_id": instance_id, "generation": generation, "lost": lost, "send": send},
        )

    async def erase(self, instance_id: str) -> None:
        """Forget what was sent for an instance."""
        await self._database.one(
            "DELETE FROM integrations.refresh_intents WHERE instance_id = %(instance_id)s",
            {"instance_id": instance_id},
        )

    async def _remaining(self, instance_id: str) -> timedelta:
        row = await self._database.one(
            """SELECT deadline - clock_timestamp() AS remaining FROM integrations.refresh_intents
                WHERE instance_id = %(instance_id)s AND NOT answered""",
            {"instance_id": instance_id},
        )
        # No row, or a deadline that has passed since: the way is free by now.
        return max(row["remaining"], _SHORTEST_WAIT) if row else _SHORTEST_WAIT
