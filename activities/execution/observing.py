"""What a call tells of itself: counted, and where traces are on, written onto its span. Names and codes, no values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from integration_service.activities.execution.attempt import Attempt
from integration_service.activities.execution.target import Progress
from integration_service.activities.outbound.messages import InboundResponse, OutboundRequest
from integration_service.contracts.calls import MethodCall
from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.telemetry.metrics import OK, Metrics, result_class
from integration_service.telemetry.tracing import Tracing

_NOBODY = ""
"""The definition of a call that found none: what callers make up is no label."""


@dataclass
class Sending:
    """A send that is under way. `request` is what is to be sent."""

    request: OutboundRequest
    response: InboundResponse | None = None


class Observer:
    """Of one worker. It never raises, and waits for nothing."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    def attempted(self, call: MethodCall, attempt: Attempt, progress: Progress, code: str | None) -> None:
        """An attempt ended, with a code or well."""
        metrics, target = self._metrics, progress.target
        names = (target.compiled.definition.name, target.method.method.name) if target else (_NOBODY, _NOBODY)
        metrics.attempts.labels(*names, result_class(code or OK)).inc()
        metrics.duration.labels(*names).observe(time.monotonic() - progress.started)
        if attempt.number > 1:
            metrics.retries.labels(*names).inc()
        if progress.throttled:
            metrics.throttled.labels(*names, "activity").inc()
        if code == ErrorCode.RATE_LIMITED:
            metrics.throttled.labels(*names, "workflow").inc()
        cached = code is None and progress.response is None
        if target is not None and target.method.method.cache is not None and code is None:
            metrics.cache.labels(*names, "cache" if cached else "upstream").inc()
        if progress.breaker_change is not None:
            metrics.breakers.labels(names[0], progress.breaker_change.to).inc()
        if self._tracing is not None:
            self._tracing.annotate(
                {
                    "integration.definition": names[0],
                    "integration.method": names[1],
                    "integration.code": code or OK,
                    "integration.attempt": attempt.number,
                    "integration.cached": cached,
                    "http.response.status_code": progress.status_code,
                }
            )

    @contextmanager
    def sending(self, request: OutboundRequest, *, definition: str, host: str) -> Iterator[Sending]:
        """Around a send; where traces are on and the host may have it, the request carries `traceparent`."""
        began, outcome = time.monotonic(), "CANCELLED"
        with self._span(request, host) as sending:
            try:
                yield sending
                outcome = f"{sending.response.status // 100}XX" if sending.response else OK
            except IntegrationError as error:
                outcome = error.code
                raise
            finally:
                self._metrics.sends.labels(definition, outcome).inc()
                self._metrics.send_duration.labels(definition).observe(time.monotonic() - began)

    @contextmanager
    def _span(self, request: OutboundRequest, host: str) -> Iterator[Sending]:
        if self._tracing is None:
            yield Sending(request)
            return
        with self._tracing.send_span(request.method, host) as span:
            sending = Sending(request)
            if (parent := self._tracing.traceparent_for(host)) and request.header("traceparent") is None:
                # Secret: it goes to nobody that a redirect leads to.
                sending.request = request.with_secret_header("traceparent", parent)
            try:
                yield sending
            finally:
                if sending.response is not None:
                    span.set_attribute("http.response.status_code", sending.response.status)
