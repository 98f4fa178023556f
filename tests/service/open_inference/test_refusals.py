"""Requests that must be refused, each with its code and reason."""

import asyncio
import threading

import grpc
import numpy as np
import pytest

from taxon.inference import open_inference_service_pb2 as pb
from tests.fakes import FEATURE_COUNT, toy_bundle
from tests.inference_requests import PICTURES, classes, encoded, sent, stub_of
from tests.service.thread_workers import gated
from tests.waiting import until

Code = grpc.StatusCode


def with_parameters(**parameters) -> pb.ModelInferRequest:
    return encoded(PICTURES[0], parameters={name: pb.InferParameter(**value) for name, value in parameters.items()})


REFUSED = {
    "no model": (encoded(PICTURES[0], model=""), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "unknown model": (encoded(PICTURES[0], model="birds"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "a path": (encoded(PICTURES[0], model="../colors"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "a name of a megabyte": (encoded(PICTURES[0], model="é" * 1_000_000), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "unknown version": (encoded(PICTURES[0], model_version="9"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "version abc": (encoded(PICTURES[0], model_version="abc"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version 0": (encoded(PICTURES[0], model_version="0"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version -1": (encoded(PICTURES[0], model_version="-1"), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "version of a megabyte": (encoded(PICTURES[0], model_version="1" * 10**6), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    "batch over the limit": (encoded(*PICTURES[:1] * 257), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "unknown output": (
        encoded(PICTURES[0], outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")]),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "output twice": (
        encoded(PICTURES[0], outputs=[classes("scores", 1), classes("scores", 2)]),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "no classes": (encoded(PICTURES[0], outputs=[classes("scores", 0)]), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "fewer classes": (encoded(PICTURES[0], outputs=[classes("scores", -1)]), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "classes as text": (
        encoded(
            PICTURES[0],
            outputs=[
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name="scores", parameters={"classification": pb.InferParameter(string_param="2")}
                )
            ],
        ),
        Code.INVALID_ARGUMENT,
        "FIELD_INVALID",
    ),
    "shared memory": (
        pb.ModelInferRequest(
            model_name="colors",
            inputs=[sent("image", "BYTES", [1], shared_memory_region=pb.InferParameter(string_param="r"))],
        ),
        Code.UNIMPLEMENTED,
        "UNSUPPORTED",
    ),
    "negative priority": (with_parameters(priority={"int64_param": -1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "priority as text": (with_parameters(priority={"string_param": "1"}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "negative timeout": (with_parameters(timeout={"int64_param": -1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "reserved parameter": (with_parameters(triton_x={"int64_param": 1}), Code.INVALID_ARGUMENT, "FIELD_INVALID"),
    "a microsecond": (with_parameters(timeout={"int64_param": 1}), Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"),
}


@pytest.fixture(scope="module")
def shared_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("shared") / "models"
    toy_bundle(root)
    return root


@pytest.mark.parametrize(("request_", "code", "reason"), REFUSED.values(), ids=REFUSED)
async def test_refuses(serve, shared_models, refused, request_, code, reason):
    async with serve(shared_models) as running:
        error = await refused(stub_of(running).ModelInfer(request_))
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_features_must_be_finite(serve, tmp_path, refused, value):
    toy_bundle(tmp_path / "models", features=True)
    request = pb.ModelInferRequest(model_name="colors", inputs=[sent("features", "FP32", [1, FEATURE_COUNT])])
    request.raw_input_contents.append(np.full(FEATURE_COUNT, value, "<f4").tobytes())
    async with serve(tmp_path / "models") as running:
        error = await refused(stub_of(running).ModelInfer(request))
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_full_queue_is_unavailable_here(serve, models, refused):
    """RESOURCE_EXHAUSTED in our own API; the clients of this protocol retry on UNAVAILABLE."""
    gate = threading.Event()
    async with serve(models, "--max-queued-requests", "1", workers=gated(gate)) as running:
        first = asyncio.ensure_future(stub_of(running).ModelInfer(encoded(PICTURES[0])))
        await until(lambda: running.counted("taxon_in_flight_inputs") == 1)
        error = await refused(stub_of(running).ModelInfer(encoded(*PICTURES)))
        gate.set()
        assert (await first).outputs
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "QUEUE_FULL")
    assert "RetryInfo" in error.others


async def test_parameters_without_meaning_are_ignored(serve, models):
    request = with_parameters(
        priority={"uint64_param": 2**64 - 1}, sequence_id={"int64_param": 4}, mine={"bool_param": 1}
    )
    async with serve(models) as running:
        assert (await stub_of(running).ModelInfer(request)).outputs
