"""Sends spans with OpenTelemetry's SDK to the router's door. Arguments: the router's address, a writer's token. Prints whether the exports
succeeded."""

import json
import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode

router, token = sys.argv[1:]
END = 1_764_479_999_012_400_000
DURATION = 12_400_000


class Kept:
    """Keeps the spans of a tracer."""

    def __init__(self):
        self.spans = []

    def on_start(self, span, parent_context=None):
        pass

    def on_end(self, span):
        self.spans.append(span)

    def _on_ending(self, span):
        pass

    def shutdown(self):
        pass

    def force_flush(self, timeout_millis=0):
        return True


def spans(service, calls):
    kept = Kept()
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": "v2"}))
    provider.add_span_processor(kept)
    tracer = provider.get_tracer("serin.tests")
    for kind, attributes, failed in calls:
        span = tracer.start_span("call", kind=kind, attributes=attributes, start_time=END - DURATION)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=END)
    return kept.spans


def http(method, status, kind=SpanKind.SERVER):
    attributes = {"http.request.method": method, "url.path": "/predict", "http.response.status_code": status}
    return kind, attributes, status >= 500


def sent(batch, key, compression):
    exporter = OTLPSpanExporter(
        endpoint=f"http://{router}/v1/doors/otlp/v1/traces",
        headers={"authorization": f"Bearer {key}"},
        compression=compression,
        timeout=30,
    )
    return exporter.export(batch) is SpanExportResult.SUCCESS


calls = [http("POST", 200), http("POST", 422), http("POST", 503), http("GET", 200), http("POST", 200, SpanKind.CLIENT)]
# The attributes of vLLM, and those of the conventions for generative AI.
chat = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "assistant",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.prompt_tokens": 100,
    "gen_ai.usage.completion_tokens": 180,
    "gen_ai.latency.time_to_first_token": 0.25,
    "session.id": "s1",
}
report = {
    "plain": sent(spans("fraud", calls), token, Compression.NoCompression),
    "gzip": sent(spans("vllm", [(SpanKind.SERVER, chat, False)]), token, Compression.Gzip),
    "refused": sent(spans("fraud", calls), "an-unknown-token", Compression.NoCompression),
}
print(json.dumps(report))
