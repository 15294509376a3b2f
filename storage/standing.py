"""How the service stands: what its operators watch and no process knows by itself."""

from __future__ import annotations

from datetime import timedelta

from psycopg.errors import InsufficientPrivilege

from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.storage.database import Database
from integration_service.telemetry.figures import Standing

# Each part is the end of an index; only the count by status reads one whole.
_SERVICE = """
SELECT (SELECT json_object_agg(status, count) FROM
          (SELECT status, count(*) AS count FROM integrations.instances GROUP BY status) AS by_status) AS connections,
       now() - (SELECT min(due_at) FROM integrations.deliveries WHERE state = 'PENDING') AS outbox_lag
"""
_LOG = """
SELECT now() - head.sealed_at AS seal_age,
       now() - (SELECT recorded_at FROM audit.executions
                 WHERE (recorded_xid, seq) > (coalesce(head.through_xid, 0), coalesce(head.through_seq, 0))
                   AND seq > coalesce(head.floor_seq, 0)
                 ORDER BY recorded_xid, seq LIMIT 1) AS unsealed_age
  FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM audit.seals ORDER BY number DESC LIMIT 1) AS head ON true
"""


async def standing(database: Database) -> Standing:
    """Look once. Raises IntegrationError UNAVAILABLE.

    A login that is no member of `integrations_audit_reader` or `integrations_maintenance` is not told of the log.
    """
    service = await database.one(_SERVICE, {}) or {}
    counts = service["connections"] or {}
    found = Standing(
        connections={status.value: counts.get(status.value, 0) for status in IntegrationInstanceStatus},
        outbox_lag=service["outbox_lag"] or timedelta(0),
    )
    try:
        log = await database.one(_LOG, {}) or {}
    except InsufficientPrivilege:
        return found
    return Standing(found.connections, found.outbox_lag, log["seal_age"], log["unsealed_age"] or timedelta(0))
