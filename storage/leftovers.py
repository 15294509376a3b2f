"""What nobody will ask for again: expired, orphaned or idle rows, deleted in batches that lock few of them."""

from __future__ import annotations

from integration_service.storage.database import Database

BATCH = 1_000

# By `now()`: an index serves no `clock_timestamp()`, which is another time at each row.
_LEFT_OVER = {
    "integrations.response_cache": """expires_at < now()
        AND (claimed_until IS NULL OR claimed_until < now())""",
    "integrations.large_results": "expires_at < now()",
    # Who comes late is told so for a day.
    "vault.authorizations": "expires_at < now() - interval '1 day'",
    # A session may outlive the ticket that it was exchanged for.
    "integrations.connect_tickets": """expires_at < now() - interval '1 hour'
        AND (session_expires_at IS NULL OR session_expires_at < now() - interval '1 hour')""",
    # Nobody tries a call again after so long; until then the row says that it may have been sent.
    "integrations.send_intents": "created_at < now() - interval '90 days'",
    # A call that still waits looks by itself every five minutes.
    "integrations.waiters": "created_at < now() - interval '30 days'",
    # A bucket that has run full again is as good as none.
    "integrations.rate_buckets": """empty_at < now() - interval '1 hour'
        AND (paused_until IS NULL OR paused_until < now())""",
}


class Leftovers:
    """The rows of one database that may go."""

    def __init__(self, database: Database, *, batch: int = BATCH) -> None:
        self._database = database
        self._batch = batch

    async def sweep(self) -> tuple[dict[str, int], bool]:
        """Delete up to a batch from each table: how many by table, and whether there may be more."""
        deleted = {}
        for table, condition in _LEFT_OVER.items():
            row = await self._database.one(
                f"""WITH gone AS (
                        DELETE FROM {table} WHERE ctid = ANY (ARRAY(
                            SELECT ctid FROM {table} WHERE {condition} LIMIT {self._batch} FOR UPDATE SKIP LOCKED))
                        RETURNING 1)
                    SELECT count(*) AS rows FROM gone""",
                {},
            )
            deleted[table] = int(row["rows"]) if row else 0
        return deleted, any(count >= self._batch for count in deleted.values())
