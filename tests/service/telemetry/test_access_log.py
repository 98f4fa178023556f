"""What the log says of calls: enough to find one again, and never more lines than the log can bear."""

from types import SimpleNamespace

import grpc
import pytest
from structlog.testing import capture_logs

from taxon.service.telemetry.access_log import MOST_LINES_S, AccessLog, Rate
from taxon.service.telemetry.calls import Calls
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, FakeClock, picture

RED = picture(COLORS["red"])
CLASSIFY = "taxon.v1.ClassificationService/Classify"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-00"


def calls_in(events):
    return [event for event in events if event["event"] == "call"]


def test_a_rate_lets_a_second_s_worth_through_and_tells_what_it_kept_back():
    clock = FakeClock()
    rate = Rate(10, clock)
    assert [rate.take() for _ in range(12)] == [True] * 10 + [False] * 2
    assert (rate.missed(), rate.missed()) == (2, 0)
    clock.now += 0.1
    assert [rate.take() for _ in range(2)] == [True, False]
    clock.now += 3600
    assert sum(rate.take() for _ in range(100)) == 10


def test_an_overload_writes_no_more_lines_than_were_promised():
    clock = FakeClock()
    access = AccessLog(1.0, clock)
    with capture_logs() as events:
        for _ in range(10_000):  # ten seconds of a thousand refusals each
            clock.now += 0.001
            if access.wants_failed():
                access.write("RESOURCE_EXHAUSTED", reason="QUEUE_FULL")
    assert MOST_LINES_S * 9 < len(events) <= MOST_LINES_S * 11 + 1
    assert len(events) + sum(event.get("lines_left_out", 0) for event in events) > 9_900


async def test_refused_and_failed_calls_have_a_line_each(serve, models, refused):
    async with serve(models, "--access-log-sample", "0", "--metrics-port", "0") as running:
        with capture_logs() as events:
            call = running.stub.Classify(
                pb.ClassifyRequest(image=b"no picture"), metadata=[("traceparent", TRACEPARENT)], timeout=10
            )
            error = await refused(call)
            await refused(running.stub.Classify(pb.ClassifyRequest(image=RED, model_name="invented"), timeout=10))
            with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
                await running.channel.unary_unary("/invented.Service/Invented")(b"", timeout=10)
            await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        bad, missing, unknown = calls_in(events)
        name = "taxon_requests_total"
        assert running.counted(name, method="Classify", model="colors", outcome="IMAGE_UNDECODABLE") == 1
        assert running.counted(name, method="Classify", model="", outcome="MODEL_NOT_FOUND") == 1
        assert running.counted(name, method="", model="", outcome="UNIMPLEMENTED") == 1
        assert "invented" not in running.page()
        assert running.counted("taxon_dropped_inputs_total", model="colors", version="1") == 0
    assert bad.pop("milliseconds") > 0
    assert bad == {
        "event": "call",
        "log_level": "info",
        "method": "taxon.v1.ClassificationService/Classify",
        "model": "colors",
        "version": 1,
        "code": "INVALID_ARGUMENT",
        "reason": "IMAGE_UNDECODABLE",
        "request_id": error.others["RequestInfo"].request_id,
        "trace_id": TRACE,
    }
    assert (missing["code"], missing["reason"], "model" in missing) == ("NOT_FOUND", "MODEL_NOT_FOUND", False)
    assert (unknown["code"], "method" in unknown) == ("UNIMPLEMENTED", False)
    assert "invented" not in str(calls_in(events))


@pytest.mark.parametrize(("method", "count"), [("grpc.health.v1.Health/Watch", 0), (CLASSIFY, 1)])
async def test_a_watch_that_its_client_leaves_is_no_failure(method, count):
    """Every client ends its watch so, whenever its connection comes of age."""
    calls = Calls(AccessLog(0.0), lambda *_: None)
    with capture_logs() as events:
        call = calls.begin(method, SimpleNamespace(invocation_metadata=tuple))
        calls.end(call, grpc.StatusCode.CANCELLED, "", "")
    assert len(calls_in(events)) == count


async def test_entries_that_fail_have_a_line_and_their_own_request_id(serve, models):
    async with serve(models, "--access-log-sample", "0") as running:
        requests = [pb.ClassifyRequest(image=RED), pb.ClassifyRequest(image=b"no picture")]
        with capture_logs() as events:
            answer = await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=requests), timeout=10)
    (line,) = calls_in(events)
    assert (line["method"], line["reason"]) == ("taxon.v1.ClassificationService/BatchClassify", "IMAGE_UNDECODABLE")
    assert len({line["request_id"], answer.results[0].response.request_id}) == 2


@pytest.mark.parametrize(("sample", "count"), [("1", 3), ("0", 0)])
async def test_of_answered_calls_a_sample_has_lines(serve, models, sample, count):
    async with serve(models, "--access-log-sample", sample) as running:
        with capture_logs() as events:
            answers = [await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10) for _ in range(3)]
    lines = calls_in(events)
    assert [line["request_id"] for line in lines] == [answer.request_id for answer in answers][:count]
    assert all(line["code"] == grpc.StatusCode.OK.name and "reason" not in line for line in lines)
