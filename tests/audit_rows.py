"""Rows for the execution log, and a database that holds nothing else."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from integration_service.storage.audit import AuditLog, Execution
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_partitions import AuditPartitions
from integration_service.storage.database import Database


def attempt(at: datetime, **changes: Any) -> Execution:
    """An attempt that was scheduled at `at`, of an instance that nobody has."""
    values: dict[str, Any] = {
        "scheduled_at": at,
        "execution_key": str(uuid.uuid4()),
        "attempt": 1,
        "scope": "global",
        "instance_id": str(uuid.uuid4()),
        "definition": "d",
        "definition_version": "1.0.0",
        "method": "m",
        "workflow_id": "w",
        "run_id": "r",
        "activity_id": "1",
        "status": "SUCCEEDED",
        "code": None,
        "http_status": 200,
        "duration_ms": 5,
        "request_bytes": 1,
        "response_bytes": 2,
        "correlation_id": None,
    }
    return Execution(**{**values, **changes})


@dataclass
class Trail:
    """An audit trail of a test's own."""

    url: str = field(repr=False)
    database: Database

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.database)

    @property
    def partitions(self) -> AuditPartitions:
        return AuditPartitions(self.database)

    def chain(self, **settings: Any) -> AuditChain:
        return AuditChain(self.database, **settings)

    async def record(self, *times: datetime) -> list[Execution]:
        rows = [attempt(at) for at in times]
        for row in rows:
            await self.log.record(row, settles_intent=False)
        return rows

    async def layout(self) -> dict[str, int]:
        """The rows of each partition that is attached."""
        tables = await self.database.all(
            """SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'audit.executions'::regclass ORDER BY 1"""
        )
        counts = {}
        for table in tables:
            row = await self.database.one(f"SELECT count(*) AS rows FROM audit.{table['name']}", {})
            counts[table["name"]] = row["rows"] if row else 0
        return counts

    async def run(self, statement: str) -> None:
        await self.database.one(statement, {})
