"""`MaintainStorage` on the real stack: scheduled once, every step done, one that fails keeping none from the others."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Replayer, Worker

from integration_service.activities.maintenance import MaintenanceActivities
from integration_service.activities.maintenance_schedule import ensure_maintenance_schedule
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure, to_application_error
from integration_service.contracts.maintenance import (
    DROP_PARTITIONS,
    MAINTAIN_STORAGE,
    MAINTENANCE_SCHEDULE,
    PREPARE_PARTITIONS,
    SEAL_AUDIT,
    SWEEP_LEFTOVERS,
    AuditSealed,
    LeftoversSwept,
    MaintenanceReport,
    PartitionsDropped,
    PartitionsPrepared,
)
from integration_service.contracts.names import control_queue
from integration_service.devstack.stack import Stack
from integration_service.plugin import IntegrationPlugin
from integration_service.storage.audit_chain import AuditChain
from integration_service.storage.audit_months import after, month_of
from integration_service.storage.audit_partitions import AuditPartitions
from integration_service.storage.audit_stats import AuditStats
from integration_service.storage.database import Database
from integration_service.storage.decrypt_log import DecryptLog
from integration_service.storage.leftovers import Leftovers
from integration_service.storage.upstream_health import BreakerRows
from integration_service.workflows.maintain_storage import MaintainStorage
from tests.audit_databases import AuditDatabases
from tests.audit_rows import Trail
from tests.waiting import eventually

CONTROL = control_queue("integrations")
NOW = datetime.now(UTC)


def maintenance(database: Database, **changes: Any) -> MaintenanceActivities:
    values: dict[str, Any] = {
        "partitions": AuditPartitions(database),
        "chain": AuditChain(database, settled_after=timedelta(0), batch=3),
        "stats": AuditStats(database),
        "leftovers": Leftovers(database),
        "breakers": BreakerRows(database),
        "decrypts": DecryptLog(database),
        "retention": timedelta(days=400),
        **changes,
    }
    return MaintenanceActivities(**values)


async def run(temporal: Client, steps: list[Any]) -> MaintenanceReport:
    """One run of the workflow on a queue of its own."""
    queue = f"maintenance-{uuid.uuid4().hex[:8]}"
    async with Worker(temporal, task_queue=queue, workflows=[MaintainStorage], activities=steps):
        return await temporal.execute_workflow(
            MAINTAIN_STORAGE, id=queue, task_queue=queue, result_type=MaintenanceReport
        )


def steps_of(found: MaintenanceActivities) -> list[Any]:
    return [found.prepare, found.seal, found.drop, found.sweep]


async def test_a_worker_has_made_the_schedule_and_it_ran(temporal: Client) -> None:
    handle = temporal.get_schedule_handle(MAINTENANCE_SCHEDULE)

    async def ran() -> bool:
        return bool((await handle.describe()).info.recent_actions)

    await eventually(ran)
    report = await temporal.get_workflow_handle(
        (await handle.describe()).info.recent_actions[0].action.workflow_id, result_type=MaintenanceReport
    ).result()
    assert report.missed == []
    history = await temporal.get_workflow_handle(
        (await handle.describe()).info.recent_actions[0].action.workflow_id
    ).fetch_history()
    await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)


async def test_workers_that_start_at_once_leave_one_schedule_and_a_pause_stays(temporal: Client) -> None:
    handle = temporal.get_schedule_handle(MAINTENANCE_SCHEDULE)
    await handle.pause(note="by the operator")
    try:
        await asyncio.gather(*(ensure_maintenance_schedule(temporal, task_queue=CONTROL) for _ in range(5)))
        found = (await handle.describe()).schedule
        assert (found.state.paused, found.state.note) == (True, "by the operator")
        assert [interval.every for interval in found.spec.intervals] == [timedelta(hours=1)]
    finally:
        await handle.unpause()


async def test_a_run_mends_seals_drops_and_sweeps(stack: Stack, temporal: Client) -> None:
    told: list[tuple[str, Any]] = []

    async def notify(kind: str, data: Any) -> None:
        told.append((kind, data))

    async with AuditDatabases(stack).fresh() as url, Database(url) as database:
        trail = Trail(url, database)
        this = month_of(NOW)
        await trail.run(f"DROP TABLE audit.executions_{this:%Y_%m}")
        await trail.record(*[NOW] * 7, after(this, -3))
        await trail.run(
            "INSERT INTO integrations.send_intents SELECT gen_random_uuid(), now() - interval '91 days'"
            " FROM generate_series(1, 1500)"
        )
        report = await run(temporal, steps_of(maintenance(database, notify=notify, retention=timedelta(days=40))))
        months = [f"{after(this, -1):%Y-%m}", f"{this:%Y-%m}"]
        state = await AuditStats(database).read()
        verified = await AuditChain(database).verify()
    assert report.missed == [f"{this:%Y-%m}"]
    assert report.missed[0] in months
    assert report.sealed_rows == 8
    assert report.deleted["integrations.send_intents"] == 1500
    assert (state.alerts, state.default_rows, state.missing, state.unsealed) == (1, 1, (), 0)
    assert state.last_alert is not None
    assert report.missed[0] in state.last_alert
    assert (verified.rows, verified.bad, verified.head.hex()) == (7, None, report.head)
    assert [kind for kind, _ in told] == ["partition_missing", "sealed"]
    assert told[0][1] == {"months": report.missed}
    assert told[1][1]["head"] == report.head


@activity.defn(name=PREPARE_PARTITIONS)
async def failing_prepare() -> PartitionsPrepared:
    raise to_application_error(IntegrationError(ErrorCode.VALIDATION_ERROR, "planted"))


async def test_a_step_that_fails_fails_the_run_after_the_others_were_done(temporal: Client) -> None:
    done: list[str] = []
    sealed = iter([AuditSealed(rows=2, more=True), AuditSealed(rows=1)])

    @activity.defn(name=SEAL_AUDIT)
    async def seal() -> AuditSealed:
        done.append(SEAL_AUDIT)
        return next(sealed)

    @activity.defn(name=DROP_PARTITIONS)
    async def drop() -> PartitionsDropped:
        done.append(DROP_PARTITIONS)
        return PartitionsDropped()

    @activity.defn(name=SWEEP_LEFTOVERS)
    async def sweep() -> LeftoversSwept:
        done.append(SWEEP_LEFTOVERS)
        return LeftoversSwept()

    with pytest.raises(WorkflowFailureError) as failed:
        await run(temporal, [failing_prepare, seal, drop, sweep])
    error = from_failure(failed.value.cause)
    assert error is not None
    assert (error.code, error.message) == (ErrorCode.VALIDATION_ERROR, "planted")
    assert done == [SEAL_AUDIT, SEAL_AUDIT, DROP_PARTITIONS, SWEEP_LEFTOVERS]


async def test_a_history_is_kept_and_replays(stack: Stack, temporal: Client) -> None:
    async with AuditDatabases(stack).fresh() as url, Database(url) as database:
        trail = Trail(url, database)
        await trail.run(f"DROP TABLE audit.executions_{month_of(NOW):%Y_%m}")
        await trail.record(*[NOW] * 70)
        queue = f"maintenance-{uuid.uuid4().hex[:8]}"
        async with Worker(
            temporal, task_queue=queue, workflows=[MaintainStorage], activities=steps_of(maintenance(database))
        ):
            await temporal.execute_workflow(MAINTAIN_STORAGE, id=queue, task_queue=queue)
    history = await temporal.get_workflow_handle(queue).fetch_history()
    await Replayer(workflows=[], plugins=[IntegrationPlugin()]).replay_workflow(history)
    if folder := os.environ.get("STORE_HISTORIES"):
        stored = {"workflowId": queue, "history": history.to_json_dict()}
        (Path(folder) / "MaintainStorage-mended-sealed.json").write_text(json.dumps(stored, indent=1) + "\n")
