"""When a failed send may be tried again, and after how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.wire import WireModel

DEFAULT_RETRYABLE = (
    "TIMEOUT",
    "CONNECTION_ERROR",
    "RATE_LIMITED",
    "HTTP_408",
    "HTTP_429",
    "HTTP_5XX",
)
_DAY_MS = 24 * 3600 * 1000

RetryableCode = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]


class RetryConfig(WireModel):
    """How a method is retried (data model `RetryConfig`).

    Shapes: `maxRetries` n means n + 1 tries; the k-th wait is ``initialDelayMs · backoffMultiplier^(k-1)``, at
    most `maxDelayMs`. `retryableErrors` is an allow-list of codes or classes (``HTTP_5XX``).
    """

    max_retries: int = Field(ge=0, le=1000)
    backoff_multiplier: float = Field(ge=1, le=1000, allow_inf_nan=False)
    initial_delay_ms: int = Field(ge=0, le=_DAY_MS)
    max_delay_ms: int = Field(ge=0, le=_DAY_MS)
    retryable_errors: list[RetryableCode] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_delay_ms < self.initial_delay_ms:
            raise ValueError("maxDelayMs must not be below initialDelayMs")
        return self

    @property
    def max_tries(self) -> int:
        return self.max_retries + 1

    def retries(self, code: str) -> bool:
        """Whether a failure with `code` may be tried again."""
        allowed = set(self.retryable_errors if self.retryable_errors is not None else DEFAULT_RETRYABLE)
        names = {code}
        if code.startswith("HTTP_"):
            names.add(f"{code[:6]}XX")
        if code == ErrorCode.RATE_LIMITED:
            names |= {"HTTP_429", "HTTP_4XX"}
        return not allowed.isdisjoint(names)

    def delay_after(self, tries: int) -> timedelta:
        """How long to wait after the `tries`-th failed try (1-based)."""
        delay, ceiling = float(self.initial_delay_ms), float(self.max_delay_ms)
        # Multiplying step by step stops at the ceiling; a power of a large count would overflow.
        for _ in range(tries - 1):
            if delay >= ceiling or self.backoff_multiplier == 1:
                break
            delay *= self.backoff_multiplier
        return timedelta(milliseconds=min(delay, ceiling))


DEFAULT_RETRY = RetryConfig(max_retries=3, backoff_multiplier=2, initial_delay_ms=500, max_delay_ms=30_000)
