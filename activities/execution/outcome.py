"""From a failure to what Temporal is told: again, later, or never."""

from __future__ import annotations

from datetime import timedelta

from temporalio.exceptions import ApplicationError

from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.target import Progress
from integration_service.contracts.errors import Decision, ErrorCode, IntegrationError, to_application_error
from integration_service.contracts.retry import RetryConfig

_OUTAGE_DELAY = timedelta(seconds=1)


def failure(error: IntegrationError, *, attempt: Attempt, progress: Progress) -> ApplicationError:
    """The failure that the activity raises; whatever the caller's own policy, the definition's limits hold."""
    retry = progress.retry
    if is_throttle(error, progress):
        return _waiting(error, attempt, retry)
    if retry.retries(error.code) and progress.repeatable and attempt.tries < retry.max_tries:
        delay = max(retry.delay_after(attempt.tries), error.retry_after or timedelta(0))
        return to_application_error(error, retry=True, next_retry_delay=delay)
    return to_application_error(error)


def is_throttle(error: IntegrationError, progress: Progress) -> bool:
    """Whether the failure spends no try: our own limits and outages always, an upstream's 429 if it may be retried.

    Amid pages a throttle spends one: the call begins at page one, and would meet it for ever.
    """
    if error.decision is not Decision.WAIT:
        return False
    if error.code != ErrorCode.RATE_LIMITED:
        return True
    return not progress.pages_read and ("reserved" in error.details or progress.retry.retries(error.code))


def _waiting(error: IntegrationError, attempt: Attempt, retry: RetryConfig) -> ApplicationError:
    if attempt.parks:
        details = {**error.details, "triesSpent": attempt.tries - 1}
        if error.retry_after is not None:
            details["retryAfterMs"] = round(error.retry_after / timedelta(milliseconds=1))
        return to_application_error(IntegrationError(error.code, error.message, path=error.path, details=details))
    # A foreign caller's policy is all there is to wait by, so this spends one of its attempts.
    delay = error.retry_after or max(_OUTAGE_DELAY, retry.delay_after(attempt.throttles + 1))
    return to_application_error(error, retry=True, next_retry_delay=delay)
