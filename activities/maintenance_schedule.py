"""The Temporal Schedule that starts `MaintainStorage`: made, or brought up to date, by every worker at its start."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from integration_service.contracts.maintenance import MAINTAIN_STORAGE, MAINTENANCE_SCHEDULE

EVERY = timedelta(hours=1)
_RUN_TIMEOUT = timedelta(hours=6)


async def ensure_maintenance_schedule(client: Client, *, task_queue: str) -> None:
    """Make the schedule, which then runs at once, or change it to this program's; a pause and its note are kept.

    Of workers that start at the same time the last one's stands, and they are the same. `task_queue` is the control
    queue. Raises RPCError.
    """
    wanted = _schedule(task_queue)
    try:
        await client.create_schedule(MAINTENANCE_SCHEDULE, wanted, trigger_immediately=True)
    except ScheduleAlreadyRunningError:

        async def changed(found: ScheduleUpdateInput) -> ScheduleUpdate:
            return ScheduleUpdate(Schedule(**{**vars(wanted), "state": found.description.schedule.state}))

        await client.get_schedule_handle(MAINTENANCE_SCHEDULE).update(changed)


def _schedule(task_queue: str) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            MAINTAIN_STORAGE,
            id=MAINTENANCE_SCHEDULE,
            task_queue=task_queue,
            execution_timeout=_RUN_TIMEOUT,
            static_summary="partitions, seals and retention of the log; leftovers",
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=EVERY)], jitter=timedelta(minutes=5)),
        # One at a time, and of those that were missed the last: a run does all that is due.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=2 * EVERY),
    )
