"""Around every activity: what is logged in it says where it belongs and shows no secret; how it ended is counted."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from integration_service.activities.methods import MethodActivities
from integration_service.contracts.errors import ErrorCode
from integration_service.telemetry.logs import belonging_to
from integration_service.telemetry.metrics import OK
from integration_service.telemetry.process import Telemetry
from integration_service.telemetry.redaction import remembering


class ReportingInterceptor(Interceptor):
    """For every worker of ours."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Reporting(next, self._telemetry)


class _Reporting(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, telemetry: Telemetry) -> None:  # noqa: A002
        super().__init__(next)
        self._telemetry = telemetry

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info, tracing = activity.info(), self._telemetry.tracing
        code = OK
        with (
            remembering(),
            belonging_to(
                activityType=info.activity_type,
                activityId=info.activity_id,
                workflowId=info.workflow_id,
                runId=info.workflow_run_id or info.activity_run_id,
                traceId=tracing.trace_id() if tracing else None,
            ),
        ):
            try:
                return await super().execute_activity(input)
            except ApplicationError as error:
                code = error.type or type(error).__name__
                raise
            except BaseException as error:
                code = type(error).__name__
                raise
            finally:
                # Methods have counters of their own, and their activity takes every name that a caller makes up.
                is_method = getattr(input.fn, "__func__", None) is MethodActivities.run_method
                self._ended(None if is_method else info.activity_type, code)

    def _ended(self, name: str | None, code: str) -> None:
        metrics = self._telemetry.metrics
        if code == ErrorCode.KEY_UNAVAILABLE:
            metrics.key_unavailable.inc()
        if name is not None:
            metrics.ended(name, code)
