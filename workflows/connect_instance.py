"""`ConnectInstance`: one long-running workflow per instance, the only writer of its status, config and version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from integration_service.workflows.inputs import NOTHING, read_input

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts import connections as names
    from integration_service.contracts.connections import (
        ConnectionRef,
        ConnectionState,
        PinnedVersion,
        PinVersion,
        StoreCredential,
        TestOutcome,
        WriteConnection,
    )
    from integration_service.contracts.definitions import IntegrationAuthType
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
        to_application_error,
    )
    from integration_service.contracts.instances import (
        Configure,
        ConnectInstanceInput,
        Disconnect,
        InstanceError,
        IntegrationInstanceStatus,
        Nothing,
        Observed,
        SubmitCredentials,
        Upgrade,
    )
    from integration_service.contracts.names import (
        CONNECT_INSTANCE,
        INTEGRATION_DEFINITION,
        INTEGRATION_INSTANCE,
        INTEGRATION_STATUS,
        connection_workflow_id,
        control_queue,
    )
    from integration_service.contracts.wire import JsonObject, WireModel, parse

Status = IntegrationInstanceStatus
Message = TypeVar("Message", bound=WireModel)
Result = TypeVar("Result")

_STORAGE_TIMEOUT = timedelta(seconds=30)
_TEST_TIMEOUT = timedelta(minutes=2)
_REFUSED = (ErrorCode.AUTH_ERROR, "HTTP_401", "HTTP_403")
_WHAT_TO_DO = {
    Status.PENDING_CONFIGURATION: "Send update `configure` with the values that are missing.",
    Status.PENDING_AUTHENTICATION: "Send update `submit_credentials`.",
    Status.CONNECTED: "Nothing to do.",
    Status.DISCONNECTED: "Send update `reconnect` to use it again, or `delete`.",
    Status.AUTH_ERROR: "The credential is refused: send update `submit_credentials` with a good one.",
    Status.CONFIG_ERROR: "Send update `configure` with a config that fits the definition's schema.",
}


@workflow.defn(name=CONNECT_INSTANCE)
class ConnectInstance:
    """Input `ConnectInstanceInput`, id ``connection:<instanceId>``; completes when the instance is deleted."""

    @workflow.init
    def __init__(self, wanted: RawValue = NOTHING) -> None:
        self._wanted: Any = None
        self._state: ConnectionState | None = None
        self._failed: ApplicationError | None = None
        self._suspect: int | None = None
        self._deleted = False
        self._writing = asyncio.Lock()

    @workflow.run
    async def run(self, wanted: RawValue = NOTHING) -> JsonObject:
        """`wanted` is read here and not by the converter: bad input fails the workflow, it does not hang it.

        A run that continues another gets ``{"wanted", "state"}``; from anyone else that is no input.
        """
        try:
            self._wanted = read_input(wanted)
            if resumed := workflow.info().continued_run_id is not None:
                self._state = parse(ConnectionState, self._wanted["state"])
                self._wanted = self._wanted["wanted"]
            self._input = parse(ConnectInstanceInput, self._wanted)
            await self._open(resumed=resumed)
        except (IntegrationError, ActivityError) as error:
            self._failed = _as_application_error(error)
            # Updates that waited for the start get the same answer before the workflow ends.
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._failed from None
        while not self._deleted:
            await workflow.wait_condition(self._has_work)
            if self._suspect is not None:
                await self._look_again()
            elif not self._deleted:
                await workflow.wait_condition(workflow.all_handlers_finished)
                # The handlers that were waited for may have brought work, or the end.
                if not self._deleted and self._suspect is None:
                    workflow.continue_as_new({"wanted": self._wanted, "state": self._state})
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.status()

    async def _look_again(self) -> None:
        """A call was refused: prove the credential, if it is still the one that was refused."""
        async with self._writing:
            suspect, self._suspect = self._suspect, None
            known = self._known
            if self._deleted or known.instance.status is not Status.CONNECTED or known.generation != suspect:
                return
            try:
                await self._settle(suspect=True)
            except ActivityError:
                workflow.logger.exception("a refused credential could not be proved again")

    def _has_work(self) -> bool:
        return self._deleted or self._suspect is not None or workflow.info().is_continue_as_new_suggested()

    async def _open(self, *, resumed: bool) -> None:
        if workflow.info().workflow_id != connection_workflow_id(self._input.instance_id):
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"the workflow's id must be {connection_workflow_id(self._input.instance_id)}: "
                "one workflow owns one instance",
                path="instanceId",
            )
        async with self._writing:
            if not resumed:
                self._see(await self._activity(names.OPEN_CONNECTION, self._input, ConnectionState))
                # A row that was found, and is settled, is adopted as it stands.
                if self._known.instance.status in (Status.PENDING_CONFIGURATION, Status.PENDING_AUTHENTICATION):
                    await self._settle()
            self._see(self._known)

    # What others may ask

    @workflow.query(description="The instance: status, error, config and times.")
    def status(self) -> JsonObject:
        """The `IntegrationInstance` with `authType`; before the row exists, what was asked for."""
        if self._state is None:
            wanted = self._wanted if isinstance(self._wanted, dict) else {}
            return {"id": wanted.get("instanceId"), "status": Status.PENDING_CONFIGURATION.value}
        return self._state.instance.to_wire()

    @workflow.signal(description="What a call met while it used the credential of that generation.")
    async def observed(self, message: Any = None) -> None:
        """Only news of the credential that is in use now counts."""
        try:
            seen = parse(Observed, message)
        except IntegrationError:
            workflow.logger.warning("a signal `observed` could not be read")
            return
        await self._opened()
        if seen.code in _REFUSED and seen.generation == self._known.generation:
            self._suspect = seen.generation

    # What others may do; each returns the status object

    @workflow.update(description="Wait until the start has settled; changes nothing.")
    async def await_settled(self, message: Any = None) -> JsonObject:
        _read(Nothing, message)
        async with self._turn():
            return self.status()

    @workflow.update(description="Replace the instance's config.")
    async def configure(self, message: Any = None) -> JsonObject:
        wanted = _read(Configure, message)
        async with self._turn():
            disconnected = self._known.instance.status is Status.DISCONNECTED
            await self._write(self._known.instance.status, self._known.instance.error, config=wanted.config)
            if not disconnected:
                await self._settle()
        return self.status()

    @workflow.update(description="Store a sealed credential and prove it.")
    async def submit_credentials(self, message: Any = None) -> JsonObject:
        wanted = _read(SubmitCredentials, message)
        async with self._turn():
            stored = StoreCredential(instance=self._known.instance, sealed=wanted.sealed)
            self._see(await self._activity(names.STORE_CREDENTIAL, stored, ConnectionState))
            await self._settle()
        return self.status()

    @workflow.update(description="Prove the credential again.")
    async def test(self, message: Any = None) -> JsonObject:
        _read(Nothing, message)
        async with self._turn():
            if self._known.instance.status is not Status.DISCONNECTED:
                await self._settle()
        return self.status()

    @workflow.update(description="Pin the instance to another published version.")
    async def upgrade(self, message: Any = None) -> JsonObject:
        wanted = _read(Upgrade, message)
        async with self._turn():
            instance = self._known.instance
            pinned = await self._activity(
                names.PIN_VERSION, PinVersion(instance=instance, version=wanted.version), PinnedVersion
            )
            if not pinned.same_auth:
                self._see(await self._activity(names.ERASE_CREDENTIAL, self._ref(), ConnectionState))
            await self._write(instance.status, instance.error, definition_id=pinned.definition_id)
            if instance.status is not Status.DISCONNECTED:
                await self._settle()
        return self.status()

    @workflow.update(description="Erase the credential and stop using the instance.")
    async def disconnect(self, message: Any = None) -> JsonObject:
        _read(Disconnect, message)
        async with self._turn():
            self._see(await self._activity(names.ERASE_CREDENTIAL, self._ref(), ConnectionState))
            await self._write(Status.DISCONNECTED, None)
        return self.status()

    @workflow.update(description="Take a disconnected instance into use again.")
    async def reconnect(self, message: Any = None) -> JsonObject:
        _read(Nothing, message)
        async with self._turn():
            await self._settle()
        return self.status()

    @workflow.update(description="Erase the instance, free its name and end this workflow.")
    async def delete(self, message: Any = None) -> JsonObject:
        _read(Nothing, message)
        async with self._turn():
            if self._known.instance.status is not Status.DISCONNECTED:
                await self._write(Status.DISCONNECTED, None)
            await self._activity(names.DELETE_INSTANCE, self._ref(), type(None))
            self._deleted = True
            workflow.set_current_details(f"**{self._input.name}** was **deleted**; its audit rows stay.")
        return self.status()

    # Refusing a message that cannot be read before it enters history

    @configure.validator
    def _check_configure(self, message: Any = None) -> None:
        _read(Configure, message)

    @submit_credentials.validator
    def _check_submit_credentials(self, message: Any = None) -> None:
        _read(SubmitCredentials, message)

    @upgrade.validator
    def _check_upgrade(self, message: Any = None) -> None:
        _read(Upgrade, message)

    # How it decides

    async def _settle(self, *, suspect: bool = False) -> None:
        """Bring the status to what config and credential say; `suspect` means that a call was refused."""
        state = self._known
        if state.config_problem is not None:
            status = Status.PENDING_CONFIGURATION if state.unconfigured else Status.CONFIG_ERROR
            return await self._write(status, None if state.unconfigured else state.config_problem)
        if state.instance.auth_type is not IntegrationAuthType.NONE and state.generation == 0:
            return await self._write(Status.PENDING_AUTHENTICATION, None)
        kept = state.instance.status
        if kept not in (Status.CONNECTED, Status.AUTH_ERROR):
            kept = Status.PENDING_AUTHENTICATION
        try:
            outcome = await self._activity(names.TEST_CONNECTION, self._ref(), TestOutcome, within=_TEST_TIMEOUT)
        except ActivityError as failure:
            error = from_failure(failure) or IntegrationError(
                ErrorCode.UNAVAILABLE, "connectionTest gave no answer in time"
            )
            if error.code in _REFUSED:
                return await self._write(Status.AUTH_ERROR, _refused(error))
            shown = IntegrationError(error.code, f"connectionTest: {error.message}", path=error.path)
            return await self._write(kept, InstanceError.of(shown))
        if suspect and not outcome.tested:
            return await self._write(
                Status.AUTH_ERROR,
                _refused(IntegrationError(ErrorCode.AUTH_ERROR, "a call was refused with 401")),
            )
        await self._write(Status.CONNECTED, None)

    async def _write(
        self,
        status: Status,
        error: InstanceError | None,
        *,
        config: JsonObject | None = None,
        definition_id: str | None = None,
    ) -> None:
        """Write the row; when another writer came between, read it again and go on."""
        while True:
            instance = self._known.instance
            wanted = WriteConnection(
                instance=instance,
                status=status,
                error=error,
                config=instance.config if config is None else config,
                definition_id=definition_id or instance.integration_definition_id,
            )
            if (status, error, config, definition_id) == (instance.status, instance.error, None, None):
                return
            try:
                return self._see(await self._activity(names.WRITE_CONNECTION, wanted, ConnectionState))
            except ActivityError as failure:
                conflict = from_failure(failure)
                if conflict is None or conflict.code != ErrorCode.VERSION_CONFLICT:
                    raise
                self._see(await self._activity(names.LOAD_CONNECTION, self._ref(), ConnectionState))

    # How it works

    @property
    def _known(self) -> ConnectionState:
        if self._state is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "the instance is not open yet")
        return self._state

    def _ref(self) -> ConnectionRef:
        return ConnectionRef(instance_id=self._input.instance_id, scope=self._input.scope)

    async def _opened(self) -> None:
        await workflow.wait_condition(lambda: self._state is not None or self._failed is not None)
        if self._failed is not None:
            raise self._failed

    def _turn(self) -> _Turn:
        return _Turn(self._opened, self._writing, lambda: self._deleted)

    def _see(self, state: ConnectionState) -> None:
        """Take over what the row says, and show it to whoever looks at the workflow."""
        self._state = state
        instance = state.instance
        workflow.upsert_search_attributes(
            [
                INTEGRATION_DEFINITION.value_set(instance.definition),
                INTEGRATION_INSTANCE.value_set(instance.id),
                INTEGRATION_STATUS.value_set(instance.status.value),
            ]
        )
        lines = [
            f"**{instance.name}** is **{instance.status.value}** ({instance.definition} {instance.definition_version})"
        ]
        if instance.error is not None:
            lines.append(f"{instance.error.code}: {instance.error.message}")
        lines.append(_WHAT_TO_DO[instance.status])
        workflow.set_current_details("\n\n".join(lines))

    async def _activity(
        self, name: str, argument: WireModel, result: type[Result], *, within: timedelta | None = None
    ) -> Result:
        answer: Result = await workflow.execute_activity(
            name,
            argument,
            result_type=result,
            task_queue=control_queue(workflow.info().task_queue),
            start_to_close_timeout=within or _STORAGE_TIMEOUT,
            schedule_to_close_timeout=within,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=_STORAGE_TIMEOUT),
            summary=self._input.name,
        )
        return answer


class _Turn:
    """One update's turn: after the start, one at a time, its failures typed by code."""

    def __init__(self, opened: Callable[[], Any], lock: asyncio.Lock, deleted: Callable[[], bool]) -> None:
        self._opened = opened
        self._lock = lock
        self._is_deleted = deleted

    async def __aenter__(self) -> None:
        await self._opened()
        await self._lock.acquire()
        if self._is_deleted():
            self._lock.release()
            raise to_application_error(
                IntegrationError(ErrorCode.INSTANCE_NOT_FOUND, "the instance was deleted", path="instanceId")
            )

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._lock.release()
        if isinstance(error, ActivityError | IntegrationError):
            raise _as_application_error(error) from None


def _read(model: type[Message], message: Any) -> Message:
    try:
        return parse(model, {} if message is None else message)
    except IntegrationError as error:
        raise to_application_error(error) from None


def _refused(error: IntegrationError) -> InstanceError:
    """AUTH_ERROR whatever the status was: 401 and 403 in `connectionTest` mean the same."""
    shown = IntegrationError(ErrorCode.AUTH_ERROR, error.message, details=error.details)
    return InstanceError.of(shown, advice="submit a credential that it accepts")


def _as_application_error(error: IntegrationError | ActivityError) -> ApplicationError:
    if isinstance(error, IntegrationError):
        return to_application_error(error)
    found = from_failure(error) or IntegrationError(ErrorCode.UNAVAILABLE, "a step of the connection could not be done")
    return to_application_error(found)
