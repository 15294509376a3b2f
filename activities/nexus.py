"""The Nexus service's handlers: they start `ExecuteMethod`, and ask the workflows that own an instance.

A failure is raised as an ApplicationError, typed by code. The SDK would put an error of its own, without details, above
the cause of an OperationError, and callers look at the first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nexusrpc.handler import StartOperationContext, service_handler, sync_operation
from temporalio import nexus
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import Priority
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.calls import MethodCall, MethodResult
from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure, to_application_error
from integration_service.contracts.instances import IntegrationInstance
from integration_service.contracts.names import (
    EXECUTE_METHOD,
    connection_workflow_id,
    fairness_key,
    refresh_workflow_id,
)
from integration_service.contracts.nexus import (
    AuthorizeInstance,
    InstanceReference,
    IntegrationsService,
    RefreshInstance,
)
from integration_service.contracts.oauth import PendingAuthorization, RefreshAnswer
from integration_service.contracts.wire import parse
from integration_service.storage.instances import Instances

_OF_THE_REFERENCE = {"instanceId", "scope"}


@service_handler(service=IntegrationsService)
class IntegrationsHandler:
    """Runs on the queue that callers use."""

    def __init__(self, *, instances: Instances) -> None:
        self._instances = instances

    @nexus.workflow_run_operation
    async def execute_method(
        self, ctx: nexus.WorkflowRunOperationContext, call: MethodCall
    ) -> nexus.WorkflowHandle[MethodResult]:
        # A plan names the activity that is scheduled: whoever calls from another namespace does not choose among those
        # that a host has beside ours. A start that is tried again has the same request id, and so runs once.
        return await ctx.start_workflow(
            EXECUTE_METHOD,
            call.model_copy(update={"plan": None}).to_wire(),
            id=f"nexus:{ctx.request_id}",
            result_type=MethodResult,
            static_summary=f"{call.method} of {call.instance_id}",
            priority=Priority(fairness_key=fairness_key(call.scope, call.instance_id)),
        )

    @sync_operation
    async def connection_status(self, _: StartOperationContext, wanted: InstanceReference) -> dict[str, Any]:
        async with _failures():
            instance = await self._find(wanted)
            handle = nexus.client().get_workflow_handle(connection_workflow_id(instance.id))
            status: dict[str, Any] = await handle.query("status", result_type=dict)
            return status

    @sync_operation
    async def authorize(self, ctx: StartOperationContext, wanted: AuthorizeInstance) -> PendingAuthorization:
        async with _failures():
            instance = await self._find(wanted)
            answer = await _update(ctx, connection_workflow_id(instance.id), "authorize", wanted)
            return parse(PendingAuthorization, answer)

    @sync_operation
    async def refresh(self, ctx: StartOperationContext, wanted: RefreshInstance) -> RefreshAnswer:
        nobody = IntegrationError(
            ErrorCode.INSTANCE_NOT_CONNECTED, "it has no OAuth token to refresh; authorise it first", path="instanceId"
        )
        async with _failures(missing=nobody):
            instance = await self._find(wanted)
            return parse(RefreshAnswer, await _update(ctx, refresh_workflow_id(instance.id), "refresh", wanted))

    async def _find(self, wanted: InstanceReference) -> IntegrationInstance:
        return await self._instances.find(wanted.scope, wanted.instance_id)


async def _update(ctx: StartOperationContext, workflow_id: str, name: str, wanted: InstanceReference) -> Any:
    message = {key: value for key, value in wanted.to_wire().items() if key not in _OF_THE_REFERENCE}
    handle = nexus.client().get_workflow_handle(workflow_id)
    # An operation that outlasts one attempt attaches to the same update in the next.
    return await handle.execute_update(name, message, id=f"nexus:{ctx.request_id}", result_type=dict)


@asynccontextmanager
async def _failures(*, missing: IntegrationError | None = None) -> AsyncIterator[None]:
    """Our errors typed by code; whether Nexus tries again is as for everybody: outages only."""
    try:
        yield
    except IntegrationError as error:
        raise to_application_error(error, retry=error.code == ErrorCode.UNAVAILABLE) from None
    except WorkflowUpdateFailedError as error:
        found = from_failure(error.cause) or IntegrationError(ErrorCode.UNAVAILABLE, "it ended without a result")
        raise to_application_error(found) from None
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        found = missing or IntegrationError(
            ErrorCode.INSTANCE_NOT_FOUND, "no workflow owns that instance", path="instanceId"
        )
        raise to_application_error(found) from None
