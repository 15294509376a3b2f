"""What is counted, and under which labels. Every label is of a bounded set: names of published definitions and their
methods, codes, statuses, routes; never an instance, a scope, a host or a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
OK = "OK"
"""The code of what succeeded."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LEFT = (0, 10, 30, 60, 120, 300, 600, 1800, 3600, 86400)


class Metrics:
    """One process's. Cheap to make; what nobody counts costs nothing."""

    def __init__(self) -> None:
        # A series more for each, which says when it began: nobody asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        method = ("definition", "method")
        self.attempts = self._counter(
            "method_attempts", "Attempts at method calls, by how they ended.", *method, "code"
        )
        self.duration = self._histogram("method_duration_seconds", "How long attempts took.", *method)
        self.retries = self._counter("method_retries", "Attempts that were not the first of their call.", *method)
        self.throttled = self._counter(
            "throttle_waits", "Waits for a rate limit: in the activity, or by coming again.", *method, "place"
        )
        self.cache = self._counter("cache_answers", "Answers of cached methods, by where from.", *method, "source")
        self.sends = self._counter("upstream_sends", "Requests to upstreams, by outcome.", "definition", "outcome")
        self.send_duration = self._histogram("upstream_send_duration_seconds", "How long sends took.", "definition")
        self.breakers = self._counter("breaker_changes", "Circuit breakers that opened or closed.", "definition", "to")
        self.activities = self._counter("activities", "Other activities, by how they ended.", "activity", "code")
        self.refreshes = self._counter("token_refreshes", "Token requests for connections, by result.", "result")
        self.refresh_left = Histogram(
            "integrations_token_refresh_time_left_seconds",
            "What was left of a token when a newer one came; 0 where it had expired.",
            buckets=_LEFT,
            registry=self.registry,
        )
        self.key_unavailable = self._counter("vault_key_unavailable", "Activities that failed for want of a key.")
        self.requests = self._counter("gateway_requests", "Requests to the gateway.", "route", "method", "status")
        self.request_duration = self._histogram("gateway_request_duration_seconds", "How long they took.", "route")
        self.callbacks = self._counter("gateway_callbacks", "OAuth callbacks, by what the person saw.", "outcome")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"integrations_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str) -> Histogram:
        return Histogram(f"integrations_{name}", what, labels, buckets=_SECONDS, registry=self.registry)

    def collect_from(self, collector: Collector) -> None:
        """Have `collector` asked at each scrape; it must answer at once."""
        self.registry.register(collector)

    def refreshed(self, result: str, *, left: timedelta | None = None) -> None:
        """A token request ended: `result` is OK or a code; `left` is how long the token before it would have lived."""
        self.refreshes.labels(result_class(result)).inc()
        if left is not None:
            self.refresh_left.observe(max(left.total_seconds(), 0))

    def ended(self, activity: str, code: str) -> None:
        """An activity that is no method call ended."""
        self.activities.labels(activity, result_class(code)).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)


def result_class(code: str) -> str:
    """A code as a label: `HTTP_404` and its like as `HTTP_4XX`, for it is the upstream that chooses among them."""
    if code.startswith("HTTP_") and code[5:].isdigit():
        return f"HTTP_{code[5]}XX"
    return code


def pool_figures(stats: Mapping[str, int]) -> Mapping[str, float]:
    """psycopg's own figures under our names."""
    size, available = stats.get("pool_size", 0), stats.get("pool_available", 0)
    return {"open": size, "idle": available, "waiting": stats.get("requests_waiting", 0)}
