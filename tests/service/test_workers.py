"""Models in worker processes: the same answers, and what happens when a worker dies, hangs, or has a large picture."""

import asyncio
import os
import signal
import time
from io import BytesIO

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from taxon.service.api.early_refusal import METHOD
from taxon.service.runtime.session import CPU, CUDA
from taxon.service.scheduling.executors import worker_count
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, picture, toy_bundle

RED, GREEN, BLUE = (picture(color) for color in COLORS.values())


def members(running):
    return list(running.server._placement.crew._members.values())


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes bring it about
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("workers", "provider", "cores", "count"),
    [
        ("auto", CPU, 1, 1),
        ("auto", CPU, 2, 2),
        ("auto", CPU, 16, 16),
        ("auto", CUDA, 16, 0),
        (3, CPU, 2, 3),
        (0, CPU, 2, 0),
    ],
)
def test_worker_count(workers, provider, cores, count):
    assert worker_count(workers, provider, cores) == count


async def test_workers_answer_as_threads_do(serve, tmp_path, refused):
    root = tmp_path / "models"
    toy_bundle(root)
    toy_bundle(root, "numbers", features=True)
    answers = {}
    for workers in ("0", "2"):
        async with serve(root, "--workers", workers) as running:
            calls = [
                running.stub.Classify(pb.ClassifyRequest(image=image, model_name="colors"), timeout=10)
                for image in (RED, GREEN, BLUE) * 20
            ]
            features = pb.ClassifyRequest(features=pb.Features(values=[0, 3, 1, 0]), model_name="numbers")
            calls.append(running.stub.Classify(features, timeout=10))
            answers[workers] = [
                [(found.label, pytest.approx(found.score, abs=1e-6)) for found in reply.classifications]
                for reply in await asyncio.gather(*calls)
            ]
            for image, reason in [
                (b"", "IMAGE_UNDECODABLE"),
                (RED[:-30], "IMAGE_UNDECODABLE"),
                (b"x" * 9_000_000, "IMAGE_TOO_LARGE"),
            ]:
                error = await refused(running.stub.Classify(pb.ClassifyRequest(image=image, model_name="colors")))
                assert error.reason == reason
                assert error.others["BadRequest"].field_violations[0].field == "image"
    assert answers["0"] == answers["2"]


async def test_a_dead_worker_is_replaced_and_its_callers_are_told(serve, models, refused):
    async with serve(models, "--workers", "1") as running:
        (member,) = members(running)
        os.kill(member.process.pid, signal.SIGSTOP)
        held = asyncio.create_task(refused(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20)))
        await until(lambda: member.taken is not None)
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        states = [(await watch.read()).status]
        os.kill(member.process.pid, signal.SIGKILL)
        error = await held
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        assert "died" in error.message
        states += [(await watch.read()).status, (await watch.read()).status]
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert states == [serving, not_serving, serving]
        reply = await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10)
        assert reply.classifications[0].label == "green"


async def test_one_dead_worker_of_two_leaves_the_server_ready(serve, models):
    async with serve(models, "--workers", "2") as running:
        await until(lambda: running.server._placement.crew.ready_count == 2)
        os.kill(members(running)[0].process.pid, signal.SIGKILL)
        replies = [await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10) for _ in range(5)]
        assert {reply.classifications[0].label for reply in replies} == {"red"}
        health = await health_pb2_grpc.HealthStub(running.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        await until(lambda: running.server._placement.crew.ready_count == 2)


async def test_a_hanging_worker_is_killed_and_replaced(serve, models, refused):
    async with serve(models, "--workers", "1", "--max-run-seconds", "0.5") as running:
        (member,) = members(running)
        os.kill(member.process.pid, signal.SIGSTOP)
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20))
        assert error.reason == "NOT_SERVING"
        await until(lambda: running.server._placement.crew.ready_count == 1)
        assert (await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)).classifications[
            0
        ].label == "red"


async def test_the_deadline_answers_while_a_worker_hangs(serve, models):
    async with serve(models, "--workers", "1") as running:
        (member,) = members(running)
        os.kill(member.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=0.3)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 2
        os.kill(member.process.pid, signal.SIGCONT)


async def test_cancelled_calls_never_reach_a_model(serve, models):
    """The worker is stopped while it has one batch; callers leave, in its hands and in the queue."""
    async with serve(models, "--workers", "1", "--metrics-port", "0") as running:
        (member,) = members(running)
        before = _runs(running)
        os.kill(member.process.pid, signal.SIGSTOP)
        calls = [running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20) for _ in range(20)]
        lane = running.server._placement.crew._lanes._lanes[0]
        await until(lambda: member.taken is not None and len(lane.light) + len(member.taken.batch) == 20)
        batch = member.taken.batch
        for call in calls:
            call.cancel()
        await until(lambda: all(entry.future.cancelled() for entry in [*batch, *lane.light]))
        os.kill(member.process.pid, signal.SIGCONT)
        await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        assert _runs(running) == before + 1


def _runs(running):
    (family,) = [family for family in running.server._metrics.registry.collect() if family.name == "taxon_batch_size"]
    return sum(sample.value for sample in family.samples if sample.name.endswith("_sum"))


async def test_a_large_picture_leaves_a_worker_to_the_small_ones(serve, models):
    async with serve(models, "--workers", "2") as running:
        await until(lambda: running.server._placement.crew.ready_count == 2)
        noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
        large = _encode(noise)
        await running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=10)
        large_calls = [running.stub.Classify(pb.ClassifyRequest(image=large), timeout=30) for _ in range(4)]
        await until(lambda: any(member.has_large_picture for member in members(running)))
        small_s = []
        while not all(call.done() for call in large_calls):
            began = time.monotonic()
            await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10)
            small_s.append(time.monotonic() - began)
            assert sum(member.has_large_picture for member in members(running)) <= 1
        replies = await asyncio.gather(*large_calls)
    assert len(small_s) > 8
    assert sorted(small_s)[len(small_s) // 2] < max(reply.timing.inference_duration.nanos for reply in replies) + 0.1


def _encode(array):
    file = BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=20)
    return file.getvalue()


async def test_a_long_queue_is_refused_before_the_picture_has_come(serve, models, refused):
    async with serve(models, "--workers", "1", "--max-queued-requests", "3") as running:
        (member,) = members(running)
        os.kill(member.process.pid, signal.SIGSTOP)
        waiting = [running.stub.Classify(pb.ClassifyRequest(image=RED), timeout=20) for _ in range(3)]
        lane = running.server._placement.crew._lanes._lanes[0]
        await until(lambda: member.taken is not None and len(lane.light) + len(member.taken.batch) == 3)
        headers_only = running.channel.stream_unary(METHOD, response_deserializer=pb.ClassifyResponse.FromString)
        error = await refused(headers_only(timeout=20))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        began = time.monotonic()
        # Larger than a stream's first window: it could not have been received without being read.
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=bytes(5_000_000)), timeout=20))
        assert time.monotonic() - began < 2
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert error.metadata == {"maxQueuedRequestCount": "3"}
        os.kill(member.process.pid, signal.SIGCONT)
        assert {reply.classifications[0].label for reply in await asyncio.gather(*waiting)} == {"red"}


async def test_a_long_queue_is_no_reason_to_refuse_who_can_wait(serve, models):
    async with serve(models, "--workers", "1") as running:
        lane = running.server._placement.crew._lanes._lanes[0]
        lane.alone_s = lane.decode_s = 0.2  # as if measured so: ten calls are two seconds
        calls = [running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=20) for _ in range(10)]
        replies = await asyncio.gather(*calls)
        assert {reply.classifications[0].label for reply in replies} == {"green"}
