"""What an upstream's answer amounts to: data, or the one failure that says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from integration_service.activities.adapters import Parsed
from integration_service.activities.adapters.response_body import parse_body
from integration_service.activities.execution.expiry import is_refused_as_expired
from integration_service.activities.execution.redaction import redact
from integration_service.activities.execution.sending import Sent
from integration_service.activities.execution.target import Target
from integration_service.activities.outbound.retry_after import requested_delay
from integration_service.activities.outbound.throttle import throttle
from integration_service.activities.transforms import Transforms
from integration_service.contracts.errors import ErrorCode, IntegrationError, http_code

_MAX_WORDS = 1024
_WORDS_TIME = timedelta(milliseconds=250)


class Answers:
    """Reads what came back."""

    def __init__(self, transforms: Transforms) -> None:
        self._transforms = transforms

    async def read(self, sent: Sent, target: Target) -> Parsed:
        """The answer's data, without the credential's values: they are taken out before anything reads it.

        Raises IntegrationError: what the protocol says, or the status, or MALFORMED_RESPONSE.
        """
        secrets = sent.secrets
        try:
            parsed = await self._parsed(sent, target)
        except IntegrationError as error:
            delay = error.retry_after
            if error.code == ErrorCode.RATE_LIMITED and delay is None:
                # A protocol may tell the throttle in its body, and the headers for how long.
                delay = requested_delay(sent.response.headers, now=datetime.now(UTC))
            raise _without(secrets, self._told_again(error, sent, target), retry_after=delay) from None
        data, _ = redact(parsed.data, secrets)
        errors, _ = redact(parsed.errors, secrets)
        return Parsed(data, errors=errors, hold_back=parsed.hold_back)

    async def _parsed(self, sent: Sent, target: Target) -> Parsed:
        response, adapter = sent.response, target.method.adapter
        if is_refused_as_expired(response, target.oauth):
            raise _refused_credential(response.status)
        if sent.says_ok:
            return adapter.parse(response)
        if response.status == 401 and sent.credential is not None:
            raise _refused_credential(401)
        raise adapter.refusal(response) or await self._refused(sent, target)

    def _told_again(self, error: IntegrationError, sent: Sent, target: Target) -> IntegrationError:
        """The protocol's own failure, from a body without the credential's values: what is cut short of an upstream's
        words could hold the beginning of one, which nobody would find."""
        clean = sent.without_secrets()
        if clean is sent.response or not error.details:
            return error
        try:
            told = target.method.adapter.refusal(clean) if not sent.says_ok else None
            if sent.says_ok:
                target.method.adapter.parse(clean)
        except IntegrationError as again:
            told = again
        if told is not None and told.code == error.code:
            return told
        return IntegrationError(error.code, error.message, path=error.path, details={"statusCode": clean.status})

    async def _refused(self, sent: Sent, target: Target) -> IntegrationError:
        status = sent.response.status
        found = throttle(sent.response, now=datetime.now(UTC))
        words = await self._words(sent, target)
        return IntegrationError(
            found.code if found else http_code(status),
            f"the upstream answered {status}" + (f": {words}" if words else ""),
            details={"statusCode": status},
            retry_after=found.delay if found else None,
        )

    async def _words(self, sent: Sent, target: Target) -> str | None:
        """What the definition's `errorMessage` finds in the body; None without one, or where it finds nothing."""
        expression = target.compiled.definition.error_message
        if expression is None:
            return None
        try:
            # Without the credential's values before it is cut: a piece of one would not be found again.
            body, _ = redact(parse_body(sent.response), sent.secrets)
            words = await self._transforms.evaluate(
                expression, body, at="errorMessage", owner=target.instance.id, within=_WORDS_TIME
            )
        except IntegrationError:
            return None  # the status is the failure, not what could not be read of it
        if words is None:
            return None
        text = words if isinstance(words, str) else json.dumps(words, ensure_ascii=False)
        return text.encode()[:_MAX_WORDS].decode(errors="ignore").replace("\x00", "")


def _without(secrets: tuple[str, ...], error: IntegrationError, *, retry_after: timedelta | None) -> IntegrationError:
    """The failure without the credential's values; an upstream's own words may stand in it."""
    (message, details), _ = redact([error.message, error.details], secrets)
    return IntegrationError(error.code, message, details=details, path=error.path, retry_after=retry_after)


def _refused_credential(status: int) -> IntegrationError:
    return IntegrationError(
        ErrorCode.AUTH_ERROR, f"the upstream refuses the credential ({status})", details={"statusCode": status}
    )
