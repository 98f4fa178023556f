"""What cannot be parsed, and what nobody foresaw: answered by the table, for every method."""

import asyncio
import threading

import grpc
import pytest
from structlog.testing import capture_logs

from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture
from tests.service.thread_workers import gated
from tests.waiting import until

Code = grpc.StatusCode
RED = picture(COLORS["red"])
NO_MESSAGE = b"\xff\xff\xff"
METHODS = [
    *(("taxon.v1.ClassificationService", name) for name in ("Classify", "BatchClassify", "GetModel", "ListModels")),
    *(("inference.GRPCInferenceService", name) for name in ("ModelInfer", "ModelMetadata", "ServerLive", "ModelReady")),
    *(("inference.GRPCInferenceService", name) for name in ("RepositoryIndex", "RepositoryModelLoad")),
    ("grpc.health.v1.Health", "Check"),
]


@pytest.mark.parametrize(("service", "method"), METHODS)
async def test_bytes_that_are_no_message_are_the_callers_fault(serve, models, refused, service, method):
    async with serve(models) as running:
        call = running.channel.unary_unary(f"/{service}/{method}")
        error = await refused(call(NO_MESSAGE, timeout=10))
        assert running.counted("taxon_requests_total", method=method, model="", outcome="FIELD_INVALID") == 1
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")
    assert "cannot be parsed" in error.message


@pytest.mark.parametrize("method", ["ModelStreamInfer", "Watch"])
async def test_so_in_streams(serve, models, refused, method):
    async with serve(models) as running:
        if method == "Watch":
            call = running.channel.unary_stream("/grpc.health.v1.Health/Watch")(NO_MESSAGE, timeout=10)
        else:
            call = running.channel.stream_stream(f"/inference.GRPCInferenceService/{method}")(timeout=10)
            await call.write(NO_MESSAGE)
        error = await refused(call.read())
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_what_nobody_foresaw_is_told_in_two_words(serve, models, refused, monkeypatch):
    async with serve(models) as running:
        monkeypatch.setattr(running.server.repository, "listing", lambda: 1 / 0)
        with capture_logs() as events:
            error = await refused(running.stub.ListModels(pb.ListModelsRequest()))
    assert (error.code, error.message) == (Code.INTERNAL, "internal error")
    assert error.others["RequestInfo"].request_id == events[0]["request_id"]


async def test_a_call_without_a_message_is_told_so(serve, models, refused):
    async with serve(models) as running:
        for name in ("/taxon.v1.ClassificationService/BatchClassify", "/inference.GRPCInferenceService/ModelInfer"):
            call = running.channel.stream_unary(name)(timeout=10)
            await call.done_writing()
            assert (await refused(call)).code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/taxon.v1.ClassificationService/Classify", Code.RESOURCE_EXHAUSTED),
        ("/taxon.v1.ClassificationService/BatchClassify", Code.RESOURCE_EXHAUSTED),
        ("/inference.GRPCInferenceService/ModelInfer", Code.UNAVAILABLE),
    ],
)
async def test_a_long_queue_is_refused_before_the_picture_has_come(serve, models, refused, path, code):
    gate = threading.Event()
    async with serve(models, "--workers", "1", "--max-queued-requests", "3", workers=gated(gate)) as running:
        waiting = [
            asyncio.ensure_future(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20)) for _ in range(3)
        ]
        await until(lambda: running.counted("taxon_in_flight_inputs") == 3)
        headers_only = running.channel.stream_unary(path)
        error = await refused(headers_only(timeout=20))
        assert (error.code, error.reason) == (code, "QUEUE_FULL")
        # Larger than a stream's first window: it could not have been received without being read.
        error = await refused(running.channel.unary_unary(path)(bytes(5_000_000), timeout=20))
        assert (error.code, error.reason) == (code, "QUEUE_FULL")
        assert error.metadata == {"queuedRequestCount": "3", "maxQueuedRequestCount": "3"}
        gate.set()
        assert {reply.classifications[0].label for reply in await asyncio.gather(*waiting)} == {"red"}
