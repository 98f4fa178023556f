"""Traces for OpenTelemetry: one span for each sampled call, one for each stage of its inputs. Off unless an endpoint is
given; the packages (extra `otel`) are imported only then.

What is not sampled costs a look at the caller's `traceparent`. Spans are sent by a thread of their own, which drops
what it cannot get rid of.
"""

import importlib
import random
import time
from collections.abc import Iterable
from importlib.util import find_spec
from threading import Thread
from typing import Any, NamedTuple

from taxon import __version__, extras
from taxon.mistaken import without_userinfo
from taxon.service.errors import StartError

MOST_SPANS = 4096
"""That wait to be sent; further ones are dropped."""
SENDING_S = 2.0
"""For what is left at the end, and for one request to the collector."""
API = "opentelemetry.trace"
SDK = "opentelemetry.sdk.trace"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Place(NamedTuple):
    """A span, for others to name."""

    trace_id: int
    span_id: int


class Parent(NamedTuple):
    """What a caller says of the trace that its call is part of."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 of them."""
    sampled: bool


class Span:
    """One sampled call."""

    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer = tracer
        self._span = span
        self._trace: Any = importlib.import_module(API)
        context = span.get_span_context()
        self.place = Place(context.trace_id, context.span_id)

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.place.trace_id:032x}"

    def stages(self, stages: Iterable[tuple[str, float]], batch_size: int, batch: Iterable[Place]) -> None:
        """Adds the stages of one input that has been answered just now.

        Args:
            stages: Name and seconds, one after the other; the last one ends now.
            batch_size: Of the run.
            batch: The sampled calls whose inputs ran together.
        """
        trace = self._trace
        context = trace.set_span_in_context(self._span)
        spans = list(stages)
        began_ns = time.time_ns() - round(sum(seconds for _, seconds in spans) * 1e9)
        for name, seconds in spans:
            links, attributes = (), {}
            if name == "inference":
                attributes = {"taxon.batch_size": batch_size}
                others = (place for place in batch if place != self.place)
                links = tuple(
                    trace.Link(trace.SpanContext(*place, is_remote=True, trace_flags=trace.TraceFlags(1)))
                    for place in others
                )
            span = self._tracer.start_span(name, context, start_time=began_ns, attributes=attributes, links=links)
            began_ns += round(seconds * 1e9)
            span.end(began_ns)

    def end(self, code: str, number: int, reason: str, model: str, version: int) -> None:
        """Ends it.

        Args:
            code: Name of the gRPC status.
            number: Of the status.
            reason: Of the error.
            model: Empty if none was found.
            version: Of the model.
        """
        facts = {"rpc.grpc.status_code": number, "taxon.model": model, "taxon.version": version, "error.type": reason}
        self._span.set_attributes({name: fact for name, fact in facts.items() if fact or name.startswith("rpc")})
        if code != "OK":
            self._span.set_status(self._trace.StatusCode.ERROR, code)
        self._span.end()


class Tracing:
    """The traces of one process."""

    def __init__(self, endpoint: str, ratio: float) -> None:
        """Connects to nothing yet.

        Args:
            endpoint: URL of the collector, for OTLP over HTTP, without /v1/traces.
            ratio: Share of the calls without a `traceparent` that are sampled; others are if their parent is.

        Raises:
            StartError: A package is missing.
        """
        check(endpoint)
        sdk, exporting, sampling, exporter, resources, self._trace = map(
            importlib.import_module,
            (SDK, f"{SDK}.export", f"{SDK}.sampling", EXPORTER, "opentelemetry.sdk.resources", API),
        )
        self._ratio = ratio
        resource = resources.Resource.create({"service.name": "taxon", "service.version": __version__})
        self._processor = exporting.BatchSpanProcessor(
            exporter.OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SENDING_S),
            max_queue_size=MOST_SPANS,
        )
        # Whoever is not sampled never gets here, so the provider samples all.
        provider = sdk.TracerProvider(sampling.ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("taxon", __version__)

    def begin(self, method: str, parent: Parent | None) -> Span | None:
        """A call has come. Returns its span, if it is sampled.

        Args:
            method: Service and method.
            parent: What the caller says.
        """
        if not (parent.sampled if parent else random.random() < self._ratio):  # noqa: S311 - no secret
            return None
        trace, context = self._trace, None
        if parent:
            told = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, trace.TraceFlags(1))
            context = trace.set_span_in_context(trace.NonRecordingSpan(told))
        service, _, name = method.rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        return Span(
            self._tracer, self._tracer.start_span(method, context, kind=trace.SpanKind.SERVER, attributes=attributes)
        )

    def close(self) -> None:
        """Sends what is left, for a little while. Blocks."""
        ending = Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(SENDING_S)


def check(endpoint: str | None) -> None:
    """Finds the packages, if they are needed.

    Raises:
        StartError: One is missing, or there is a password in the URL, which everybody on the machine could read.
    """
    if endpoint is not None and without_userinfo(endpoint) != endpoint:
        raise StartError("--otlp-endpoint has a user in it: give that by OTEL_EXPORTER_OTLP_HEADERS instead")
    try:
        if endpoint is None or (find_spec(SDK) and find_spec(EXPORTER)):
            return
    except ModuleNotFoundError:
        pass  # of their parents
    raise StartError(f"--otlp-endpoint needs the extra otel: {extras.install('otel')}")


def tracing(endpoint: str | None, ratio: float) -> Tracing | None:
    """That of the settings; None if it is off.

    Raises:
        StartError: A package is missing.
    """
    return None if endpoint is None else Tracing(endpoint, ratio)
