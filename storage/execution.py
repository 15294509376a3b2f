"""A row of the execution log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Execution:
    """One attempt at one method call.

    `scheduled_at` is when the activity was first scheduled, the same for all of its attempts, so that writing
    the row twice gives one row. Durations are milliseconds, sizes bytes of the bodies as sent and received.
    """

    scheduled_at: datetime
    execution_key: str
    attempt: int
    scope: str
    instance_id: str
    definition: str
    definition_version: str
    method: str
    workflow_id: str | None
    run_id: str | None
    activity_id: str | None
    status: str
    code: str | None
    http_status: int | None
    duration_ms: int
    request_bytes: int
    response_bytes: int
    correlation_id: str | None


COLUMNS = tuple(Execution.__dataclass_fields__)
"""In the order in which a row is hashed: further ones go to the end of `storage.audit_chain`'s, never in between."""
