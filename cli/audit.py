"""`integrations audit …`."""

from __future__ import annotations

import click

from integration_service.cli.definition import scope_option
from integration_service.cli.output import print_rows
from integration_service.cli.session import Session, with_session
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.wire import JsonObject, format_time
from integration_service.storage.audit import AuditLog
from integration_service.storage.instances import Instances

_COLUMNS = (
    "scheduledAt", "definition", "method", "attempt", "status", "code", "httpStatus", "durationMs", "workflowId",
)  # fmt: skip


@click.group()
def audit() -> None:
    """The execution log: one row per attempt."""


@audit.command()
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--instance", help="Only this instance (id or name).")
@scope_option
@with_session
async def tail(session: Session, *, limit: int, instance: str | None, scope: str) -> None:
    """The newest attempts, newest last."""
    async with session.database() as database:
        # By its id, an instance that was deleted still has its rows.
        instance_id = (
            instance
            if instance is None or is_canonical_uuid(instance)
            else (await Instances(database).find(scope, instance)).id
        )
        rows = await AuditLog(database).tail(limit=limit, instance_id=instance_id, scope=scope)
    print_rows([_wire(row) for row in rows], _COLUMNS, as_json=session.as_json)


def _wire(row: JsonObject) -> JsonObject:
    wire: JsonObject = {}
    for name, value in row.items():
        first, *rest = name.split("_")
        key = first + "".join(part.title() for part in rest)
        wire[key] = (
            format_time(value) if name.endswith("_at") else str(value) if name in ("instance_id", "execution_key")
            else value
        )  # fmt: skip
    return wire
