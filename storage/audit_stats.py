"""How the execution log stands, and what its maintenance found that somebody should know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.audit_partitions import MONTHS_AHEAD
from integration_service.storage.database import Database

_COUNTED_BELOW = 256 * 1024 * 1024
"""A partition's rows are counted up to that size in bytes; of a larger one Postgres's estimate is told."""
_PARTITIONS = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT' AS is_default, now() AS now,
       pg_relation_size(c.oid) AS heap_bytes, pg_total_relation_size(c.oid) AS bytes,
       greatest(c.reltuples, 0)::bigint AS estimate
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'audit.executions'::regclass
 ORDER BY 2, 1
"""


@dataclass(frozen=True)
class PartitionStats:
    """One partition; `size` in bytes, with indexes. `estimated` says that its rows were not counted."""

    name: str
    rows: int
    size: int
    estimated: bool


@dataclass(frozen=True)
class AuditState:
    """How the log stands. `missing` are months, this one and those that come, that have no partition."""

    rows: int
    size: int
    unsealed: int
    seals: int
    head: bytes | None
    oldest: datetime | None
    newest: datetime | None
    default_rows: int
    missing: tuple[str, ...]
    alerts: int
    last_alert: str | None
    partitions: tuple[PartitionStats, ...]


class AuditStats:
    """The state of one database's log, and its alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def alert(self, kind: str, sentence: str) -> None:
        """Keep an alert."""
        await self._database.one(
            "INSERT INTO audit.alerts (kind, sentence) VALUES (%(kind)s, %(sentence)s)",
            {"kind": kind, "sentence": sentence},
        )

    async def prune_alerts(self, older_than: timedelta, *, limit: int = 10_000) -> int:
        """Delete at most `limit` alerts of that age, the oldest first; returns how many."""
        rows = await self._database.all(
            """DELETE FROM audit.alerts WHERE id IN (
                   SELECT id FROM audit.alerts
                    WHERE recorded_at < now() - %(age)s ORDER BY id LIMIT %(limit)s)
               RETURNING id""",
            {"age": older_than, "limit": limit},
        )
        return len(rows)

    async def read(self) -> AuditState:
        """The state now."""
        rows = await self._database.all(_PARTITIONS)
        partitions = []
        for row in rows:
            estimated = row["heap_bytes"] > _COUNTED_BELOW
            count = row["estimate"] if estimated else await self._count(row["name"])
            partitions.append(PartitionStats(row["name"], count, row["bytes"], estimated))
        this = month_of(rows[0]["now"])
        months = (after(this, number) for number in range(MONTHS_AHEAD + 1))
        names = {partition.name for partition in partitions}
        chain = AuditChain(self._database)
        head = await chain.head()
        edges = await self._database.one(
            "SELECT min(scheduled_at) AS oldest, max(scheduled_at) AS newest FROM audit.executions", {}
        )
        alerts = await self._database.one(
            """SELECT count(*) AS alerts, (SELECT sentence FROM audit.alerts ORDER BY id DESC LIMIT 1) AS last
                 FROM audit.alerts""",
            {},
        )
        return AuditState(
            rows=sum(partition.rows for partition in partitions),
            size=sum(partition.size for partition in partitions),
            unsealed=await chain.unsealed(),
            seals=head.number if head else 0,
            head=head.hash if head else None,
            oldest=edges["oldest"] if edges else None,
            newest=edges["newest"] if edges else None,
            default_rows=sum(partition.rows for partition in partitions if partition.name == "executions_default"),
            missing=tuple(f"{month:%Y-%m}" for month in months if f"executions_{month:%Y_%m}" not in names),
            alerts=alerts["alerts"] if alerts else 0,
            last_alert=alerts["last"] if alerts else None,
            partitions=tuple(partitions),
        )

    async def _count(self, name: str) -> int:
        row = await self._database.one(f"SELECT count(*) AS rows FROM audit.{name}", {})
        return int(row["rows"]) if row else 0
