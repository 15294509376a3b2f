"""`integrations audit …`."""

from __future__ import annotations

import click

from integration_service.cli.options import scope_option
from integration_service.cli.output import print_object, print_rows
from integration_service.cli.session import Session, with_session
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.names import is_canonical_uuid
from integration_service.contracts.wire import JsonObject, format_time
from integration_service.storage.audit import AuditLog
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_stats import AuditStats
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


@audit.command()
@with_session
async def stats(session: Session) -> None:
    """Rows, partitions, what is unsealed, what maintenance had to mend."""
    async with session.database() as database:
        state = await AuditStats(database).read()
    print_object(
        {
            "rows": state.rows,
            "bytes": state.size,
            "oldest": format_time(state.oldest) if state.oldest else None,
            "newest": format_time(state.newest) if state.newest else None,
            "seals": state.seals,
            "head": state.head.hex() if state.head else None,
            "unsealed": state.unsealed,
            "defaultRows": state.default_rows,
            "missingPartitions": list(state.missing),
            "alerts": state.alerts,
            "lastAlert": state.last_alert,
            "partitions": [
                {"name": one.name, "rows": one.rows, "bytes": one.size, "estimated": one.estimated}
                for one in state.partitions
            ],
        },
        as_json=session.as_json,
    )


@audit.command()
@click.option("--head", help="A head's hash that was kept elsewhere: the chain must still hold it.")
@with_session
async def verify(session: Session, *, head: str | None) -> None:
    """Compute all seals anew. Exits 1 naming the first that does not hold."""
    kept = _hash(head) if head is not None else None
    async with session.database() as database:
        chain = AuditChain(database)
        found = await chain.verify()
        # The first bad batch says more than that the head is another.
        is_kept = found.bad is not None or kept is None or await chain.holds(kept)
        unsealed = await chain.unsealed()
    if found.bad is not None:
        raise IntegrationError(
            ErrorCode.INTEGRITY_ERROR,
            f"seal {found.bad.number} does not hold: {found.bad.reason}",
            path=f"seals[{found.bad.number}]",
        )
    if not is_kept:
        raise IntegrationError(
            ErrorCode.INTEGRITY_ERROR, "no seal has that hash: the chain was cut or made anew", path="--head"
        )
    print_object(
        {
            "seals": found.seals,
            "rows": found.rows,
            "head": found.head.hex(),
            "unsealed": unsealed,
            "firstSeal": found.first,
            "droppedBefore": format_time(found.dropped_before) if found.dropped_before else None,
        },
        as_json=session.as_json,
    )


def _hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "not a hash in hex", path="--head") from None


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
