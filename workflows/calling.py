"""For workflows of other Python services: call a method, its result typed and its failure with a code.

It stands here and not in `client.py` because a workflow must import nothing but temporalio and `contracts`; the rule of
this folder holds it. It works with any payload converter: plain JSON goes over the wire.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception
from temporalio.workflow import ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.calls import MethodCall, MethodResult
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
        to_application_error,
    )
    from integration_service.contracts.names import EXECUTE_METHOD, TASK_QUEUE, activity_type, fairness_key
    from integration_service.contracts.nexus import NEXUS_ENDPOINT, NEXUS_SERVICE
    from integration_service.contracts.wire import parse

_ONE_TRY = timedelta(seconds=45)
"""A method's default `timeoutMs` of 30 s, and 15 s more."""
_ALL_TRIES = timedelta(minutes=5)
_HEARTBEAT = timedelta(seconds=10)


class MethodFailed(ApplicationError):
    """A call's failure; `error` has its code, sentence, path and details.

    It is an ApplicationError, so that a workflow that does not catch it fails with the same code. An IntegrationError
    would fail the workflow's task instead, again and again.
    """

    def __init__(self, error: IntegrationError) -> None:
        carried = to_application_error(error)
        super().__init__(
            carried.message,
            *carried.details,
            type=carried.type,
            non_retryable=carried.non_retryable,
            category=carried.category,
        )
        self.error = error

    @property
    def code(self) -> str:
        return self.error.code


async def execute_method(
    call: MethodCall, *, workflow_id: str | None = None, task_queue: str = TASK_QUEUE
) -> MethodResult:
    """Run the call as a child `ExecuteMethod`: throttles and outages are waited out until `deadlineMs`.

    When the parent ends, the child is asked to stop and not cut off. Raises MethodFailed, and what cancellation raises.
    """
    child: Awaitable[Any] = workflow.execute_child_workflow(
        EXECUTE_METHOD,
        call.to_wire(),
        id=workflow_id or f"call:{workflow.uuid4()}",
        task_queue=task_queue,
        result_type=dict,
        parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        static_summary=f"{call.method} of {call.instance_id}",
        priority=_priority(call),
    )
    return await _result(child)


async def execute_activity(
    definition: str,
    call: MethodCall,
    *,
    start_to_close_timeout: timedelta = _ONE_TRY,
    schedule_to_close_timeout: timedelta = _ALL_TRIES,
    retry_policy: RetryPolicy | None = None,
    task_queue: str = TASK_QUEUE,
) -> MethodResult:
    """Run the call as the activity ``<definition>.<method>`` of this workflow: one hop less, and throttles spend tries.

    Give a method with a longer `timeoutMs` that and 15 s. The definition's retry limits hold; `retry_policy` can only
    be stricter. Raises MethodFailed, and what cancellation raises.
    """
    if call.method is None:
        raise MethodFailed(IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path="method"))
    name = activity_type(definition, call.method)
    activity: Awaitable[Any] = workflow.execute_activity(
        name,
        call.to_wire(),
        task_queue=task_queue,
        result_type=dict,
        start_to_close_timeout=start_to_close_timeout,
        schedule_to_close_timeout=schedule_to_close_timeout,
        heartbeat_timeout=_HEARTBEAT,
        retry_policy=retry_policy,
        summary=f"{name} of {call.instance_id}",
        priority=_priority(call),
    )
    return await _result(activity)


async def execute_over_nexus(
    call: MethodCall, *, endpoint: str = NEXUS_ENDPOINT, schedule_to_close_timeout: timedelta | None = None
) -> MethodResult:
    """Run the call in the namespace that `endpoint` leads to; without a timeout the call's own `deadlineMs` bounds it.

    Raises MethodFailed, and what cancellation raises.
    """
    client = workflow.create_nexus_client(service=NEXUS_SERVICE, endpoint=endpoint)
    operation: Awaitable[Any] = client.execute_operation(
        "execute_method",
        call.to_wire(),
        output_type=dict,
        schedule_to_close_timeout=schedule_to_close_timeout,
        summary=f"{call.method} of {call.instance_id}",
    )
    return await _result(operation)


def _priority(call: MethodCall) -> Priority:
    """Beside an instance with thousands of calls that wait, another one's call goes next."""
    return Priority(fairness_key=fairness_key(call.scope, call.instance_id))


async def _result(running: Awaitable[Any]) -> MethodResult:
    try:
        return parse(MethodResult, await running)
    except IntegrationError as error:
        raise MethodFailed(error) from None
    except FailureError as failure:
        if is_cancelled_exception(failure):
            raise
        found = from_failure(failure) or IntegrationError(
            ErrorCode.UNAVAILABLE, f"the call ended without a result: {failure.cause or failure}"
        )
        raise MethodFailed(found) from failure
