"""Every failure is a decision. This is the one tree:

IntegrationError
├── fix the input       VALIDATION_ERROR, *_NOT_FOUND, DEFINITION_NOT_PUBLISHED, CONFIG_ERROR, VERSION_CONFLICT …
├── re-authorise        AUTH_ERROR, REAUTH_REQUIRED
├── retry (a try each)  TIMEOUT, CONNECTION_ERROR, HTTP_<status>, MALFORMED_RESPONSE … as `retryableErrors` says
├── wait (spends none)  RATE_LIMITED, CIRCUIT_OPEN, UNAVAILABLE, KEY_UNAVAILABLE
└── give up             OUTCOME_UNKNOWN, EGRESS_DENIED, RESPONSE_TOO_LARGE, INTEGRITY_ERROR …

The leaf is the code; `decision_for` is the one table from code to branch. A failure crosses into Temporal
once, in `to_application_error`.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory


class ErrorCode(StrEnum):
    """The codes callers see; `HTTP_<status>` completes them (see `http_code`)."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    DEFINITION_NOT_FOUND = "DEFINITION_NOT_FOUND"
    DEFINITION_NOT_PUBLISHED = "DEFINITION_NOT_PUBLISHED"
    METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
    INSTANCE_NOT_FOUND = "INSTANCE_NOT_FOUND"
    INSTANCE_NOT_CONNECTED = "INSTANCE_NOT_CONNECTED"
    CONFIG_ERROR = "CONFIG_ERROR"
    VERSION_CONFLICT = "VERSION_CONFLICT"
    AUTH_ERROR = "AUTH_ERROR"
    REAUTH_REQUIRED = "REAUTH_REQUIRED"
    RATE_LIMITED = "RATE_LIMITED"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    TIMEOUT = "TIMEOUT"
    CONNECTION_ERROR = "CONNECTION_ERROR"
    MALFORMED_RESPONSE = "MALFORMED_RESPONSE"
    RESULT_VALIDATION_ERROR = "RESULT_VALIDATION_ERROR"
    TRANSFORM_ERROR = "TRANSFORM_ERROR"
    RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE"
    EGRESS_DENIED = "EGRESS_DENIED"
    GRAPHQL_ERROR = "GRAPHQL_ERROR"
    SOAP_FAULT = "SOAP_FAULT"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    UNAVAILABLE = "UNAVAILABLE"
    KEY_UNAVAILABLE = "KEY_UNAVAILABLE"
    INTEGRITY_ERROR = "INTEGRITY_ERROR"


UNEXPECTED = "UNEXPECTED"
"""What a bug of ours is called where no code fits. Callers see it as UNAVAILABLE with this as `details.cause`."""


class Decision(Enum):
    """What whoever meets the failure should do about it."""

    FIX_INPUT = "fix the input"
    REAUTHORISE = "re-authorise"
    RETRY = "retry"
    WAIT = "wait"
    GIVE_UP = "give up"


_DECISIONS: dict[str, Decision] = {
    ErrorCode.VALIDATION_ERROR: Decision.FIX_INPUT,
    ErrorCode.DEFINITION_NOT_FOUND: Decision.FIX_INPUT,
    ErrorCode.DEFINITION_NOT_PUBLISHED: Decision.FIX_INPUT,
    ErrorCode.METHOD_NOT_FOUND: Decision.FIX_INPUT,
    ErrorCode.INSTANCE_NOT_FOUND: Decision.FIX_INPUT,
    ErrorCode.INSTANCE_NOT_CONNECTED: Decision.FIX_INPUT,
    ErrorCode.CONFIG_ERROR: Decision.FIX_INPUT,
    ErrorCode.VERSION_CONFLICT: Decision.FIX_INPUT,
    ErrorCode.TRANSFORM_ERROR: Decision.GIVE_UP,
    ErrorCode.AUTH_ERROR: Decision.REAUTHORISE,
    ErrorCode.REAUTH_REQUIRED: Decision.REAUTHORISE,
    ErrorCode.TIMEOUT: Decision.RETRY,
    ErrorCode.CONNECTION_ERROR: Decision.RETRY,
    ErrorCode.MALFORMED_RESPONSE: Decision.RETRY,
    ErrorCode.RESULT_VALIDATION_ERROR: Decision.RETRY,
    ErrorCode.GRAPHQL_ERROR: Decision.RETRY,
    ErrorCode.SOAP_FAULT: Decision.RETRY,
    ErrorCode.RATE_LIMITED: Decision.WAIT,
    ErrorCode.CIRCUIT_OPEN: Decision.WAIT,
    ErrorCode.UNAVAILABLE: Decision.WAIT,
    ErrorCode.KEY_UNAVAILABLE: Decision.WAIT,
    ErrorCode.RESPONSE_TOO_LARGE: Decision.GIVE_UP,
    ErrorCode.EGRESS_DENIED: Decision.GIVE_UP,
    ErrorCode.OUTCOME_UNKNOWN: Decision.GIVE_UP,
    ErrorCode.INTEGRITY_ERROR: Decision.GIVE_UP,
}


def http_code(status: int) -> str:
    """The code of an HTTP status that means failure: 429 is RATE_LIMITED, the rest ``HTTP_<status>``."""
    return ErrorCode.RATE_LIMITED if status == 429 else f"HTTP_{status}"


def decision_for(code: str) -> Decision:
    """Which branch of the tree a code is on."""
    return Decision.RETRY if code.startswith("HTTP_") else _DECISIONS[code]


class IntegrationError(Exception):
    """A failure with its code, one clear sentence and the path of what is wrong.

    `message` and `details` hold paths, rules and statuses, never values: they end in workflow histories.
    `retry_after` is what the upstream, or our own limiter, asked for.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        path: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.path = path
        self.details = {**({"path": path} if path else {}), **(details or {})}
        self.retry_after = retry_after

    @property
    def decision(self) -> Decision:
        """Of the code; a bug of ours is UNAVAILABLE to callers, but waiting does not mend it."""
        return Decision.GIVE_UP if self.details.get("cause") == UNEXPECTED else decision_for(self.code)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.path})" if self.path else "")


def to_application_error(
    error: IntegrationError, *, retry: bool = False, next_retry_delay: timedelta | None = None, expected: bool = False
) -> ApplicationError:
    """The failure as Temporal carries it: type = code, details = {code, message, retryable, details}.

    `retry` says whether Temporal may run the activity again. Waits are BENIGN, and what is `expected`: they are no news
    to an operator.
    """
    wire = {
        "code": error.code,
        "message": error.message,
        "retryable": retry or error.decision is Decision.WAIT,
        "details": error.details,
    }
    return ApplicationError(
        error.message if not error.path else f"{error.message} ({error.path})",
        wire,
        type=error.code,
        non_retryable=not retry,
        next_retry_delay=next_retry_delay,
        category=ApplicationErrorCategory.BENIGN
        if expected or error.decision is Decision.WAIT
        else ApplicationErrorCategory.UNSPECIFIED,
    )


def unexpected(error: Exception) -> ApplicationError:
    """A bug of ours as our own workflows see it: its kind and place, type UNEXPECTED."""
    return ApplicationError(_kind_and_place(error), type=UNEXPECTED, non_retryable=True)


def unexpected_in_call(error: Exception) -> ApplicationError:
    """The same as callers of a method's activity see it: with a code of the contract, and all four fields."""
    return to_application_error(
        IntegrationError(ErrorCode.UNAVAILABLE, _kind_and_place(error), details={"cause": UNEXPECTED})
    )


def _kind_and_place(error: Exception) -> str:
    # Its text may quote a secret and is left out.
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {frame.tb_frame.f_code.co_qualname}:{frame.tb_lineno}" if frame else ""
    return f"unexpected {type(error).__name__}{place}"


def from_failure(failure: BaseException | None) -> IntegrationError | None:
    """The first of our errors in a Temporal cause chain, or None."""
    while failure is not None:
        if isinstance(failure, ApplicationError) and failure.details:
            wire = failure.details[0]
            if isinstance(wire, dict) and wire.get("code") == failure.type:
                details = wire.get("details") or {}
                return IntegrationError(wire["code"], wire["message"], path=details.get("path"), details=details)
        failure = failure.__cause__
    return None
