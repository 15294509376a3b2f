"""One attempt at one method call: load, validate, build, authenticate, limit, send, parse, validate, record."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from integration_service.activities.auth import authenticate, secret_texts
from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.compiled import CompiledDefinition, CompiledDefinitions, CompiledMethod
from integration_service.activities.execution.expiry import has_expired, is_refused_as_expired
from integration_service.activities.execution.redaction import redact
from integration_service.activities.outbound.limits import RateLimiter
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.activities.outbound.retry_after import requested_delay
from integration_service.activities.outbound.transport import SendFailed, Transport
from integration_service.activities.renewal import TokenRenewal
from integration_service.contracts.calls import MAX_RESULT_BYTES, MethodCall, MethodResult
from integration_service.contracts.credentials import IntegrationCredential
from integration_service.contracts.definitions import IntegrationAuthType, OAuth2Config
from integration_service.contracts.errors import UNEXPECTED, ErrorCode, IntegrationError, http_code
from integration_service.contracts.instances import IntegrationInstanceStatus
from integration_service.contracts.retry import DEFAULT_RETRY, RetryConfig
from integration_service.storage.audit import AuditLog, Execution
from integration_service.storage.credentials import Credentials
from integration_service.storage.instances import InstanceForCall, Instances

_FOR_THE_REST = timedelta(seconds=1)
"""Kept back from the attempt's time for what follows the send."""
_WAITED_HERE = timedelta(seconds=1)
_RECORD_RETRY = timedelta(milliseconds=200)


@dataclass(frozen=True)
class Target:
    """What a call resolves to."""

    instance: InstanceForCall
    compiled: CompiledDefinition
    method: CompiledMethod

    @property
    def oauth(self) -> OAuth2Config | None:
        """The definition's OAuth config, where calls use it."""
        definition = self.compiled.definition
        return definition.oauth2_config if definition.auth_type is IntegrationAuthType.OAUTH2 else None

    @property
    def is_renewable(self) -> bool:
        """Whether there is something to get a newer token with."""
        return self.instance.credential is not None and self.instance.credential.renewable


@dataclass
class Progress:
    """How far an attempt came: what the failure's decision and the log row are made from."""

    started: float = field(default_factory=time.monotonic)
    target: Target | None = None
    intended: bool = False
    renewed: bool = False
    maybe_sent: bool = False
    request_bytes: int = 0
    response: InboundResponse | None = None

    @property
    def retry(self) -> RetryConfig:
        return self.target.method.method.effective_retry if self.target else DEFAULT_RETRY

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again: safe by nature, never sent, or refused by a 429."""
        if self.target is None or self.target.method.method.safe_to_repeat or not self.maybe_sent:
            return True
        return self.response is not None and self.response.status == 429

    @property
    def outcome_known(self) -> bool:
        """Whether nothing was sent or the upstream answered."""
        return not self.maybe_sent or self.response is not None

    def duration_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


class MethodPipeline:
    """Runs attempts. Holds what they need; keeps nothing of them."""

    def __init__(
        self,
        *,
        instances: Instances,
        definitions: CompiledDefinitions,
        credentials: Credentials,
        audit: AuditLog,
        transport: Transport,
        limiter: RateLimiter,
        renewal: TokenRenewal,
    ) -> None:
        self._instances = instances
        self._definitions = definitions
        self._credentials = credentials
        self._audit = audit
        self._transport = transport
        self._limiter = limiter
        self._renewal = renewal

    async def run(
        self,
        call: MethodCall,
        attempt: Attempt,
        progress: Progress,
        *,
        definition: str | None = None,
        testing: bool = False,
        renewing: bool = True,
    ) -> MethodResult:
        """One attempt. `definition` is the one that the activity's type names; `testing` proves a credential, so
        the instance need not be CONNECTED yet; `renewing` lets a refused token be renewed.

        Raises IntegrationError; `progress` then tells how far it came. Either way the log has its row.
        """
        try:
            target = progress.target = await self._find(call, definition=definition)
            credential = await self._credential(target, testing=testing)
            if has_expired(credential, target.oauth, now=datetime.now(UTC)):
                target, credential = await self._renewed(target, attempt, progress, testing=testing)
            request = _build(call, attempt, target, credential)
            progress.request_bytes = len(request.body or b"")
            await self._limit(attempt, target)
            await self._intend(attempt, target, progress)
            response = await self._send(request, attempt, target, progress)
            if (
                is_refused_as_expired(response, target.oauth)
                and target.is_renewable
                and renewing
                and not progress.renewed
            ):
                # One refresh and one more send, inside the same attempt: neither spends a try.
                target, credential = await self._renewed(target, attempt, progress, testing=testing)
                request = _build(call, attempt, target, credential)
                response = await self._send(request, attempt, target, progress)
            result = _finish(response, attempt, target, progress, credential, request)
        except asyncio.CancelledError:
            await asyncio.shield(self._record(call, attempt, progress, "CANCELLED"))
            raise
        except IntegrationError as error:
            await self._record(call, attempt, progress, error.code)
            raise
        except Exception:
            await self._record(call, attempt, progress, UNEXPECTED)
            raise
        await self._record(call, attempt, progress, None)
        return result

    async def _find(self, call: MethodCall, *, definition: str | None) -> Target:
        instance = await self._instances.for_call(call.scope, call.instance_id)
        compiled = await self._definitions.get(instance.definition_id)
        if definition is not None and definition != compiled.definition.name:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR,
                f"the instance is one of {compiled.definition.name}, the activity's type names {definition}",
                path="instanceId",
            )
        return Target(instance, compiled, compiled.method(call.method or ""))

    async def _credential(self, target: Target, *, testing: bool) -> IntegrationCredential | None:
        if not testing:
            require_connected(target.instance)
        if target.compiled.definition.auth_type is IntegrationAuthType.NONE:
            return None
        if target.instance.credential is None:
            raise IntegrationError(
                ErrorCode.INSTANCE_NOT_CONNECTED, "the instance has no credential", path="instanceId"
            )
        return await self._credentials.open(target.instance.credential)

    async def _renewed(
        self, target: Target, attempt: Attempt, progress: Progress, *, testing: bool
    ) -> tuple[Target, IntegrationCredential | None]:
        within = attempt.time_left() - _FOR_THE_REST
        instance = await self._renewal.renew(target.instance, within=max(within, timedelta(0)))
        renewed = progress.target = replace(target, instance=instance)
        progress.renewed = True
        return renewed, await self._credential(renewed, testing=testing)

    async def _limit(self, attempt: Attempt, target: Target) -> None:
        limits = target.method.method.rate_limits
        if limits is None or attempt.reserved:
            return
        wait = await self._limiter.reserve(target.instance.id, target.method.method.name, limits)
        if wait > _WAITED_HERE:
            # Longer waits free the slot. The place is kept: whoever comes back at that time need not ask again.
            raise IntegrationError(
                ErrorCode.RATE_LIMITED,
                "the definition's rate limit is reached",
                details={"reserved": True},
                retry_after=wait,
            )
        await asyncio.sleep(wait.total_seconds())

    async def _intend(self, attempt: Attempt, target: Target, progress: Progress) -> None:
        if target.method.method.safe_to_repeat:
            return
        if not await self._audit.intend(attempt.execution_key):
            raise IntegrationError(
                ErrorCode.OUTCOME_UNKNOWN,
                "an earlier attempt may have reached the upstream and its answer was lost; it is not sent again",
            )
        progress.intended = True

    async def _send(
        self, request: OutboundRequest, attempt: Attempt, target: Target, progress: Progress
    ) -> InboundResponse:
        timeout = timedelta(milliseconds=target.method.method.effective_timeout_ms)
        within = min(timeout, attempt.time_left() - _FOR_THE_REST)
        if within <= timedelta(0):
            raise IntegrationError(ErrorCode.TIMEOUT, "no time was left to send the request")
        try:
            progress.maybe_sent, progress.response = True, None
            progress.response = await self._transport.send(request, within=within)
        except SendFailed as error:
            progress.maybe_sent = error.maybe_sent
            if progress.repeatable or error.code not in (ErrorCode.TIMEOUT, ErrorCode.CONNECTION_ERROR):
                raise
            raise IntegrationError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"the request may have reached the upstream, but {error.message}; it is not sent again",
            ) from None
        limits = target.method.method.rate_limits
        if limits is not None and progress.response.status == 429:
            delay = requested_delay(progress.response.headers, now=datetime.now(UTC))
            if delay is not None:
                await self._limiter.push(target.instance.id, target.method.method.name, limits, delay)
        return progress.response

    async def _record(self, call: MethodCall, attempt: Attempt, progress: Progress, code: str | None) -> None:
        """Write the log row, in process for as long as the attempt lasts: a request is never repeated because
        our own database was down. Raises IntegrationError when it stayed down."""
        row = _row(call, attempt, progress, code)
        if row is None:
            return
        settles = progress.intended and progress.outcome_known
        while True:
            try:
                return await self._audit.record(row, settles_intent=settles)
            except IntegrationError as error:
                if attempt.time_left() < _FOR_THE_REST or not progress.maybe_sent:
                    if not progress.repeatable and code is None:
                        raise IntegrationError(
                            ErrorCode.OUTCOME_UNKNOWN, "the upstream answered, but it could not be recorded"
                        ) from error
                    raise
                await asyncio.sleep(_RECORD_RETRY.total_seconds())


def _build(
    call: MethodCall, attempt: Attempt, target: Target, credential: IntegrationCredential | None
) -> OutboundRequest:
    ready = target.method
    ready.params.check(call.params, at="params", code=ErrorCode.VALIDATION_ERROR, what="the params object")
    config = target.compiled.merged_config(target.instance.config)
    connection = credential.oauth2.connection if credential and credential.oauth2 else None
    request = ready.adapter.build(params=call.params, config=config, connection=connection or {})
    if (name := ready.method.idempotency_header) is not None:
        key = call.idempotency_key or attempt.execution_key
        request = request.with_header(name, key)
    return authenticate(request, credential, definition=target.compiled.definition, config=config)


def _finish(
    response: InboundResponse,
    attempt: Attempt,
    target: Target,
    progress: Progress,
    credential: IntegrationCredential | None,
    request: OutboundRequest,
) -> MethodResult:
    if is_refused_as_expired(response, target.oauth):
        raise _refused_credential(response.status)
    if not 200 <= response.status < 300:
        raise _refused(response, authenticated=credential is not None)
    # Redacted first: what breaks the schema may be named by its key, and a key is the upstream's to choose.
    data, size = redact(target.method.adapter.parse(response), secret_texts(credential, sent=request))
    target.method.result.check(
        data, at="data", code=ErrorCode.RESULT_VALIDATION_ERROR, what="the upstream's answer", first_only=True
    )
    if size > MAX_RESULT_BYTES:
        raise IntegrationError(
            ErrorCode.RESPONSE_TOO_LARGE,
            f"the result is {size} bytes as JSON, over {MAX_RESULT_BYTES}: ask for less",
        )
    return MethodResult(
        data=data,
        status_code=response.status,
        attempts=attempt.tries,
        duration_ms=progress.duration_ms(),
        definition=target.compiled.definition.name,
        definition_version=target.compiled.definition.version,
    )


def require_connected(instance: InstanceForCall) -> None:
    """Raises IntegrationError with the code that tells what to do about an instance that is not CONNECTED."""
    status = instance.status
    if status is IntegrationInstanceStatus.CONNECTED:
        return
    code = {
        IntegrationInstanceStatus.AUTH_ERROR: ErrorCode.REAUTH_REQUIRED,
        IntegrationInstanceStatus.CONFIG_ERROR: ErrorCode.CONFIG_ERROR,
    }.get(status, ErrorCode.INSTANCE_NOT_CONNECTED)
    raise IntegrationError(
        code, f"instance {instance.name} is {status}", path="instanceId", details={"status": status.value}
    )


def _refused(response: InboundResponse, *, authenticated: bool) -> IntegrationError:
    if response.status == 401 and authenticated:
        return _refused_credential(401)
    delay = requested_delay(response.headers, now=datetime.now(UTC)) if response.status in (429, 503) else None
    return IntegrationError(
        http_code(response.status),
        f"the upstream answered {response.status}",
        details={"statusCode": response.status},
        retry_after=delay,
    )


def _refused_credential(status: int) -> IntegrationError:
    return IntegrationError(
        ErrorCode.AUTH_ERROR, f"the upstream refuses the credential ({status})", details={"statusCode": status}
    )


def _row(call: MethodCall, attempt: Attempt, progress: Progress, code: str | None) -> Execution | None:
    if progress.target is None:
        return None
    instance, definition = progress.target.instance, progress.target.compiled.definition
    return Execution(
        scheduled_at=attempt.scheduled_at,
        execution_key=attempt.execution_key,
        attempt=attempt.number,
        scope=instance.scope,
        instance_id=instance.id,
        definition=definition.name,
        definition_version=definition.version,
        method=call.method or "",
        workflow_id=attempt.workflow_id,
        run_id=attempt.run_id,
        activity_id=attempt.activity_id,
        status="FAILED" if code else "SUCCEEDED",
        code=code,
        http_status=progress.response.status if progress.response else None,
        duration_ms=progress.duration_ms(),
        request_bytes=progress.request_bytes,
        response_bytes=len(progress.response.body) if progress.response else 0,
        correlation_id=call.correlation_id,
    )
