"""The OAuth side of a connection: authorizations, first tokens, the start and end of `RefreshOAuth`."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from integration_service.workflows.connection_owner import ConnectionOwner
from integration_service.workflows.history import is_long

with workflow.unsafe.imports_passed_through():
    from integration_service.contracts import connections as names
    from integration_service.contracts import oauth
    from integration_service.contracts.connections import (
        CompleteAuthorization,
        ConnectionCarried,
        ConnectionState,
        PollDevice,
        ReturnedAuthorization,
        StartRefresh,
    )
    from integration_service.contracts.definitions import IntegrationAuthType
    from integration_service.contracts.errors import (
        ErrorCode,
        IntegrationError,
        from_failure,
    )
    from integration_service.contracts.instances import (
        InstanceError,
        IntegrationInstanceStatus,
        Observed,
    )
    from integration_service.contracts.names import (
        refresh_workflow_id,
    )
    from integration_service.contracts.oauth import PendingAuthorization, PollOutcome, state_hash
    from integration_service.contracts.retry import RetryConfig

Status = IntegrationInstanceStatus

REQUEST_TIMEOUT = timedelta(minutes=2)
EXCHANGE_TIMEOUT = timedelta(minutes=5)
_SLOW_DOWN = timedelta(seconds=5)
_SLOWEST = timedelta(minutes=5)
_AGAIN = RetryConfig(max_retries=0, backoff_multiplier=2, initial_delay_ms=5_000, max_delay_ms=300_000)
_WHY = {
    "revoked": "the provider refuses the refresh token",
    "outcome_unknown": "an answer of the provider was lost, and now it refuses the refresh token",
    "no_refresh_token": "the token has expired, and the provider gave none to refresh it with",
}


class OAuthConnection(ConnectionOwner):
    """Holds the authorization that is under way, and what `RefreshOAuth` gave up on."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: PendingAuthorization | None = None
        self._given_up: Observed | None = None
        self._interval = timedelta(seconds=5)
        self._requests_failed = 0

    def _under_way(self) -> PendingAuthorization | None:
        return self._pending if self._pending is not None and workflow.now() < self._pending.expires_at else None

    async def _settle(self, *, suspect: bool = False, renew: bool = False) -> None:
        raise NotImplementedError

    def _has_news(self) -> bool:
        raise NotImplementedError

    def _carried(self) -> ConnectionCarried:
        return ConnectionCarried(
            connection=self._known,
            pending=self._pending,
            interval_ms=round(self._interval / timedelta(milliseconds=1)),
            requests_failed=self._requests_failed,
            breakers=self._breakers.carried,
        )

    def _resume(self, carried: ConnectionCarried) -> None:
        self._state, self._pending = carried.connection, carried.pending
        self._interval = timedelta(milliseconds=carried.interval_ms)
        self._requests_failed = carried.requests_failed
        for news in carried.breakers:
            self._breakers.hear(news)

    async def _request_first_token(self) -> None:
        ref = self._ref()
        wanted = oauth.RefreshToken(instance_id=ref.instance_id, scope=ref.scope, generation=0)
        await self._activity(
            oauth.REFRESH_TOKEN, wanted, oauth.TokenState, within=REQUEST_TIMEOUT, beats=True, attempts=1
        )
        self._see(await self._activity(names.LOAD_CONNECTION, ref, ConnectionState))

    def _patience(self) -> timedelta | None:
        """How long until a first token is asked for again; None where nothing is to be asked."""
        waits = self._state is not None and self._state.instance.status is Status.PENDING_AUTHENTICATION
        return _AGAIN.delay_after(self._requests_failed) if waits and self._requests_failed else None

    async def _ask_again(self) -> None:
        """A machine's token could not be had when the instance was configured: the provider may be back."""
        async with self._writing:
            if self._patience() is not None:
                with contextlib.suppress(ActivityError):
                    await self._settle()

    async def _start_refresh(self, token: oauth.TokenState) -> None:
        ref = self._ref()
        start = StartRefresh(
            instance_id=ref.instance_id, scope=ref.scope, token=token, definition=self._known.instance.definition
        )
        await self._activity(oauth.START_REFRESH, start, type(None))

    async def _complete(self, wanted: CompleteAuthorization) -> None:
        hashed = wanted.state_hash or state_hash(wanted.state or "")
        returned = ReturnedAuthorization(
            instance=self._known.instance, state_hash=hashed, sealed=wanted.sealed, error=wanted.error
        )
        try:
            found = await self._activity(
                oauth.COMPLETE_AUTHORIZATION, returned, ConnectionState, within=EXCHANGE_TIMEOUT, beats=True
            )
        except ActivityError as failure:
            error = from_failure(failure)
            unread = error is not None and (error.path or "").startswith("sealed")
            if not unread and self._pending is not None and self._pending.state_hash == hashed:
                self._pending = None  # its state is used up
            raise
        self._pending = None
        if wanted.error is None:
            self._see(found)
            return await self._settle()
        if self._known.instance.status is Status.PENDING_AUTHENTICATION:
            refusal = IntegrationError(
                ErrorCode.AUTH_ERROR, "the provider refused the authorization", details={"error": wanted.error.error}
            )
            await self._write(Status.PENDING_AUTHENTICATION, InstanceError.of(refusal, advice="authorise again"))

    async def _poll_device(self) -> None:
        """Ask the provider, at its pace, whether the person has said yes (RFC 8628 §3.5)."""
        pending = self._pending
        while pending is not None and self._pending is pending and not self._has_news() and not is_long():
            with contextlib.suppress(asyncio.TimeoutError):
                await workflow.wait_condition(
                    lambda: self._pending is not pending or self._has_news(),
                    timeout=self._interval,
                    timeout_summary="until the next poll for the device's authorization",
                )
                continue
            async with self._writing:
                if self._pending is not pending:
                    return
                await self._poll_once(pending)

    async def _poll_once(self, pending: PendingAuthorization) -> None:
        if workflow.now() >= pending.expires_at:
            self._pending = None
            return
        polled = PollDevice(instance=self._known.instance, state_hash=pending.state_hash)
        try:
            outcome = await self._activity(oauth.POLL_DEVICE, polled, PollOutcome, within=REQUEST_TIMEOUT, attempts=1)
        except ActivityError:
            # No connection, no worker: RFC 8628 §3.5 asks for a slower pace.
            self._interval = min(self._interval * 2, _SLOWEST)
            return
        if outcome.slow_down:
            self._interval += _SLOW_DOWN
        elif outcome.refused is not None:
            self._pending = None
            refusal = IntegrationError(
                ErrorCode.AUTH_ERROR, "the provider refused the authorization", details={"error": outcome.refused}
            )
            if self._known.instance.status is Status.PENDING_AUTHENTICATION:
                await self._write(Status.PENDING_AUTHENTICATION, InstanceError.of(refusal, advice="authorise again"))
        elif outcome.done:
            self._pending = None
            self._see(await self._activity(names.LOAD_CONNECTION, self._ref(), ConnectionState))
            await self._settle()

    async def _revoke(self) -> None:
        """As far as the provider can: what it answers changes nothing here."""
        if self._known.token is None:
            return
        with contextlib.suppress(ActivityError):
            await self._activity(oauth.REVOKE_TOKENS, self._ref(), type(None), within=REQUEST_TIMEOUT, attempts=2)

    async def _erase_credential(self) -> None:
        await self._stop_refresh()
        self._see(await self._activity(names.ERASE_CREDENTIAL, self._ref(), ConnectionState))

    async def _stop_refresh(self) -> None:
        self._pending = None
        if self._known.instance.auth_type is IntegrationAuthType.OAUTH2:
            refresher = workflow.get_external_workflow_handle(refresh_workflow_id(self._input.instance_id))
            with contextlib.suppress(ApplicationError):  # it may never have been started
                await refresher.signal("stop")

    def _renewed(self, token: oauth.TokenState) -> None:
        self._see(self._known.model_copy(update={"token": token, "generation": token.generation}))

    async def _give_up(self) -> None:
        """The provider refuses the refresh token: only a new authorization helps."""
        async with self._writing:
            seen, self._given_up = self._given_up, None
            known = self._known
            if seen is None or known.generation > seen.generation:
                return
            if known.instance.status not in (Status.CONNECTED, Status.AUTH_ERROR):
                return
            try:
                await self._write(Status.AUTH_ERROR, lost_grant(seen.cause))
            except ActivityError:
                workflow.logger.exception("AUTH_ERROR could not be written")

    def _polls(self) -> bool:
        """Whether a person is to type a device code somewhere, and nobody asks the provider yet."""
        return self._pending is not None and self._pending.user_code is not None


def lost_grant(cause: str | None) -> InstanceError:
    """What an instance shows once its refresh token is refused; `cause` as `RefreshOAuth` tells it."""
    cause = cause or "revoked"
    why = _WHY.get(cause, _WHY["revoked"])
    return InstanceError(
        code=ErrorCode.REAUTH_REQUIRED,
        message=f"{why}; authorise the connection again",
        details={"cause": cause},
    )
