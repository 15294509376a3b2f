"""How a call gets a newer token: it asks the instance's `RefreshOAuth`, which asks the provider once for all."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from integration_service.contracts.errors import ErrorCode, IntegrationError, from_failure
from integration_service.contracts.names import REFRESH_OAUTH, refresh_workflow_id
from integration_service.contracts.oauth import RefreshAnswer, RefreshInput, RefreshWanted
from integration_service.storage.instances import InstanceForCall, Instances

_SOON = timedelta(seconds=1)


class TokenRenewal:
    """Asks for a newer token than the one a call has met expired or refused."""

    def __init__(self, *, instances: Instances, control_queue: str) -> None:
        self._instances = instances
        self._control_queue = control_queue

    async def renew(self, instance: InstanceForCall, *, within: timedelta) -> InstanceForCall:
        """The instance with a newer credential.

        Raises IntegrationError REAUTH_REQUIRED, or UNAVAILABLE with the wait that the refresh asks for.
        """
        seen = instance.credential.generation if instance.credential else 0
        current = await self._instances.for_call(instance.scope, instance.id)
        if current.credential is not None and current.credential.generation != seen:
            return current  # somebody was faster
        # All callers that met this generation ask under one id, and Temporal runs the first of them only. A request
        # that failed has its count in the database, so the next round has an id of its own.
        answer = await self._ask(instance, seen, f"refresh:{seen}:{current.refresh_sends}", within)
        if answer.generation == seen and answer.retry_at is not None and answer.retry_at <= datetime.now(UTC):
            # An answer of a round that is over, and that left no trace in the database.
            answer = await self._ask(instance, seen, f"refresh:{seen}:{uuid.uuid4()}", within)
        if answer.generation == seen:
            wait = _SOON
            if answer.retry_at is not None:
                wait = max(answer.retry_at - datetime.now(UTC), timedelta(0))
            raise IntegrationError(ErrorCode.UNAVAILABLE, "no newer token could be had yet", retry_after=wait)
        return await self._instances.for_call(instance.scope, instance.id)

    async def _ask(self, instance: InstanceForCall, seen: int, name: str, within: timedelta) -> RefreshAnswer:
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await self._update(instance, RefreshWanted(seen_generation=seen), name)
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            raise IntegrationError(
                ErrorCode.UNAVAILABLE, "the refresh takes longer than this attempt may", retry_after=_SOON
            ) from None
        except WorkflowUpdateFailedError as error:
            raise from_failure(error.cause) or IntegrationError(
                ErrorCode.UNAVAILABLE, "the refresh gave no answer", retry_after=_SOON
            ) from None
        except RPCError as error:
            raise IntegrationError(
                ErrorCode.UNAVAILABLE, f"Temporal answered {error.status.name}", retry_after=_SOON
            ) from None

    async def _update(self, instance: InstanceForCall, wanted: RefreshWanted, name: str) -> RefreshAnswer:
        temporal: Client = activity.client()
        workflow_id = refresh_workflow_id(instance.id)
        try:
            answer: RefreshAnswer = await temporal.get_workflow_handle(workflow_id).execute_update(
                "refresh", wanted.to_wire(), id=name, result_type=RefreshAnswer
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            # Somebody terminated it: whoever needs it starts it.
            start: WithStartWorkflowOperation[None, None] = WithStartWorkflowOperation(
                REFRESH_OAUTH,
                RefreshInput(instance_id=instance.id, scope=instance.scope).to_wire(),
                id=workflow_id,
                task_queue=self._control_queue,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"keeps the token of {instance.id} fresh",
            )
            answer = await temporal.execute_update_with_start_workflow(
                "refresh", wanted.to_wire(), start_workflow_operation=start, id=name, result_type=RefreshAnswer
            )
        return answer
