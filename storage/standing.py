"""How the service stands, in one statement: what its operators watch and no process knows by itself."""

from __future__ import annotations

from datetime import timedelta

from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.storage.database import Database
from integration_service.telemetry.figures import Standing

# Each part is the end of an index; only the count by status reads one whole.
_LOOK = """
SELECT (SELECT json_object_agg(status, count) FROM
          (SELECT status, count(*) AS count FROM integrations.instances GROUP BY status) AS by_status) AS connections,
       now() - head.sealed_at AS seal_age,
       now() - (SELECT recorded_at FROM audit.executions
                 WHERE (recorded_xid, seq) > (coalesce(head.through_xid, 0), coalesce(head.through_seq, 0))
                   AND seq > coalesce(head.floor_seq, 0)
                 ORDER BY recorded_xid, seq LIMIT 1) AS unsealed_age,
       now() - (SELECT min(due_at) FROM integrations.deliveries WHERE state = 'PENDING') AS outbox_lag
  FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM audit.seals ORDER BY number DESC LIMIT 1) AS head ON true
"""


async def standing(database: Database) -> Standing:
    """Look once. Raises IntegrationError UNAVAILABLE."""
    row = await database.one(_LOOK, {}) or {}
    counts = row["connections"] or {}
    return Standing(
        connections={status.value: counts.get(status.value, 0) for status in IntegrationInstanceStatus},
        seal_age=row["seal_age"],
        unsealed_age=row["unsealed_age"] or timedelta(0),
        outbox_lag=row["outbox_lag"] or timedelta(0),
    )
