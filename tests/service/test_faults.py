"""A model that fails or hangs on some inputs, and pictures made to hold the server up, among good traffic."""

import asyncio
import threading
import time
from io import BytesIO

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import helper, numpy_helper
from PIL import Image

from taxon.bundle import manifest
from taxon.v1 import classification_service_pb2 as pb
from tests.fakes import COLORS, TOY_PIXELS, picture, toy_bundle, toy_graph

NOT_A_NUMBER, RAISES = picture((0, 0, 0)), picture((255, 255, 255))
GREEN = picture(COLORS["green"])


def fragile_graph():
    """The toy model, but black gives NaN, and white fails the run of its whole batch."""
    model = onnx.load_from_string(toy_graph(manifest.contract(tuple(COLORS), TOY_PIXELS, "single_label")))
    nodes = list(model.graph.node)
    at = next(index for index, node in enumerate(nodes) if node.op_type == "MatMul")
    nodes[at].output[0] = "sound"
    fragile = [
        helper.make_node("ReduceSum", ["mean", "classes"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["index"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["brightest"]),  # of 256 entries; white asks for the 765th
        helper.make_node("Div", ["brightest", "sum"], ["scale"]),
        helper.make_node("Mul", ["sound", "scale"], ["logits"]),
    ]
    model.graph.ClearField("node")
    model.graph.node.extend([*nodes[: at + 1], *fragile, *nodes[at + 1 :]])
    table = np.full(256, 255, np.float32)
    table[0] = 0  # black: nothing by nothing
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "classes"))
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_a_poisoned_input_fails_alone(serve, tmp_path, refused, workers):
    root = tmp_path / "models"
    toy_bundle(root, graph=fragile_graph())
    async with serve(root, "--workers", workers) as running:
        good = [running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=20) for _ in range(30)]
        for bad in (NOT_A_NUMBER, RAISES):
            calls = [running.stub.Classify(pb.ClassifyRequest(image=bad), timeout=20) for _ in range(3)]
            for error in [await refused(call) for call in calls]:
                assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INFERENCE_FAILED")
        assert {reply.classifications[0].label for reply in await asyncio.gather(*good)} == {"green"}
        entries = [pb.ClassifyRequest(image=image) for image in (GREEN, RAISES, GREEN, NOT_A_NUMBER)]
        batch = await running.stub.BatchClassify(pb.BatchClassifyRequest(requests=entries), timeout=20)
        assert [result.WhichOneof("outcome") for result in batch.results] == ["response", "error"] * 2
        counted = running.server._metrics.requests.labels("Classify", "INFERENCE_FAILED")._value.get()
        assert counted == 6


async def test_a_hanging_run_is_answered_by_the_deadline_and_makes_the_server_unready(serve, models, refused):
    """A thread cannot be killed: it is said, and taken back if the run ends after all."""
    async with serve(models, "--max-run-seconds", "0.1") as running:
        (batcher,) = running.server._placement._batchers
        run, let_go = batcher._run, threading.Event()
        batcher._run = lambda batch: let_go.wait(20) and run(batch)
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        states = [(await watch.read()).status]
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=0.3)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        error = await refused(running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
        states.append((await watch.read()).status)
        let_go.set()
        states.append((await watch.read()).status)
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        assert states == [serving, not_serving, serving]
        reply = await running.stub.Classify(pb.ClassifyRequest(image=GREEN), timeout=10)
        assert reply.classifications[0].label == "green"


def bomb():
    """Next to the limit in pixels, next to nothing in bytes."""
    file = BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("where", [("--workers", "2"), ("--workers", "0", "--threads", "2")])
async def test_a_decode_bomb_holds_nobody_up(serve, models, where):
    bombs, ordinary = pb.ClassifyRequest(image=bomb()), pb.ClassifyRequest(image=GREEN)
    assert len(bombs.image) < 100_000
    async with serve(models, *where) as running:
        crew = getattr(running.server._placement, "crew", None)
        async with asyncio.timeout(20):
            while crew and crew.ready_count < 2:  # noqa: ASYNC110 - other processes bring it about
                await asyncio.sleep(0.01)
        await running.stub.Classify(ordinary, timeout=10)
        bomb_calls = [running.stub.Classify(bombs, timeout=60) for _ in range(4)]
        spent = []
        while not all(call.done() for call in bomb_calls):
            began = time.monotonic()
            reply = await running.stub.Classify(ordinary, timeout=10)
            assert reply.classifications[0].label == "green"
            spent.append(time.monotonic() - began)
        replies = await asyncio.gather(*bomb_calls)
    bombs_s = [reply.timing.total_duration.ToTimedelta().total_seconds() for reply in replies]
    assert len(spent) > 10
    assert sorted(spent)[len(spent) // 2] < max(bombs_s) / 3
