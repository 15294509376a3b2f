"""`ConnectInstance`: one long-running workflow per instance, the only writer of its status, config and version."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from integration_service.workflows.history import hand_on, handed_on, is_long
from integration_service.workflows.inputs import NOTHING, read_input
from integration_service.workflows.messages import Turn, as_application_error, read_message
from integration_service.workflows.oauth_connection import (
    EXCHANGE_TIMEOUT,
    REQUEST_TIMEOUT,
    OAuthConnection,
    lost_grant,
)

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts import connections as names
    from integration_service.contracts import oauth
    from integration_service.contracts.connection_page import deleted_page
    from integration_service.contracts.connections import (
        BeginAuthorization,
        CompleteAuthorization,
        ConnectionCarried,
        ConnectionState,
        ConnectionTest,
        PinnedVersion,
        PinVersion,
        StoreCredential,
        TestOutcome,
    )
    from integration_service.contracts.definitions import IntegrationAuthType
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
    )
    from integration_service.contracts.instances import (
        REFRESHED,
        BreakerNews,
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
        connection_tests_queue,
        connection_workflow_id,
    )
    from integration_service.contracts.oauth import Authorize, PendingAuthorization
    from integration_service.contracts.wire import JsonObject, format_time, parse

Status = IntegrationInstanceStatus

_TEST_TIMEOUT = timedelta(minutes=2)
_MACHINE_GRANTS = ("client_credentials", "jwt_bearer")
_REFUSED = (ErrorCode.AUTH_ERROR, "HTTP_401", "HTTP_403")


@workflow.defn(name=CONNECT_INSTANCE)
class ConnectInstance(OAuthConnection):
    """Input `ConnectInstanceInput`, id ``connection:<instanceId>``; completes when the instance is deleted."""

    @workflow.init
    def __init__(self, wanted: RawValue = NOTHING) -> None:
        super().__init__()
        self._wanted: Any = None
        self._failed: ApplicationError | None = None
        self._suspect: int | None = None
        self._refreshed = False
        self._deleted = False

    @workflow.run
    async def run(self, wanted: RawValue = NOTHING) -> JsonObject:
        """`wanted` is read here and not by the converter: bad input fails the workflow, it does not hang it."""
        try:
            self._wanted, carried = handed_on(read_input(wanted))
            if carried is not None:
                self._resume(parse(ConnectionCarried, carried))
            self._input = parse(ConnectInstanceInput, self._wanted)
            await self._open(resumed=carried is not None)
        except (IntegrationError, ActivityError) as error:
            self._failed = as_application_error(error)
            # Updates that waited for the start get the same answer before the workflow ends.
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._failed from None
        while not self._deleted:
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    self._has_work, timeout=self._patience(), timeout_summary="until the next request of a first token"
                )
            if self._given_up is not None:
                await self._give_up()
            elif self._refreshed:
                await self._look_at_new_token()
            elif self._suspect is not None:
                await self._look_again()
            elif self._polls() and not is_long():
                await self._poll_device()
            elif not self._has_work():
                await self._ask_again()
            elif not self._deleted:
                await workflow.wait_condition(workflow.all_handlers_finished)
                # The handlers that were waited for may have brought work, or the end.
                if not self._has_news():
                    hand_on(self._wanted, self._carried())
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.status()

    async def _look_again(self) -> None:
        """A call was refused: prove the credential, if it is still the one that was refused."""
        async with self._writing:
            suspect, self._suspect = self._suspect, None
            known = self._known
            if (
                self._deleted
                or known.instance.status is not Status.CONNECTED
                or suspect is None
                or known.generation > suspect
            ):
                return
            try:
                await self._settle(suspect=True)
            except ActivityError:
                workflow.logger.exception("a refused credential could not be proved again")

    async def _look_at_new_token(self) -> None:
        """The old token was refused; the new one may do."""
        async with self._writing:
            self._refreshed = False
            if self._deleted or self._known.instance.status is not Status.AUTH_ERROR:
                return
            try:
                await self._settle()
            except ActivityError:
                workflow.logger.exception("a new token could not be proved")

    def _has_news(self) -> bool:
        return self._deleted or self._refreshed or self._suspect is not None or self._given_up is not None

    def _has_work(self) -> bool:
        return self._has_news() or self._polls() or is_long()

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
                elif self._known.token is not None and self._known.instance.status is Status.CONNECTED:
                    await self._start_refresh(self._known.token)  # it may have been terminated with its owner
            self._see(self._known)

    # What others may ask

    @workflow.query(description="The instance: status, error, config and times.")
    def status(self) -> JsonObject:
        """The `IntegrationInstance` with `authType`; before the row exists, what was asked for."""
        if self._state is None:
            wanted = self._wanted if isinstance(self._wanted, dict) else {}
            return {"id": wanted.get("instanceId"), "status": Status.PENDING_CONFIGURATION.value}
        state, token = self._state, self._state.token
        shown = state.instance.to_wire()
        if (error := self._error()) is not None:
            shown["error"] = error.to_wire()
        pending = self._pending
        if (
            pending is not None
            and state.instance.status is Status.PENDING_AUTHENTICATION
            and workflow.now() < pending.expires_at
        ):
            shown["authorizationUrl"] = pending.authorization_url
            if pending.user_code is not None:
                shown["userCode"] = pending.user_code
        if token is not None:
            known = token.to_wire()
            shown |= {key: known[key] for key in ("expiresAt", "grantedScope") if key in known}
            if (at := token.next_refresh_at) is not None and state.instance.status is Status.CONNECTED:
                shown["nextRefreshAt"] = format_time(at)
        if state.missing_scope:
            shown["missingScope"] = state.missing_scope
        return shown

    @workflow.signal(description="What a call met while it used the credential of that generation.")
    async def observed(self, message: Any = None) -> None:
        """Only news of the credential that is in use now counts."""
        try:
            seen = parse(Observed, message)
        except IntegrationError:
            workflow.logger.warning("a signal `observed` could not be read")
            return
        await self._opened()
        if self._known.generation == 0 or seen.generation < self._known.generation:
            return
        if seen.code == REFRESHED and seen.token is not None:
            self._renewed(seen.token)
            is_alive = seen.token.expires_at is None or seen.token.expires_at > workflow.now()
            self._refreshed = is_alive and self._known.instance.status is Status.AUTH_ERROR
        elif seen.code == ErrorCode.REAUTH_REQUIRED:
            self._given_up = seen
        elif seen.code in _REFUSED:
            self._suspect = seen.generation

    @workflow.signal(description="An upstream's circuit breaker opened or closed.")
    async def breaker_changed(self, message: Any = None) -> None:
        """Shown beside the status, which it does not change: the credential is as good as before."""
        try:
            news = parse(BreakerNews, message)
        except IntegrationError:
            workflow.logger.warning("a signal `breaker_changed` could not be read")
            return
        await self._opened()
        self._breakers.hear(news)
        self._show()

    # What others may do; each returns the status object

    @workflow.update(description="Wait until the start has settled; changes nothing.")
    async def await_settled(self, message: Any = None) -> JsonObject:
        read_message(Nothing, message)
        async with self._turn():
            return self.status()

    @workflow.update(description="Replace the instance's config.")
    async def configure(self, message: Any = None) -> JsonObject:
        wanted = read_message(Configure, message)
        async with self._turn():
            disconnected = self._known.instance.status is Status.DISCONNECTED
            await self._write(self._known.instance.status, self._known.instance.error, config=wanted.config)
            if not disconnected:
                await self._settle(renew=True)
        return self.status()

    @workflow.update(description="Store a sealed credential and prove it.")
    async def submit_credentials(self, message: Any = None) -> JsonObject:
        wanted = read_message(SubmitCredentials, message)
        async with self._turn():
            stored = StoreCredential(instance=self._known.instance, sealed=wanted.sealed)
            try:
                found = await self._activity(names.STORE_CREDENTIAL, stored, ConnectionState, within=EXCHANGE_TIMEOUT)
            except ActivityError as failure:
                error = from_failure(failure)
                if error is None or error.code != ErrorCode.REAUTH_REQUIRED:
                    raise
                await self._write(Status.AUTH_ERROR, _refused(error))  # a wrong password is an answer
            else:
                self._see(found)
                await self._settle()
        return self.status()

    @workflow.update(description="Begin an authorization: the URL that a person opens.")
    async def authorize(self, message: Any = None) -> JsonObject:
        """Returns `authorizationUrl` and `expiresAt`; in the device flow `userCode` too. The connection that is
        there goes on until the new one is."""
        wanted = read_message(Authorize, message)
        async with self._turn():
            state = self._known
            if state.config_problem is not None:
                raise IntegrationError(
                    ErrorCode.CONFIG_ERROR, f"configure it first: {state.config_problem.message}", path="config"
                )
            begun = BeginAuthorization(instance=state.instance, wanted=wanted)
            self._pending = await self._activity(
                oauth.BEGIN_AUTHORIZATION, begun, PendingAuthorization, within=REQUEST_TIMEOUT
            )
            self._interval = timedelta(milliseconds=self._pending.interval_ms or 5_000)
            self._show()
            if state.instance.status is Status.DISCONNECTED:
                await self._write(Status.PENDING_AUTHENTICATION, None)
            return self._pending.to_wire()

    @workflow.update(description="Finish an authorization with what came back with the person.")
    async def complete_authorization(self, message: Any = None) -> JsonObject:
        wanted = read_message(CompleteAuthorization, message)
        async with self._turn():
            await self._complete(wanted)
        return self.status()

    @workflow.update(description="Prove the credential again.")
    async def test(self, message: Any = None) -> JsonObject:
        read_message(Nothing, message)
        async with self._turn():
            if self._known.instance.status is not Status.DISCONNECTED:
                await self._settle(renew=True)
        return self.status()

    @workflow.update(description="Pin the instance to another published version.")
    async def upgrade(self, message: Any = None) -> JsonObject:
        wanted = read_message(Upgrade, message)
        async with self._turn():
            instance = self._known.instance
            pinned = await self._activity(
                names.PIN_VERSION, PinVersion(instance=instance, version=wanted.version), PinnedVersion
            )
            if not pinned.same_auth:
                # As in `disconnect`: the new version has no use for it, and no way to revoke it.
                await self._stop_refresh()
                await self._revoke()
                await self._erase_credential()
            await self._write(instance.status, instance.error, definition_id=pinned.definition_id)
            if instance.status is not Status.DISCONNECTED:
                await self._settle(renew=True)
        return self.status()

    @workflow.update(description="Erase the credential and stop using the instance.")
    async def disconnect(self, message: Any = None) -> JsonObject:
        wanted = read_message(Disconnect, message)
        async with self._turn():
            # Nobody spends the token any more; then it is revoked, then erased.
            await self._stop_refresh()
            if wanted.revoke:
                await self._revoke()
            await self._erase_credential()
            await self._write(Status.DISCONNECTED, None)
        return self.status()

    @workflow.update(description="Take a disconnected instance into use again.")
    async def reconnect(self, message: Any = None) -> JsonObject:
        read_message(Nothing, message)
        async with self._turn():
            await self._settle()
        return self.status()

    @workflow.update(description="Erase the instance, free its name and end this workflow.")
    async def delete(self, message: Any = None) -> JsonObject:
        read_message(Nothing, message)
        async with self._turn():
            await self._stop_refresh()
            await self._revoke()
            if self._known.instance.status is not Status.DISCONNECTED:
                await self._write(Status.DISCONNECTED, None)
            await self._activity(names.DELETE_INSTANCE, self._ref(), type(None))
            self._deleted = True
            workflow.set_current_details(deleted_page(self._input.name))
        return self.status()

    # Refusing a message that cannot be read before it enters history

    @configure.validator
    def _check_configure(self, message: Any = None) -> None:
        read_message(Configure, message)

    @submit_credentials.validator
    def _check_submit_credentials(self, message: Any = None) -> None:
        read_message(SubmitCredentials, message)

    @authorize.validator
    def _check_authorize(self, message: Any = None) -> None:
        read_message(Authorize, message)

    @complete_authorization.validator
    def _check_complete_authorization(self, message: Any = None) -> None:
        read_message(CompleteAuthorization, message)

    @upgrade.validator
    def _check_upgrade(self, message: Any = None) -> None:
        read_message(Upgrade, message)

    # How it decides

    async def _settle(self, *, suspect: bool = False, renew: bool = False) -> None:
        """Bring the status to what config and credential say; `suspect` means that a call was refused.

        With `renew` a token that `connectionTest` finds refused is renewed once. Only for somebody who asks: were
        the looks that a new token causes to renew it, one whose tokens are all refused would never rest.
        """
        state = self._known
        if state.config_problem is not None:
            status = Status.PENDING_CONFIGURATION if state.unconfigured else Status.CONFIG_ERROR
            return await self._write(status, None if state.unconfigured else state.config_problem)
        if state.instance.auth_type is not IntegrationAuthType.NONE and state.generation == 0:
            if state.grant not in _MACHINE_GRANTS:
                return await self._write(Status.PENDING_AUTHENTICATION, None)
            try:
                await self._request_first_token()
            except ActivityError as failure:
                self._requests_failed += 1
                error = from_failure(failure) or IntegrationError(ErrorCode.UNAVAILABLE, "no token could be had")
                return await self._write(Status.PENDING_AUTHENTICATION, InstanceError.of(error))
        self._requests_failed = 0
        if self._known.token is not None:
            # Running before CONNECTED is visible: nobody meets a connection that nothing keeps fresh.
            await self._start_refresh(self._known.token)
        kept = state.instance.status
        if kept not in (Status.CONNECTED, Status.AUTH_ERROR):
            kept = Status.PENDING_AUTHENTICATION
        test = ConnectionTest(instance_id=self._input.instance_id, scope=self._input.scope, renew=renew)
        try:
            outcome = await self._activity(
                names.TEST_CONNECTION,
                test,
                TestOutcome,
                within=_TEST_TIMEOUT,
                beats=True,  # a worker that dies amid a test costs seconds of these minutes, not all
                queue=connection_tests_queue(workflow.info().task_queue),
            )
        except ActivityError as failure:
            error = from_failure(failure) or IntegrationError(
                ErrorCode.UNAVAILABLE, "connectionTest gave no answer in time"
            )
            if error.code in _REFUSED:
                return await self._write(Status.AUTH_ERROR, _refused(error))
            if error.code == ErrorCode.REAUTH_REQUIRED:  # it was to be renewed
                return await self._write(Status.AUTH_ERROR, lost_grant(error.details.get("cause")))
            shown = IntegrationError(error.code, f"connectionTest: {error.message}", path=error.path)
            return await self._write(kept, InstanceError.of(shown))
        if suspect and not outcome.tested:
            return await self._write(
                Status.AUTH_ERROR,
                _refused(IntegrationError(ErrorCode.AUTH_ERROR, "a call was refused with 401")),
            )
        await self._write(Status.CONNECTED, None)

    # How it works

    async def _opened(self) -> None:
        await workflow.wait_condition(lambda: self._state is not None or self._failed is not None)
        if self._failed is not None:
            raise self._failed

    def _turn(self) -> Turn:
        return Turn(self._opened, self._writing, lambda: self._deleted)


def _refused(error: IntegrationError) -> InstanceError:
    """AUTH_ERROR whatever the status was: 401 and 403 in `connectionTest` mean the same."""
    shown = IntegrationError(ErrorCode.AUTH_ERROR, error.message, details=error.details)
    return InstanceError.of(shown, advice="submit a credential that it accepts")
