"""`RefreshOAuth`: one long-running workflow per OAuth instance, the only one that spends its refresh token."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from integration_service.workflows.history import hand_on, handed_on, is_long
from integration_service.workflows.inputs import NOTHING, read_input
from integration_service.workflows.messages import as_application_error, read_message

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts.connections import LOAD_CONNECTION, ConnectionRef, ConnectionState
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
        to_application_error,
    )
    from integration_service.contracts.instances import REFRESHED, Observed
    from integration_service.contracts.names import (
        INTEGRATION_DEFINITION,
        INTEGRATION_INSTANCE,
        REFRESH_OAUTH,
        connection_workflow_id,
        refresh_workflow_id,
    )
    from integration_service.contracts.oauth import (
        REFRESH_TOKEN,
        CredentialChanged,
        RefreshAnswer,
        RefreshFailure,
        RefreshInput,
        RefreshState,
        RefreshToken,
        RefreshWanted,
        TokenState,
    )
    from integration_service.contracts.retry import RetryConfig
    from integration_service.contracts.token_page import token_page
    from integration_service.contracts.wire import JsonObject, parse

_LOAD_TIMEOUT = timedelta(seconds=30)
_REQUEST_TIMEOUT = timedelta(minutes=10)
"""Long, for what follows the answer: a new token is kept trying for its row while the database is away."""
_HEARTBEAT_TIMEOUT = timedelta(seconds=15)
_EARLIEST_PART_OF_MARGIN = 0.6
_SHORTEST_PAUSE = timedelta(seconds=1)
"""Between two tokens, even if they are born dead: a provider's clock may be wrong, or its `expires_in` 0."""
_BACKOFF = RetryConfig(max_retries=0, backoff_multiplier=2, initial_delay_ms=1_000, max_delay_ms=60_000)


@workflow.defn(name=REFRESH_OAUTH)
class RefreshOAuth:
    """Input `RefreshInput`, id ``oauth-refresh:<instanceId>``; completes when the connection is given up."""

    @workflow.init
    def __init__(self, wanted: RawValue = NOTHING) -> None:
        self._token: TokenState | None = None
        self._due: datetime | None = None
        self._failure: RefreshFailure | None = None
        self._failures = 0
        self._not_before: datetime | None = None
        self._broken: ApplicationError | None = None
        self._ended = False
        self._is_open = False
        self._news = 0
        self._requesting = asyncio.Lock()

    @workflow.run
    async def run(self, wanted: RawValue = NOTHING) -> None:
        """A run that continues another gets ``{"wanted", "state"}``; from anyone else that is no input."""
        try:
            given, state = handed_on(read_input(wanted))
            if state is not None:
                self._resume(parse(RefreshState, state))
            self._input = parse(RefreshInput, given)
            await self._open()
        except (IntegrationError, ActivityError) as error:
            self._broken = as_application_error(error)
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._broken from None
        while True:
            await self._sleep()
            if self._is_due():
                async with self._requesting:
                    if self._is_due():
                        await self._request()
            elif self._ended or is_long():
                await workflow.wait_condition(workflow.all_handlers_finished)
                if self._ended:  # still: somebody may have authorised again meanwhile
                    return
                hand_on(self._input, self._state())

    async def _open(self) -> None:
        expected = refresh_workflow_id(self._input.instance_id)
        if workflow.info().workflow_id != expected:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"the workflow's id must be {expected}: one workflow refreshes one instance",
                path="instanceId",
            )
        if self._token is None:
            ref = ConnectionRef(instance_id=self._input.instance_id, scope=self._input.scope)
            found: ConnectionState = await workflow.execute_activity(
                LOAD_CONNECTION,
                ref,
                result_type=ConnectionState,
                start_to_close_timeout=_LOAD_TIMEOUT,
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=_LOAD_TIMEOUT),
                summary="what the vault holds",
            )
            if found.token is None:
                raise IntegrationError(
                    ErrorCode.INSTANCE_NOT_CONNECTED, "the instance has no token to refresh", path="instanceId"
                )
            workflow.upsert_search_attributes([INTEGRATION_DEFINITION.value_set(found.instance.definition)])
            if self._token is None:  # a signal may have been faster
                self._take(found.token)
        workflow.upsert_search_attributes([INTEGRATION_INSTANCE.value_set(self._input.instance_id)])
        self._is_open = True
        self._show()

    # What others may say and ask

    @workflow.signal(description="The credential was replaced: what the vault holds now.")
    def credential_changed(self, message: Any = None) -> None:
        """An older generation than the one that is known is old news."""
        try:
            # When the owner was told that it would be refreshed says nothing about the token.
            token = parse(CredentialChanged, message).token.model_copy(update={"next_refresh_at": None})
        except IntegrationError:
            workflow.logger.warning("a signal `credential_changed` could not be read")
            return
        self._ended = False
        known = self._token
        if known is not None and token.generation < known.generation:
            return
        # One that was given up on is tried once more when somebody tests or reconnects the instance.
        if token != known or self._is_given_up():
            self._take(token)
            if self._is_open:  # a signal that came with the start is read before the input
                self._show()

    @workflow.signal(description="The connection is given up: end.")
    def stop(self, _message: Any = None) -> None:
        self._ended = True

    @workflow.query(description="The token's generation and times, the next refresh, the last failure.")
    def status(self) -> JsonObject:
        return self._state().to_wire() if self._token else {}

    @workflow.update(description="Request a token: at once, or only if `seenGeneration` is still the current one.")
    async def refresh(self, message: Any = None) -> RefreshAnswer:
        wanted = read_message(RefreshWanted, message)
        await workflow.wait_condition(lambda: self._token is not None or self._broken is not None)
        if self._broken is not None:
            raise self._broken
        seen = self._known.generation if wanted.seen_generation is None else wanted.seen_generation
        if seen < self._known.generation:
            return self._answer(seen)  # there is a newer one, whatever is being asked for now
        async with self._requesting:
            is_held_back = self._not_before is not None and workflow.now() < self._not_before
            if seen > self._known.generation and not is_held_back and not self._is_given_up():
                await self._request()  # stored, and the answer that told so was lost: this learns of it
            # Whoever waited here for somebody else's request has its token now.
            if self._known.generation == seen and not self._ended:
                must_wait = self._not_before is not None and workflow.now() < self._not_before
                if self._is_given_up():
                    raise self._given_up()
                if wanted.seen_generation is None or not must_wait:
                    await self._request()
                if self._is_given_up():
                    raise self._given_up()
            return self._answer(seen)

    @refresh.validator
    def _check_refresh(self, message: Any = None) -> None:
        read_message(RefreshWanted, message)

    # How it works

    @property
    def _known(self) -> TokenState:
        if self._token is None:
            raise IntegrationError(ErrorCode.UNAVAILABLE, "the token is not loaded yet")
        return self._token

    def _take(self, token: TokenState) -> None:
        """Take over a token, and plan its refresh: before its expiry by the margin, jittered, so that tokens that
        expire together are not all refreshed at once."""
        self._token = token
        self._failure, self._failures, self._not_before = None, 0, None
        self._due = None
        self._news += 1
        if token.automatic and token.renewable and token.expires_at is not None:
            lifetime = token.expires_at - (token.obtained_at or token.expires_at)
            margin = min(timedelta(milliseconds=token.margin_ms), lifetime / 2)
            part = workflow.random().uniform(_EARLIEST_PART_OF_MARGIN, 1)
            self._due = max(token.expires_at - margin * part, workflow.now() + _SHORTEST_PAUSE)

    def _resume(self, state: RefreshState) -> None:
        self._token, self._due = state.token, state.due
        self._failure, self._failures, self._not_before = state.failure, state.failures, state.not_before

    def _state(self) -> RefreshState:
        return RefreshState(
            token=self._known,
            due=self._next(),
            failure=self._failure,
            failures=self._failures,
            not_before=self._not_before,
        )

    def _next(self) -> datetime | None:
        if self._due is None or self._is_given_up():
            return None
        return max(self._due, self._not_before) if self._not_before else self._due

    def _is_due(self) -> bool:
        at = self._next()
        return not self._ended and at is not None and at <= workflow.now()

    async def _sleep(self) -> None:
        news, at = self._news, self._next()
        timeout = None if at is None else max(at - workflow.now(), timedelta(0))
        with contextlib.suppress(asyncio.TimeoutError):
            await workflow.wait_condition(
                lambda: self._ended or self._news != news or is_long(),
                timeout=timeout,
                timeout_summary="until the token's refresh",
            )

    async def _request(self) -> None:
        """One token request, by whoever holds the lock. A failure is kept and told; nothing is raised."""
        token = self._known
        try:
            found: TokenState = await workflow.execute_activity(
                REFRESH_TOKEN,
                RefreshToken(instance_id=self._input.instance_id, scope=self._input.scope, generation=token.generation),
                result_type=TokenState,
                start_to_close_timeout=_REQUEST_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                # The workflow tries again itself: only it knows whether the token is still the one to spend.
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary=f"a token after number {token.generation}",
            )
        except ActivityError as failure:
            await self._failed(failure, token)
        else:
            if self._known.generation <= found.generation:
                self._take(found)
                if found.expires_at is not None and found.expires_at <= workflow.now():
                    self._due = None  # born dead: whoever calls asks for it, no timer does
            told = found.model_copy(update={"next_refresh_at": self._next()})
            await self._tell(Observed(generation=found.generation, code=REFRESHED, token=told))
        self._show()

    async def _failed(self, failure: ActivityError, token: TokenState) -> None:
        error = from_failure(failure) or IntegrationError(
            ErrorCode.UNAVAILABLE, "the worker that asked for the token was lost"
        )
        self._news += 1
        if self._known != token:
            return  # replaced meanwhile: what became of the old one does not matter
        if error.code == ErrorCode.INSTANCE_NOT_FOUND:
            self._ended = True
            return
        final = error.code == ErrorCode.REAUTH_REQUIRED
        cause = error.details.get("cause")
        self._failure = RefreshFailure(code=error.code, message=error.message, cause=cause, final=final)
        if final:
            await self._tell(Observed(generation=token.generation, code=error.code, cause=cause))
            return
        self._failures += 1
        delay = _BACKOFF.delay_after(self._failures)
        if (asked := error.details.get("retryAfterMs")) is not None:
            delay = max(delay, timedelta(milliseconds=asked))
        self._not_before = workflow.now() + delay

    async def _tell(self, news: Observed) -> None:
        owner = workflow.get_external_workflow_handle(connection_workflow_id(self._input.instance_id))
        # A terminated owner adopts the row when it is started again, and reads all this there.
        with contextlib.suppress(ApplicationError):
            await owner.signal("observed", news)

    def _is_given_up(self) -> bool:
        return self._failure is not None and self._failure.final

    def _given_up(self) -> ApplicationError:
        failure = self._failure or RefreshFailure(code=ErrorCode.REAUTH_REQUIRED, message="")
        details = {"cause": failure.cause} if failure.cause else None
        return to_application_error(IntegrationError(failure.code, failure.message, details=details))

    def _answer(self, seen: int) -> RefreshAnswer:
        token = self._known
        if token.generation != seen or self._not_before is None:
            return RefreshAnswer(generation=token.generation, expires_at=token.expires_at)
        wait = max(self._not_before - workflow.now(), timedelta(0))
        return RefreshAnswer(
            generation=token.generation,
            expires_at=token.expires_at,
            retry_after_ms=round(wait / timedelta(milliseconds=1)),
            retry_at=self._not_before,
        )

    def _show(self) -> None:
        workflow.set_current_details(token_page(self._input, self._known, self._next(), self._failure))
