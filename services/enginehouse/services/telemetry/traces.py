"""OpenTelemetry: traces and metrics with the GenAI semantic conventions, off until an endpoint is set.

Names follow the OpenTelemetry semantic conventions for generative AI (development status). No attribute holds a prompt.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as genai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import Span, SpanKind

from enginehouse.v1 import common_pb2

_SCOPE = "enginehouse"
_METRICS_INTERVAL_MS = 10_000
_OPERATION_NAMES = {
    common_pb2.OPERATION_CHAT: "chat",
    common_pb2.OPERATION_COMPLETION: "text_completion",
    common_pb2.OPERATION_EMBEDDING: "embeddings",
    common_pb2.OPERATION_RERANK: "rerank",
    common_pb2.OPERATION_COUNT_TOKENS: "count_tokens",
}


@dataclass(frozen=True, slots=True)
class Providers:
    """What was set up, to be shut down at the end."""

    traces: TracerProvider
    metrics: MeterProvider

    def shutdown(self) -> None:
        """Sends what waits and ends."""
        self.traces.shutdown()
        self.metrics.shutdown()


def start_telemetry(*, service: str, instance: str, place: str, endpoint: str) -> Providers | None:
    """Sends traces and metrics to an OTLP endpoint ("host:port", gRPC). Nothing, and None, without one."""
    if not endpoint:
        return None
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    resource = Resource.create(
        {"service.name": f"enginehouse-{service}", "service.instance.id": instance, "enginehouse.place": place}
    )
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=True), export_interval_millis=_METRICS_INTERVAL_MS
    )
    measured = MeterProvider(resource=resource, metric_readers=[reader])
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(measured)
    return Providers(traces, measured)


def parent_of(headers: Mapping[str, str]) -> Context:
    """The W3C trace context that a request carries."""
    return propagate.extract(headers)


def carried() -> dict[str, str]:
    """The headers that carry the current trace context on."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def operation_span(
    operation: common_pb2.Operation.ValueType, model: str, *, headers: Mapping[str, str], kind: SpanKind
) -> Iterator[Span]:
    """A span for one request, below the one that `headers` carry."""
    name = _OPERATION_NAMES.get(operation, "request")
    attributes = {genai.GEN_AI_OPERATION_NAME: name, genai.GEN_AI_REQUEST_MODEL: model}
    tracer = trace.get_tracer(_SCOPE)
    with tracer.start_as_current_span(
        f"{name} {model}", context=parent_of(headers), kind=kind, attributes=attributes, record_exception=False
    ) as span:
        yield span


class Measures:
    """The metrics of generations: tokens used, and how long they took."""

    def __init__(self) -> None:
        meter = metrics.get_meter(_SCOPE)
        self._tokens = gen_ai_metrics.create_gen_ai_client_token_usage(meter)
        self._duration = gen_ai_metrics.create_gen_ai_server_request_duration(meter)
        self._first_token = gen_ai_metrics.create_gen_ai_server_time_to_first_token(meter)

    def used(self, operation: common_pb2.Operation.ValueType, model: str, usage: common_pb2.Usage) -> None:
        """Counts the tokens of a finished request."""
        attributes = self._attributes(operation, model)
        self._tokens.record(usage.input_tokens, {**attributes, genai.GEN_AI_TOKEN_TYPE: "input"})
        self._tokens.record(usage.output_tokens, {**attributes, genai.GEN_AI_TOKEN_TYPE: "output"})

    def took(
        self,
        operation: common_pb2.Operation.ValueType,
        model: str,
        *,
        duration_s: float,
        first_token_s: float | None = None,
    ) -> None:
        """Records how long a request took, and its first token if it had one."""
        attributes = self._attributes(operation, model)
        self._duration.record(duration_s, attributes)
        if first_token_s is not None:
            self._first_token.record(first_token_s, attributes)

    def _attributes(self, operation: common_pb2.Operation.ValueType, model: str) -> dict[str, str]:
        return {
            genai.GEN_AI_OPERATION_NAME: _OPERATION_NAMES.get(operation, "request"),
            genai.GEN_AI_REQUEST_MODEL: model,
        }
