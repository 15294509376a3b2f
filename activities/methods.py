"""Method activities: one dynamic activity serves every name `<definition>.<method>`, one local one resolves calls."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from integration_service.activities.breaker_news import tell_of_breaker
from integration_service.activities.execution.attempt import Attempt, heartbeats
from integration_service.activities.execution.handover import Handover
from integration_service.activities.execution.outcome import failure, is_throttle
from integration_service.activities.execution.pipeline import MethodPipeline
from integration_service.activities.execution.target import Progress, Target, require_connected
from integration_service.contracts.calls import Continuation, MethodCall, MethodResult, Park, Parked, ResolvedMethod
from integration_service.contracts.errors import (
    Decision,
    ErrorCode,
    IntegrationError,
    to_application_error,
    unexpected_in_call,
)
from integration_service.contracts.instances import IntegrationInstanceStatus, Observed
from integration_service.contracts.names import connection_workflow_id
from integration_service.contracts.wire import parse
from integration_service.storage.database import within_scope
from integration_service.storage.instances import InstanceForCall, Instances
from integration_service.storage.waiters import Waiters
from integration_service.telemetry.logs import now_belongs_to

Model = TypeVar("Model", bound=BaseModel)


WAITED_OUT = (IntegrationInstanceStatus.AUTH_ERROR, IntegrationInstanceStatus.PENDING_AUTHENTICATION)
"""What `onAuthError: "wait"` waits out: somebody is to authorise the instance."""


class MethodActivities:
    """What runs on the task queue that callers use."""

    def __init__(
        self,
        *,
        pipeline: MethodPipeline,
        instances: Instances,
        waiters: Waiters,
    ) -> None:
        self._pipeline = pipeline
        self._instances = instances
        self._waiters = waiters
        self._handover = Handover()

    @activity.defn(name="resolve")
    async def resolve(self, call: MethodCall, continuation: Continuation | None = None) -> ResolvedMethod:
        """What `ExecuteMethod` needs to schedule the method's activity, or the cached answer (a local activity).

        Raises ApplicationError typed by code; UNAVAILABLE tells the workflow to wait and ask again.
        """
        try:
            if call.method is None:
                raise IntegrationError(ErrorCode.VALIDATION_ERROR, "required key is missing", path="method")
            progress = Progress()
            target = progress.target = await self._look_up(call)
            instance, method = target.instance, target.method.method
            answer = None
            if continuation is not None:
                answer = await self._pipeline.at_hand(call, Attempt.current(continuation), progress)
        except IntegrationError as error:
            raise to_application_error(error) from None
        if answer is None:
            self._handover.leave(str(activity.info().workflow_run_id), method.name, instance)
        return ResolvedMethod(
            **dict(target.plan),
            instance_id=instance.id,
            method=method.name,
            cacheable=method.cache is not None,
            answer=answer,
        )

    @activity.defn(name="park")
    async def park(self, wanted: Park) -> Parked:
        """Note that the calling workflow waits for the instance (a local activity); then look how it stands.

        Raises ApplicationError typed by code where there is nothing to wait for: it was deleted, disconnected, or
        needs another config.
        """
        info = activity.info()
        try:
            await self._waiters.add(
                instance_id=wanted.instance_id,
                workflow_id=str(info.workflow_id),
                run_id=str(info.workflow_run_id),
            )
            instance = await self._instances.for_call(wanted.scope, wanted.instance_id)
            if instance.status not in WAITED_OUT:
                require_connected(instance)
        except IntegrationError as error:
            raise to_application_error(error) from None
        return Parked(
            connected=instance.status is IntegrationInstanceStatus.CONNECTED,
            generation=instance.credential.generation if instance.credential else 0,
        )

    @activity.defn(dynamic=True)
    async def run_method(self, arguments: Sequence[RawValue]) -> MethodResult:
        """Activity `<definition>.<method>`: input `MethodCall`, output `MethodResult`.

        From `ExecuteMethod` a second argument, `Continuation`, says that its caller parks. Raises ApplicationError
        typed by code, whatever goes wrong; the definition's retry limits hold whatever policy the caller brought.
        """
        try:
            return await self._run(arguments)
        except ApplicationError:
            raise
        except Exception as error:
            raise unexpected_in_call(error) from None

    async def _run(self, arguments: Sequence[RawValue]) -> MethodResult:
        progress = Progress()
        attempt: Attempt | None = None
        try:
            call, continuation, definition = _read(arguments)
            attempt = Attempt.current(continuation)
            now_belongs_to(instanceId=call.instance_id, method=call.method, correlationId=call.correlation_id)
            # The input of a dynamic activity is raw to what stands around it: here the scope is known first.
            with within_scope(call.scope), heartbeats(attempt):
                try:
                    found = await self._found(call, attempt, continuation)
                    return await self._pipeline.run(call, attempt, progress, definition=definition, instance=found)
                finally:
                    await tell_of_breaker(progress)
        except IntegrationError as error:
            if attempt is None:
                raise to_application_error(error) from None
            await self._tell_owner(error, progress)
            raise self._failure(error, attempt, progress) from None

    async def _found(
        self, call: MethodCall, attempt: Attempt, continuation: Continuation | None
    ) -> InstanceForCall | None:
        """The instance, where it was read just now: by `resolve`, or here to check what the caller planned with.

        Raises ApplicationError VERSION_CONFLICT for another plan than the method's; `ExecuteMethod` then looks it up.
        A later attempt finds the policy that the first one was scheduled with, whatever version it meets.
        """
        if continuation is None or attempt.number > 1:
            return None
        if continuation.plan is None:
            return self._handover.take(str(attempt.run_id), str(call.method), call.instance_id, scope=call.scope)
        target = await self._look_up(call)
        if target.plan != continuation.plan:
            version = f"{target.compiled.definition.name} {target.compiled.definition.version}"
            late = IntegrationError(
                ErrorCode.VERSION_CONFLICT, f"the call's plan is not the method's in {version}", path="plan"
            )
            # After an upgrade the next call of each client and method brings a late one.
            raise to_application_error(late, expected=True)
        return target.instance

    async def _look_up(self, call: MethodCall) -> Target:
        """What the call is of. Raises IntegrationError where it is refused before there is an attempt to record."""
        target = await self._pipeline.find(call)
        if call.on_auth_error != "wait" or target.instance.status not in WAITED_OUT:
            require_connected(target.instance)
        return target

    def _failure(self, error: IntegrationError, attempt: Attempt, progress: Progress) -> ApplicationError:
        if not attempt.parks and is_throttle(error, progress):
            attempt.note_throttle(reserved="reserved" in error.details)
        return failure(error, attempt=attempt, progress=progress)

    async def _tell_owner(self, error: IntegrationError, progress: Progress) -> None:
        """Let the instance's workflow know that its credential is refused; it alone writes the status."""
        instance = progress.target.instance if progress.target else None
        if instance is None or instance.credential is None or error.decision is not Decision.REAUTHORISE:
            return
        if instance.status is not IntegrationInstanceStatus.CONNECTED:
            return  # it knows
        cause = error.details.get("cause")
        news = Observed(generation=instance.credential.generation, code=error.code, cause=cause)
        owner = client().get_workflow_handle(connection_workflow_id(instance.id))
        # A terminated owner is no reason to fail differently: the call's own failure says what is wrong.
        with contextlib.suppress(RPCError):
            await owner.signal("observed", news)


def client() -> Client:
    """The worker's own client."""
    return activity.client()


def _read(arguments: Sequence[RawValue]) -> tuple[MethodCall, Continuation | None, str]:
    definition, _, method = activity.info().activity_type.partition(".")
    if not method:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR,
            "an activity's type is <definition>.<method>",
            details={"activityType": activity.info().activity_type},
        )
    if not arguments:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the activity takes a MethodCall")
    call = _argument(MethodCall, arguments[0])
    if call.method not in (None, method):
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the activity's type names another method", path="method")
    continuation = _argument(Continuation, arguments[1]) if len(arguments) > 1 else None
    return call if call.method else call.model_copy(update={"method": method}), continuation, definition


def _argument(model: type[Model], raw: RawValue) -> Model:
    try:
        value: Any = activity.payload_converter().from_payload(raw.payload)
    except Exception:
        raise IntegrationError(ErrorCode.VALIDATION_ERROR, "the input cannot be decoded as JSON") from None
    return parse(model, value)
