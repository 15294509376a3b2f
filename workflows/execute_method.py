"""`ExecuteMethod`: one durable call of one method of one instance."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout

from integration_service.workflows.history import hand_on, handed_on, is_long
from integration_service.workflows.inputs import NOTHING, read_input

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.call_page import call_page
    from integration_service.contracts.call_status import UNREAD, CallStatus, starts
    from integration_service.contracts.calls import (
        CarriedCall,
        CarriedFailure,
        CarriedPark,
        Continuation,
        MethodCall,
        MethodPlan,
        MethodResult,
        Park,
        Parked,
        ResolvedMethod,
    )
    from integration_service.contracts.errors import (
        Decision,
        ErrorCode,
        IntegrationError,
        from_failure,
        to_application_error,
    )
    from integration_service.contracts.names import (
        EXECUTE_METHOD,
        INTEGRATION_DEFINITION,
        INTEGRATION_INSTANCE,
        INTEGRATION_METHOD,
        activity_type,
        execution_key,
        fairness_key,
        is_canonical_uuid,
    )
    from integration_service.contracts.retry import RetryConfig
    from integration_service.contracts.wire import JsonObject, parse

_RESOLVE_TIMEOUT = timedelta(seconds=20)
_AFTER_THE_SEND = timedelta(seconds=15)
_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
_MAX_LOST_WORKERS = 5
_WORKER_STOPPED = "WorkerShutdown"
"""Temporal's own: the worker gave the call up because its time to stop was over."""
_PATIENT_WAITS = 3
_FIRST_POLL = timedelta(seconds=1)
_LAST_POLL = timedelta(minutes=5)
_LONGEST_POLL = timedelta(hours=1)
"""For a call that has waited for a day or more."""
_NOTHING_SPENT: dict[str, Any] = {"spent": 0, "waits": 0, "lost": 0, "reserved": False}
_OUTAGE = RetryConfig(max_retries=0, backoff_multiplier=2, initial_delay_ms=500, max_delay_ms=30_000)
"""How waits grow where nobody says how long: after an outage, or a 429 that names no time."""


@workflow.defn(name=EXECUTE_METHOD)
class ExecuteMethod:
    """Input `MethodCall`, output `MethodResult`; fails with ApplicationErrors whose type is the error code."""

    def __init__(self) -> None:
        self._call: MethodCall
        self._state: CarriedCall
        self._connected = 0
        self._status = UNREAD

    @workflow.query(description="Where the call stands: why it waits and until when, and what to do.")
    def status(self) -> JsonObject:
        """The `CallStatus` that the page shows too."""
        return self._status.to_wire()

    @workflow.signal(description="Look at the instance that this call waits for: it is connected, or was given up.")
    def instance_connected(self) -> None:
        self._connected += 1

    @workflow.run
    async def run(self, call: RawValue = NOTHING) -> MethodResult:
        """`call` is read here and not by the converter: bad input fails the workflow, it does not hang it."""
        try:
            wanted, carried = handed_on(read_input(call))
            self._call = parse(MethodCall, wanted)
            if carried is not None:
                self._state = parse(CarriedCall, carried)
            else:
                deadline = workflow.now() + timedelta(milliseconds=self._call.deadline_ms)
                self._state = CarriedCall(deadline=deadline)
            result = await self._run()
        except IntegrationError as error:
            self._show(self._status.failed(error))
            raise to_application_error(error) from error.__cause__
        except (asyncio.CancelledError, FailureError) as failure:
            if is_cancelled_exception(failure):
                self._show(self._status.cancelled())
            raise
        self._show(self._status.done(result))
        return result

    async def _run(self) -> MethodResult:
        parent = workflow.info().parent
        called_by = parent.workflow_id if parent is not None else None
        self._show(starts(self._call, deadline=self._state.deadline, called_by=called_by))
        planned = self._planned()
        if planned is not None:
            _make_findable(planned)
            try:
                return await self._execute_or_park(planned)
            except IntegrationError as error:
                if error.code != ErrorCode.VERSION_CONFLICT:
                    raise
        resolved = self._state.resolved or await self._resolve()
        result = resolved.answer or await self._execute_or_park(resolved)
        if self._call.plan is not None and not resolved.cacheable:
            result = result.model_copy(update={"plan": resolved.plan})
        return result

    def _planned(self) -> ResolvedMethod | None:
        """What the call resolves to by its own word; None where it has none, or it was looked up already."""
        call, known = self._call, self._state.resolved is not None
        if known or not isinstance(call.plan, MethodPlan) or not call.method or not is_canonical_uuid(call.instance_id):
            return None
        return ResolvedMethod(**dict(call.plan), instance_id=call.instance_id, method=call.method)

    async def _resolve(self) -> ResolvedMethod:
        while True:
            try:
                resolved: ResolvedMethod = await workflow.execute_local_activity(
                    "resolve",
                    args=[self._call, Continuation(execution_key=_execution_key())],
                    result_type=ResolvedMethod,
                    start_to_close_timeout=_RESOLVE_TIMEOUT,
                    retry_policy=RetryPolicy(maximum_attempts=1),
                    summary="what the method is, and how it is retried",
                )
            except FailureError as failure:  # a local activity's failure comes as it is, not in an ActivityError
                if is_cancelled_exception(failure):
                    raise
                error = from_failure(failure)
                if error is None:
                    error = _lost(failure)
                    self._note(lost=self._state.lost + 1)
                    if self._state.lost > _MAX_LOST_WORKERS:
                        raise error from failure
                await self._wait(error)
                continue
            _make_findable(resolved)
            self._note(resolved=resolved, **_NOTHING_SPENT)
            return resolved

    async def _execute_or_park(self, resolved: ResolvedMethod) -> MethodResult:
        """With `onAuthError: "wait"` a refused credential is waited out, and the call goes on under the same key."""
        self._status = self._status.known(resolved)
        until = self._state.until
        if until is None:
            until = self._state.deadline
            if (patience := self._call.wait_timeout_ms) is not None:
                until = min(until, workflow.now() + timedelta(milliseconds=patience))
            self._note(until=until)
        while True:
            connected, park = self._connected, self._state.park
            if park is None:
                try:
                    return await self._execute(resolved)
                except IntegrationError as error:
                    if self._call.on_auth_error != "wait" or not _asks_for_authorization(error):
                        raise
                    failure = CarriedFailure(code=error.code, message=error.message, details=error.details)
                    park = CarriedPark(failure=failure, since=workflow.now())
            await self._park(resolved, park, connected=connected, until=until)
            self._note(park=None, **_NOTHING_SPENT)

    async def _park(self, resolved: ResolvedMethod, park: CarriedPark, *, connected: int, until: datetime) -> None:
        """Wait until somebody has authorised the instance. Raises the failure when nobody has by `until`, and what
        the instance is refused for once it is no longer one to be authorised."""
        failure = park.failure
        self._show(self._status.parked(failure.code, until))
        while self._connected == connected:
            self._note(park=park, looks=self._state.looks + 1)
            if is_long():
                hand_on(self._call, self._state)  # the next run looks at once, and has itself signalled
            parked = await self._note_waiter(resolved)
            if parked is not None and parked.connected and park.away:
                break
            if parked is not None and not parked.connected:
                park = park.model_copy(update={"away": True})
            wait = min(_until_next_look(self._state.looks, workflow.now() - park.since), until - workflow.now())
            if wait <= timedelta(0):
                raise IntegrationError(
                    failure.code, failure.message, path=failure.details.get("path"), details=failure.details
                )
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._connected != connected, timeout=wait, timeout_summary="looks how the instance stands"
                )
            if parked is not None and parked.connected:
                break

    async def _note_waiter(self, resolved: ResolvedMethod) -> Parked | None:
        try:
            parked: Parked = await workflow.execute_local_activity(
                "park",
                Park(instance_id=resolved.instance_id, scope=self._call.scope),
                result_type=Parked,
                start_to_close_timeout=_RESOLVE_TIMEOUT,
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary="notes who waits, and looks how the instance stands",
            )
        except FailureError as failure:
            if is_cancelled_exception(failure):
                raise
            error = from_failure(failure)
            if error is not None and error.decision is Decision.FIX_INPUT:
                raise error from failure
            return None
        return parked

    async def _execute(self, resolved: ResolvedMethod) -> MethodResult:
        name = activity_type(resolved.definition, resolved.method)
        call = self._call.model_copy(update={"instance_id": resolved.instance_id, "plan": None})
        plan = resolved.plan if self._state.resolved is None else None  # nobody looked it up: the activity checks it
        while True:
            spent = self._state.spent
            self._show(self._status.runs(spent=spent))
            try:
                result: MethodResult = await workflow.execute_activity(
                    name,
                    args=[
                        call,
                        Continuation(
                            execution_key=_execution_key(),
                            tries_spent=spent,
                            reserved=self._state.reserved,
                            plan=plan,
                        ),
                    ],
                    result_type=MethodResult,
                    start_to_close_timeout=timedelta(milliseconds=resolved.timeout_ms) + _AFTER_THE_SEND,
                    schedule_to_close_timeout=max(self._state.deadline - workflow.now(), timedelta(milliseconds=1)),
                    heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                    retry_policy=_policy(resolved.retry, tries=resolved.retry.max_tries - spent),
                    summary=f"version {resolved.definition_version}, instance {resolved.instance_id}",
                    priority=Priority(fairness_key=fairness_key(self._call.scope, resolved.instance_id)),
                )
                return result
            except ActivityError as failure:
                if is_cancelled_exception(failure):
                    raise
                error = from_failure(failure)
                if error is None:
                    # No answer from a worker: it died, or was cut off. Whether the request left is in the database.
                    error = _lost(failure)
                    self._note(lost=self._state.lost + 1)
                    if self._state.lost > _MAX_LOST_WORKERS or _broke(failure.cause):
                        raise error from failure
                elif error.code == ErrorCode.RATE_LIMITED and "triesSpent" not in error.details:
                    raise error from failure  # the definition does not wait for throttles
                self._note(spent=error.details.get("triesSpent", spent), reserved=bool(error.details.get("reserved")))
                await self._wait(error)

    async def _wait(self, error: IntegrationError) -> None:
        """Sleep on a durable timer if the failure is one to wait out and the deadline allows; else raise it."""
        self._note(waits=self._state.waits + 1)
        asked, waits = _asked(error), self._state.waits
        delay = asked if asked is not None else _OUTAGE.delay_after(waits)
        if waits > _PATIENT_WAITS and not error.details.get("reserved"):
            # An upstream that goes on asking for no wait at all gets one: neither it nor the history is hammered.
            delay = max(delay, _OUTAGE.delay_after(waits - _PATIENT_WAITS))
        if error.decision is not Decision.WAIT or workflow.now() + delay >= self._state.deadline:
            raise error
        self._show(self._status.waits(error, workflow.now() + delay, spent=self._state.spent))
        await workflow.sleep(delay, summary=f"{error.code}: waits, spends no retry")
        if is_long():
            hand_on(self._call, self._state)

    def _show(self, status: CallStatus) -> None:
        """Tells whoever opens the page or asks. No event comes of it: both are queried, not recorded."""
        self._status = status
        workflow.set_current_details(call_page(status))

    def _note(self, **changes: Any) -> None:
        self._state = self._state.model_copy(update=changes)


def _make_findable(resolved: ResolvedMethod) -> None:
    """Sets the search attributes that the start did not bring: each upsert is an event and a write of visibility."""
    known = workflow.info().typed_search_attributes
    wanted = (
        (INTEGRATION_DEFINITION, resolved.definition),
        (INTEGRATION_INSTANCE, resolved.instance_id),
        (INTEGRATION_METHOD, resolved.method),
    )
    missing = [key.value_set(value) for key, value in wanted if known.get(key) != value]
    if missing:
        workflow.upsert_search_attributes(missing)


def _until_next_look(looks: int, waited: timedelta) -> timedelta:
    """Signals are the way; looks are for one that was lost, or for a connection that stands although the call was
    just refused: its owner does not know yet, or its test knows better, and neither is asked in a rush."""
    poll = min(_FIRST_POLL * int(2 ** min(looks, 10)), _LAST_POLL)
    return min(max(poll, waited / 10), _LONGEST_POLL)


def _asks_for_authorization(error: IntegrationError) -> bool:
    if error.code == ErrorCode.INSTANCE_NOT_CONNECTED:
        return error.details.get("status") == "PENDING_AUTHENTICATION"
    return error.decision is Decision.REAUTHORISE


def _policy(retry: RetryConfig, *, tries: int) -> RetryPolicy:
    # Temporal takes no interval of 0 and no ceiling below the first interval.
    initial = timedelta(milliseconds=max(retry.initial_delay_ms, 1))
    return RetryPolicy(
        initial_interval=initial,
        backoff_coefficient=retry.backoff_multiplier,
        maximum_interval=max(timedelta(milliseconds=retry.max_delay_ms), initial),
        maximum_attempts=max(tries, 1),
    )


def _asked(error: IntegrationError) -> timedelta | None:
    asked = error.details.get("retryAfterMs")
    return timedelta(milliseconds=asked) if asked is not None else None


def _lost(failure: FailureError) -> IntegrationError:
    cause = failure.cause if isinstance(failure, ActivityError) else failure
    if isinstance(cause, ActivityTimeout):
        if cause.type in (TimeoutType.SCHEDULE_TO_CLOSE, TimeoutType.SCHEDULE_TO_START):
            return IntegrationError(ErrorCode.TIMEOUT, "deadlineMs passed", path="deadlineMs")
        return IntegrationError(ErrorCode.UNAVAILABLE, "the worker that ran the call was lost")
    if isinstance(cause, ApplicationError):
        return IntegrationError(ErrorCode.UNAVAILABLE, f"the worker failed ({cause.type})")
    return IntegrationError(ErrorCode.UNAVAILABLE, "the call was not run")


def _broke(cause: BaseException | None) -> bool:
    """Whether the worker itself failed, and will again; one that was stopped before the call ended has not."""
    return isinstance(cause, ApplicationError) and cause.type != _WORKER_STOPPED


def _execution_key() -> str:
    info = workflow.info()
    return execution_key(info.namespace, info.workflow_id, info.first_execution_run_id)
