"""Our errors as Temporal's, at the edge of an activity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from integration_service.contracts.errors import Decision, IntegrationError, to_application_error, unexpected


@asynccontextmanager
async def typed(*, retry: bool = True) -> AsyncIterator[None]:
    """An outage is tried again for as long as it lasts, anything else is final; with `retry` off the workflow
    decides, and is told in `retryAfterMs` what a wait was asked for."""
    try:
        yield
    except IntegrationError as error:
        if error.retry_after is not None:
            error.details["retryAfterMs"] = round(error.retry_after / timedelta(milliseconds=1))
        again = retry and error.decision is Decision.WAIT
        raise to_application_error(error, retry=again, next_retry_delay=error.retry_after if again else None) from None
    except Exception as error:
        raise unexpected(error) from None
