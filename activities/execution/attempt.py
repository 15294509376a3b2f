"""Who is asking: one attempt of one activity, told apart from Temporal's own words for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio import activity

from integration_service.contracts.calls import Continuation
from integration_service.contracts.names import execution_key

_FALLBACK_TIME = timedelta(seconds=60)


@dataclass(frozen=True)
class Attempt:
    """One run of a method activity.

    `tries` counts the tries that are spent with this one; `parks` says that the caller is `ExecuteMethod`, which
    waits on a durable timer when it is told to.
    """

    execution_key: str
    tries: int
    parks: bool
    throttles: int
    scheduled_at: datetime
    deadline: datetime
    workflow_id: str | None
    run_id: str | None
    activity_id: str

    @classmethod
    def current(cls, continuation: Continuation | None) -> Attempt:
        """Read from the running activity."""
        info = activity.info()
        # A foreign caller's throttles are counted in heartbeat details, which outlive a raised failure.
        throttles = next((entry for entry in info.heartbeat_details if isinstance(entry, int)), 0)
        if continuation is not None:
            key, spent = continuation.execution_key, continuation.tries_spent
        elif info.in_workflow:
            key = execution_key(info.namespace, str(info.workflow_id), str(info.workflow_run_id), info.activity_id)
            spent = 0
        else:
            key, spent = execution_key(info.activity_id, str(info.activity_run_id)), 0
        return cls(
            execution_key=key,
            tries=spent + info.attempt - throttles,
            parks=continuation is not None,
            throttles=throttles,
            scheduled_at=info.scheduled_time,
            deadline=info.started_time + (info.start_to_close_timeout or _FALLBACK_TIME),
            workflow_id=info.workflow_id,
            run_id=info.workflow_run_id or info.activity_run_id,
            activity_id=info.activity_id,
        )

    def time_left(self) -> timedelta:
        """How long Temporal still waits for this attempt."""
        return self.deadline - datetime.now(UTC)
