"""One row in the execution log for every attempt, whatever becomes of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from integration_service.activities.execution.attempt import FOR_THE_REST, Attempt
from integration_service.activities.execution.observing import Observer
from integration_service.activities.execution.target import Progress
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit import AuditLog, Execution

_RECORD_RETRY = timedelta(milliseconds=200)


class Recorder:
    """Writes the rows, and tells the observer."""

    def __init__(self, audit: AuditLog, observer: Observer) -> None:
        self._audit = audit
        self._observer = observer

    async def record(self, call: MethodCall, attempt: Attempt, progress: Progress, code: str | None) -> None:
        """Write the log row, in process for as long as the attempt lasts: a request is never repeated because
        our own database was down. Raises IntegrationError when it stayed down."""
        self._observer.attempted(call, attempt, progress, code)
        row = _row(call, attempt, progress, code)
        if row is None:
            return
        # What may have had its effect keeps its intent, also when the answer is here: this worker may die before
        # Temporal has it, and the attempt after that would send again.
        settles = progress.intended and progress.repeatable
        while True:
            try:
                return await self._audit.record(row, settles_intent=settles)
            except IntegrationError as error:
                if attempt.time_left() < FOR_THE_REST or not progress.maybe_sent:
                    if not progress.repeatable and code is None:
                        raise IntegrationError(
                            ErrorCode.OUTCOME_UNKNOWN, "the upstream answered, but it could not be recorded"
                        ) from error
                    raise
                await asyncio.sleep(_RECORD_RETRY.total_seconds())


def _row(call: MethodCall, attempt: Attempt, progress: Progress, code: str | None) -> Execution | None:
    if progress.target is None:
        return None
    instance, definition = progress.target.instance, progress.target.compiled.definition
    return Execution(
        scheduled_at=attempt.scheduled_at,
        execution_key=attempt.execution_key,
        attempt=attempt.number,
        scope=instance.scope,
        instance_id=instance.id,
        definition=definition.name,
        definition_version=definition.version,
        method=call.method or "",
        workflow_id=attempt.workflow_id,
        run_id=attempt.run_id,
        activity_id=attempt.activity_id,
        status="FAILED" if code else "SUCCEEDED",
        code=code,
        http_status=progress.response.status if progress.response else None,
        duration_ms=progress.duration_ms(),
        request_bytes=progress.request_bytes,
        response_bytes=progress.response_bytes,
        correlation_id=call.correlation_id,
    )
