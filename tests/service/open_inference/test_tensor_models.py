"""Models without a manifest, through a real server."""

import asyncio
import threading

import grpc
import numpy as np

from taxon.inference import open_inference_service_pb2 as pb
from taxon.service.workers import worker_slot
from taxon.v1 import classification_service_pb2 as taxon_pb
from tests.inference_requests import PICTURES, array_of, classes, elements_of, pair, sent, stub_of
from tests.service.thread_workers import gated
from tests.tensor_models import free_length, mixing, simple
from tests.waiting import until

Code = grpc.StatusCode


async def test_add_and_subtract(serve, tmp_path):
    simple(tmp_path / "models")
    a, b = np.arange(32, dtype=np.int32).reshape(2, 16), np.full((2, 16), 3, np.int32)
    only = [pb.ModelInferRequest.InferRequestedOutputTensor(name="OUTPUT1")]
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        both = await stub.ModelInfer(pair(a, b))
        one = await stub.ModelInfer(pair(a, b, outputs=only))
        best = await stub.ModelInfer(pair(a, b, outputs=[classes("OUTPUT0", 1)]))
    assert (array_of(both) == a + b).all()
    assert (array_of(both, 1) == a - b).all()
    assert [output.name for output in one.outputs] == ["OUTPUT1"]
    assert (array_of(one) == a - b).all()
    assert elements_of(best) == ["18:15", "34:15"]


async def test_requests_of_different_lengths_are_answered_together(serve, tmp_path):
    free_length(tmp_path / "models")

    def request(length: int) -> pb.ModelInferRequest:
        values = np.ones((2, length), "<f4")
        inputs = [sent("values", "FP32", values.shape)]
        return pb.ModelInferRequest(model_name="free", inputs=inputs, raw_input_contents=[values.tobytes()])

    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        responses = await asyncio.gather(*[stub.ModelInfer(request(length)) for length in [3, 5, 3, 70, 5] * 4])
    for response, length in zip(responses, [3, 5, 3, 70, 5] * 4, strict=True):
        assert array_of(response).tolist() == [[length], [length]]
        assert response.outputs[1].shape == [2, length]


async def test_a_free_axis_that_is_no_batch_is_not_batched(serve, tmp_path):
    mixing(tmp_path / "models")
    values = np.array([[1, 2], [3, 6]], "<f4")
    request = pb.ModelInferRequest(
        model_name="mixing", inputs=[sent("values", "FP32", [2, 2])], raw_input_contents=[values.tobytes()]
    )
    async with serve(tmp_path / "models") as running:
        stub = stub_of(running)
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="mixing"))).config
        response = await stub.ModelInfer(request)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 2]
    assert array_of(response).tolist() == [[-1, -2], [1, 2]]


async def test_different_batches_in_one_request(serve, tmp_path, refused):
    simple(tmp_path / "models")
    async with serve(tmp_path / "models") as running:
        error = await refused(stub_of(running).ModelInfer(pair(np.zeros((1, 16)), np.zeros((2, 16)))))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_classify_does_not_see_models_without_labels(serve, models, refused):
    simple(models)
    async with serve(models) as running:
        listed = await running.stub.ListModels(taxon_pb.ListModelsRequest())
        error = await refused(running.stub.Classify(taxon_pb.ClassifyRequest(model_name="simple", image=PICTURES[0])))
    assert [model.name for model in listed.models] == ["colors"]
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")
    assert "ModelInfer" in error.message  # which it takes


async def test_the_urgent_go_first(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_slot, "AHEAD_S", 0.0)  # what a worker is given ahead waits no more
    simple(tmp_path / "models")
    zeros, gate, ended = np.zeros((1, 16)), threading.Event(), []
    flags = "--workers", "1", "--max-batch-size", "1"
    async with serve(tmp_path / "models", *flags, workers=gated(gate)) as running:

        async def ask(name, **priority):
            parameters = {"priority": pb.InferParameter(**priority)} if priority else {}
            await stub_of(running).ModelInfer(pair(zeros, zeros, parameters=parameters))
            ended.append(name)

        calls = []
        for count, call in enumerate(
            [ask("first"), ask("usual"), ask("less", int64_param=7), ask("most", uint64_param=1)]
        ):
            calls.append(asyncio.ensure_future(call))
            await until(lambda count=count: running.counted("taxon_in_flight_inputs") == count + 1)
            await until(lambda count=count: running.server.pool.dispatcher.waiting_count == count)
        gate.set()
        await asyncio.gather(*calls)
    assert ended == ["first", "most", "less", "usual"]
