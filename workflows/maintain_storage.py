"""`MaintainStorage`: partitions ahead, seals, retention, leftovers; started every hour by the Temporal Schedule."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure, to_application_error
    from integration_service.contracts.maintenance import (
        DROP_PARTITIONS,
        MAINTAIN_STORAGE,
        PREPARE_PARTITIONS,
        SEAL_AUDIT,
        SWEEP_LEFTOVERS,
        AuditSealed,
        LeftoversSwept,
        MaintenanceReport,
        PartitionsDropped,
        PartitionsPrepared,
    )
    from integration_service.contracts.wire import AnswerModel

Answer = TypeVar("Answer", bound=AnswerModel)

_STEPS = {
    PREPARE_PARTITIONS: "months of the log that are to come",
    SEAL_AUDIT: "seals of rows that are not sealed yet",
    DROP_PARTITIONS: "months that are older than they are kept",
    SWEEP_LEFTOVERS: "rows that have expired",
}
_ROUNDS = 200
"""What is left after so many, the next run does."""
_STEP_TIMEOUT = timedelta(minutes=30)
_PATIENCE = timedelta(hours=1)
_HEARTBEAT_TIMEOUT = timedelta(minutes=5)
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=1))


@workflow.defn(name=MAINTAIN_STORAGE)
class MaintainStorage:
    """Takes no input. A step that fails keeps none of the others from being done, and fails the run at its end."""

    @workflow.init
    def __init__(self) -> None:
        self._failed: list[IntegrationError] = []

    @workflow.run
    async def run(self) -> MaintenanceReport:
        prepared = await self._step(PREPARE_PARTITIONS, PartitionsPrepared)
        sealed, head = await self._seal()
        # Not before the seals: they announce what may go.
        dropped = await self._step(DROP_PARTITIONS, PartitionsDropped)
        deleted = await self._sweep()
        if self._failed:
            raise to_application_error(self._failed[0])
        return MaintenanceReport(
            created=prepared.created,
            missed=prepared.missed,
            sealed_rows=sealed,
            head=head,
            dropped=dropped.dropped,
            deleted=deleted,
        )

    async def _seal(self) -> tuple[int, str | None]:
        rows = 0
        for _ in range(_ROUNDS):
            done = await self._step(SEAL_AUDIT, AuditSealed)
            rows += done.rows
            if not done.more:
                break
        return rows, done.head

    async def _sweep(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for _ in range(_ROUNDS):
            done = await self._step(SWEEP_LEFTOVERS, LeftoversSwept)
            for table, count in done.deleted.items():
                total[table] = total.get(table, 0) + count
            if not done.more:
                break
        return total

    async def _step(self, name: str, answer: type[Answer]) -> Answer:
        """What a step answers; where it failed for good, an answer that says nothing."""
        workflow.set_current_details(f"At work: {_STEPS[name]}.")
        try:
            done: Answer = await workflow.execute_activity(
                name,
                result_type=answer,
                start_to_close_timeout=_STEP_TIMEOUT,
                schedule_to_close_timeout=_PATIENCE,
                heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                retry_policy=_RETRY,
                summary=_STEPS[name],
            )
        except ActivityError as failure:
            error = from_failure(failure) or IntegrationError(ErrorCode.UNAVAILABLE, f"the step {name} did not end")
            self._failed.append(error)
            return answer()
        return done
