"""One request of an attempt: a good token, a place in the limits, the intent, the send, the upstream's hints."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from integration_service.activities.auth import secret_texts
from integration_service.activities.execution.attempt import FOR_THE_REST, Attempt
from integration_service.activities.execution.expiry import has_expired
from integration_service.activities.execution.observing import Observer
from integration_service.activities.execution.redaction import REDACTED, SHORTEST_INSIDE
from integration_service.activities.execution.target import Progress, Target, require_connected
from integration_service.activities.outbound.breaker import Breakers, has_failed, host_of
from integration_service.activities.outbound.limits import RateLimiter, Waiting
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.throttle import hold_back
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.activities.renewal import TokenRenewal
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.definitions import IntegrationAuthType
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.audit import AuditLog
from integration_service.storage.credentials import Credentials


@dataclass(frozen=True)
class Sent:
    """A request, what came back, and the credential that was on it."""

    request: OutboundRequest
    response: InboundResponse
    credential: IntegrationCredential | None

    @property
    def says_ok(self) -> bool:
        """Whether its status is 2xx."""
        return 200 <= self.response.status < 300

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """Every spelling of the credential's values, as they could come back."""
        return secret_texts(self.credential, sent=self.request)

    def without_secrets(self) -> InboundResponse:
        """The response with the credential's values out of its body; the same one where it holds none."""
        body = self.response.body
        for secret in self.secrets:
            if len(secret) >= SHORTEST_INSIDE:
                body = body.replace(secret.encode(), REDACTED.encode())
        return self.response if body == self.response.body else replace(self.response, body=body)


class Sender:
    """Sends what an attempt builds. Holds what that needs; keeps nothing of it."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        audit: AuditLog,
        transport: Transport,
        limiter: RateLimiter,
        breakers: Breakers,
        renewal: TokenRenewal,
        waiting: Waiting,
        paging: Waiting,
        observer: Observer,
    ) -> None:
        self._credentials = credentials
        self._audit = audit
        self._transport = transport
        self._limiter = limiter
        self._breakers = breakers
        self._renewal = renewal
        self._waiting = waiting
        self._paging = paging
        self._observer = observer

    async def open(self, progress: Progress) -> IntegrationCredential | None:
        """The instance's credential.

        Raises IntegrationError with the code that says why there is none to use.
        """
        target = progress.resolved
        if not progress.testing:
            require_connected(target.instance)
        if target.compiled.definition.auth_type is IntegrationAuthType.NONE:
            return None
        if target.instance.credential is None:
            raise IntegrationError(
                ErrorCode.INSTANCE_NOT_CONNECTED, "the instance has no credential", path="instanceId"
            )
        return await self._credentials.open(target.instance.credential)

    async def fresh(
        self, attempt: Attempt, progress: Progress, credential: IntegrationCredential | None
    ) -> IntegrationCredential | None:
        """The credential, or a newer one where it has expired by its own time."""
        if has_expired(credential, progress.resolved.oauth, now=datetime.now(UTC)):
            return await self.renew(attempt, progress)
        return credential

    async def renew(self, attempt: Attempt, progress: Progress) -> IntegrationCredential | None:
        """A newer credential than the one that has expired or is refused; `progress` then holds its instance."""
        target = progress.resolved
        within = attempt.time_left() - FOR_THE_REST
        instance = await self._renewal.renew(target.instance, within=max(within, timedelta(0)))
        progress.target = replace(target, instance=instance)
        progress.renewed = True
        return await self.open(progress)

    async def send(self, request: OutboundRequest, attempt: Attempt, progress: Progress) -> InboundResponse:
        """Send once, when limits and breaker let it.

        Raises IntegrationError: RATE_LIMITED and CIRCUIT_OPEN before anything left; OUTCOME_UNKNOWN where the request
        may have arrived and must not be sent again; else what the transport met.
        """
        target = progress.resolved
        method = target.method.method
        within = min(timedelta(milliseconds=method.effective_timeout_ms), attempt.time_left() - FOR_THE_REST)
        if within <= timedelta(0):
            raise IntegrationError(ErrorCode.TIMEOUT, "no time was left to send the request")
        host = host_of(request)
        health = target.instance.health
        admission = await self._breakers.admit(target.instance.id, host, health.breaker(host), within=within)
        failed: bool | None = None
        try:
            await self._intend(attempt, target, progress)
            progress.request_bytes += len(request.body or b"")
            progress.maybe_sent, progress.response, progress.without_effect = True, None, False
            with self._observer.sending(request, definition=target.compiled.definition.name, host=host) as sending:
                sending.response = await self._transport.send(
                    sending.request, within=within, once=not target.method.safe_to_repeat
                )
            response = progress.response = sending.response
            progress.response_bytes += len(response.body)
            failed = has_failed(response)
        except SendFailed as error:
            failed, progress.maybe_sent = has_failed(error), error.maybe_sent
            if progress.repeatable or error.code not in (ErrorCode.TIMEOUT, ErrorCode.CONNECTION_ERROR):
                raise
            raise IntegrationError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"the request may have reached the upstream, but {error.message}; it is not sent again",
            ) from None
        finally:
            progress.breaker_change = await self._breakers.note(admission, failed=failed) or progress.breaker_change
        if (delay := hold_back(response, now=datetime.now(UTC))) is not None:
            progress.hold_until = time.monotonic() + delay.total_seconds()
            await self.push(target, delay)
        return response

    async def push(self, target: Target, delay: timedelta) -> None:
        """Let all workers know that the upstream wants no more for so long. That this is not written costs no call."""
        method = target.method.method
        with contextlib.suppress(IntegrationError):
            await self._limiter.push(target.instance.id, method.name, method.rate_limits, delay)

    async def take_place(self, attempt: Attempt, progress: Progress, *, first: bool) -> None:
        """Wait for a place in the limits.

        Raises IntegrationError RATE_LIMITED for a longer wait: the slot is freed, and the place kept. A later page of
        a call that is under way waits here, for as long as its attempt lasts: it would begin anew otherwise.
        """
        target = progress.resolved
        name, limits = target.method.method.name, target.method.method.rate_limits
        place = await self._limiter.place(
            target.instance.id,
            name,
            limits,
            pause=target.instance.health.pause if first else None,
            reserved=first and attempt.reserved,
        )
        if first and await self._waiting.sleep(place.wait):
            progress.throttled = place.wait > timedelta(0)
            return
        held = timedelta(seconds=progress.hold_until - time.monotonic())
        if not first and await self.waits(attempt, progress, max(place.wait, held)):
            return
        raise IntegrationError(
            ErrorCode.RATE_LIMITED,
            "the definition's rate limit is reached" if place.reserved else "the upstream asked for a pause",
            details={"reserved": place.reserved},
            retry_after=place.wait,
        )

    async def waits(self, attempt: Attempt, progress: Progress, wait: timedelta | None) -> bool:
        """Wait for a later page here; False where that is too long, or too many wait so already."""
        if not progress.pages_read or wait is None or wait > attempt.time_left() - 2 * FOR_THE_REST:
            return False
        return await self._paging.sleep(wait)

    async def _intend(self, attempt: Attempt, target: Target, progress: Progress) -> None:
        if target.method.safe_to_repeat or progress.intended:
            return
        if not await self._audit.intend(attempt.execution_key):
            raise IntegrationError(
                ErrorCode.OUTCOME_UNKNOWN,
                "an earlier attempt may have reached the upstream and its answer was lost; it is not sent again",
            )
        progress.intended = True
