"""Spans as a collector receives them, by OTLP over HTTP."""

import asyncio
import gzip
import importlib
import itertools
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from taxon.service.errors import StartError
from taxon.service.telemetry import tracing
from taxon.service.telemetry.calls import parent_of
from taxon.service.telemetry.tracing import EXPORTER, SDK
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture
from tests.service.thread_workers import gated
from tests.waiting import until

RED = picture(COLORS["red"])
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NEVER, ALWAYS = ("--otlp-sample", "0"), ("--otlp-sample", "1")


class Collector:
    """What has been received, and where."""

    def __init__(self) -> None:
        service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        self.spans = spans = []

        class Sink(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                for resource in service.ExportTraceServiceRequest.FromString(body).resource_spans:
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def named(self, name: str) -> list:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip(EXPORTER)
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def sampled(flag: str) -> list[tuple[str, str]]:
    return [("traceparent", f"00-{TRACE}-{SPAN}-{flag}")]


@pytest.mark.parametrize("fronts", ["1", "2"])
async def test_a_sampled_call_has_a_span_below_its_callers_and_one_for_each_stage(serve, models, collector, fronts):
    flags = ("--otlp-endpoint", collector.endpoint, *NEVER, "--fronts", fronts)
    async with serve(models, *flags) as running:
        for flag in ("01", "00"):
            await running.stub.Classify(pb.ClassifyRequest(image=RED), metadata=sampled(flag), timeout=10)
        await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
    (call,) = collector.named("taxon.v1.ClassificationService/Classify")
    stages = [span for name in ("queue", "preprocess", "inference") for span in collector.named(name)]
    assert len(collector.spans) == 4
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, SPAN)
    assert {span.trace_id for span in stages} == {call.trace_id}
    assert {span.parent_span_id for span in stages} == {call.span_id}
    for before, after in itertools.pairwise(stages):
        assert before.start_time_unix_nano <= before.end_time_unix_nano == after.start_time_unix_nano
    assert call.start_time_unix_nano <= stages[0].start_time_unix_nano + 5_000_000  # two clocks
    facts = {fact.key: fact.value for fact in call.attributes}
    assert facts["taxon.model"].string_value == "colors"
    assert facts["rpc.method"].string_value == "Classify"


async def test_calls_that_ran_together_are_linked(serve, models, collector):
    gate, flags = threading.Event(), ("--otlp-endpoint", collector.endpoint, *ALWAYS, "--workers", "1")
    async with serve(models, *flags, workers=gated(gate)) as running:
        waiting = [
            asyncio.ensure_future(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20)) for _ in range(9)
        ]
        await until(lambda: running.counted("taxon_in_flight_inputs") == 9)
        gate.set()
        await asyncio.gather(*waiting)
    calls = {span.span_id: span.trace_id for span in collector.named("taxon.v1.ClassificationService/Classify")}
    assert len(calls) == len(set(calls.values())) == 9
    runs = collector.named("inference")
    assert any(span.links for span in runs)
    for span in runs:
        size = next(fact.value.int_value for fact in span.attributes if fact.key == "taxon.batch_size")
        assert len(span.links) == size - 1
        assert all(calls[link.span_id] == link.trace_id != span.trace_id for link in span.links)


async def test_a_failed_call_says_so(serve, models, refused, collector):
    async with serve(models, "--otlp-endpoint", collector.endpoint, *ALWAYS) as running:
        await refused(running.stub.Classify(pb.ClassifyRequest(image=b"no picture"), timeout=10))
    (call,) = collector.spans
    assert call.status.code == 2
    assert {fact.key: fact.value.string_value for fact in call.attributes}["error.type"] == "IMAGE_UNDECODABLE"


async def test_a_collector_that_is_away_delays_nobody(serve, models):
    pytest.importorskip(EXPORTER)
    async with serve(models, "--otlp-endpoint", "http://127.0.0.1:9", *ALWAYS) as running:
        for _ in range(5):
            answer = await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=1)
            assert answer.model_name == "colors"


@pytest.mark.parametrize("fronts", ["1", "2"])
async def test_missing_packages_end_the_start_with_what_to_install(serve, models, monkeypatch, fronts):
    monkeypatch.setitem(sys.modules, SDK, None)
    with pytest.raises(StartError, match=r"pip install -e '\.\[otel\]'"):
        async with serve(models, "--otlp-endpoint", "http://127.0.0.1:9", "--fronts", fronts):
            pass


def test_a_password_in_the_endpoint_ends_the_start_and_is_not_told():
    """Each front of its own would have it among its words, which all users of the machine can read."""
    with pytest.raises(StartError, match="OTEL_EXPORTER_OTLP_HEADERS") as told:
        tracing.check("https://jane:secret@collector:4318")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "value",
    [
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
        "",
    ],
)
def test_what_is_no_traceparent_is_none(value):
    assert parent_of([("traceparent", value)]) is None


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known():
    assert parent_of([("other", "x"), ("traceparent", f"01-{TRACE}-{SPAN}-03-more")]) == (TRACE, SPAN, True)
    assert parent_of([("traceparent", f"00-{TRACE}-{SPAN}-02")]) == (TRACE, SPAN, False)
