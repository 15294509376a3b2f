"""Traces by OpenTelemetry, where its own variables ask for them; else none of it is imported.

Temporal's interceptor carries the trace from a caller through workflow and activity; the span of a send is the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from integration_service.contracts.errors import ErrorCode, IntegrationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from temporalio.client import Interceptor

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Tracing:
    """One process's. `upstreams` are the hosts that are sent `traceparent`: names, ``*.`` and a domain, or ``*``."""

    def __init__(self, provider: TracerProvider, *, upstreams: Sequence[str] = ()) -> None:
        from temporalio.contrib.opentelemetry import TracingInterceptor

        self._provider = provider
        self._tracer = provider.get_tracer("integration_service")
        self._upstreams = tuple(upstream.lower() for upstream in upstreams)
        self.interceptor: Interceptor = TracingInterceptor(self._tracer)

    @classmethod
    def from_environment(
        cls, *, service: str, upstreams: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Tracing | None:
        """What `OTEL_*` asks for; None where no endpoint is set. Raises IntegrationError naming the variable."""
        source = os.environ if environment is None else environment
        endpoint = next((name for name in _ENDPOINTS if source.get(name)), None)
        if endpoint is None or source.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        if source.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
            return None
        protocol = next((name for name in _PROTOCOLS if source.get(name)), None)
        if protocol is not None and source[protocol] != "http/protobuf":
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, "only http/protobuf is spoken", path=protocol)
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            from integration_service.telemetry.span_exporter import WordlessExporter
        except ImportError:
            raise IntegrationError(
                ErrorCode.VALIDATION_ERROR, "traces need integration-service[telemetry]", path=endpoint
            ) from None
        # The variables' own names go before ours.
        named = {} if source.get("OTEL_SERVICE_NAME") else {"service.name": service}
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(WordlessExporter(OTLPSpanExporter())))
        return cls(provider, upstreams=upstreams)

    def close(self) -> None:
        """Send what is left. It may take as long as the exporter's own timeout."""
        self._provider.shutdown()

    def annotate(self, attributes: Mapping[str, str | int | bool]) -> None:
        """Write onto the current span."""
        from opentelemetry import trace

        trace.get_current_span().set_attributes(attributes)

    def trace_id(self) -> str | None:
        """Of the current span, in hex."""
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    @contextmanager
    def send_span(self, method: str, host: str) -> Iterator[Any]:
        """A client span around one send. The URL is not in it: a key may stand there."""
        from opentelemetry.trace import SpanKind

        attributes = {"http.request.method": method, "server.address": host}
        with self._tracer.start_as_current_span(
            method, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
        ) as span:
            yield span

    def traceparent_for(self, host: str) -> str | None:
        """The current span as W3C Trace Context §3.2 writes it, if `host` (and port) may have it."""
        if not self._may_have(host.rpartition(":")[0] or host):
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")

    def _may_have(self, host: str) -> bool:
        return any(
            upstream == "*" or host == upstream or (upstream.startswith("*.") and host.endswith(upstream[1:]))
            for upstream in self._upstreams
        )
