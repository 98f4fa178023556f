"""Requests for servers of either protocol, made up from what they say of their models."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from taxon.bench import asking as asking_module
from taxon.bench import made_pictures
from taxon.bench.asking import CLASSIFY, MODEL_INFER, CannotAskError, ask
from taxon.connection import Connection
from taxon.errors import ModelNotFoundError, ServerError
from taxon.inference import open_inference_service_pb2 as inference_pb
from taxon.inference import open_inference_service_pb2_grpc as inference_grpc
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1 import classification_service_pb2_grpc as taxon_grpc

PICTURES = made_pictures.jpegs(3, (40, 30))


class Classifying(taxon_grpc.ClassificationServiceServicer):
    """Of one model."""

    def __init__(self, **kind):
        self.model = pb.Model(name="pets", version="3", variant="int8", input=pb.ModelInput(**kind))
        self.asked = []

    def GetModel(self, request, context):  # noqa: N802
        if request.model_name not in ("", self.model.name):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return pb.GetModelResponse(model=self.model)

    def Classify(self, request, context):  # noqa: N802
        self.asked.append(request)
        return pb.ClassifyResponse()


class Inferring(inference_grpc.GRPCInferenceServiceServicer):
    """Of models whose inputs are given as (name, datatype, shape)."""

    def __init__(self, *inputs, names=("net",)):
        self.inputs, self.names, self.asked = inputs, names, []

    def RepositoryIndex(self, request, context):  # noqa: N802
        entry = inference_pb.RepositoryIndexResponse.ModelIndex
        return inference_pb.RepositoryIndexResponse(models=[entry(name=name) for name in self.names])

    def ModelMetadata(self, request, context):  # noqa: N802
        tensor = inference_pb.ModelMetadataResponse.TensorMetadata
        inputs = [tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in self.inputs]
        return inference_pb.ModelMetadataResponse(name=request.name, versions=["1", "2"], inputs=inputs)

    def ModelInfer(self, request, context):  # noqa: N802
        self.asked.append(request)
        return inference_pb.ModelInferResponse()


@contextmanager
def served(service):
    server = grpc.server(ThreadPoolExecutor(2))
    if isinstance(service, Classifying):
        taxon_grpc.add_ClassificationServiceServicer_to_server(service, server)
    else:
        inference_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Connection(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_pictures_for_taxon():
    with served(service := Classifying(image=pb.ImageInput(height=32, width=32))) as server:
        asking = ask(server, "auto", "", "", PICTURES.copy)
    assert (asking.path, asking.model) == (CLASSIFY, "pets/3 int8")
    assert [pb.ClassifyRequest.FromString(request).image for request in asking.requests] == PICTURES
    assert len(service.asked) == 1, "the first request is tried before there is load"


def test_numbers_for_taxon():
    with served(Classifying(features=pb.FeaturesInput(feature_count=5))) as server:
        asking = ask(server, "taxon", "pets", "3", PICTURES.copy)
    request = pb.ClassifyRequest.FromString(asking.requests[1])
    assert len(request.features.values) == 5
    assert (request.model_name, request.model_version) == ("pets", "3")


def test_an_unknown_model_is_told():
    with served(Classifying(image=pb.ImageInput())) as server, pytest.raises(ModelNotFoundError, match="no such model"):
        ask(server, "auto", "cats", "", PICTURES.copy)


def asked(*inputs):
    """The tensors that a model of such inputs is asked with."""
    with served(service := Inferring(*inputs)) as server:
        asking = ask(server, "auto", "", "", PICTURES.copy)
    assert (asking.path, asking.model) == (MODEL_INFER, "net/2")
    (request,) = service.asked
    sent = zip(request.inputs, request.raw_input_contents, strict=True)
    return [(given.datatype, [*given.shape], raw) for given, raw in sent]


@pytest.mark.parametrize(
    ("shape", "expected"), [([-1, 8, 6, 3], [1, 8, 6, 3]), ([8, 6, 1], [8, 6, 1]), ([-1, -1, -1, 3], [1, 224, 224, 3])]
)
def test_pixels_behind_one_another(shape, expected):
    ((datatype, sent, raw),) = asked(("image", "UINT8", shape))
    assert (datatype, sent, len(raw)) == ("UINT8", expected, np.prod(expected))


def test_pixels_as_planes_of_floats():
    ((_, sent, raw),) = asked(("image", "FP32", [-1, 3, 8, 6]))
    values = np.frombuffer(raw, np.float32).reshape(sent)
    assert sent == [1, 3, 8, 6]
    assert 0.0 <= values.min() < values.max() <= 1.0
    assert values[0].std(axis=0).mean() > 0.01, "the planes are colours"


@pytest.mark.parametrize("shape", [[-1], [-1, 1]])
def test_encoded_pictures(shape):
    ((_, sent, raw),) = asked(("image", "BYTES", shape))
    assert sent == [1] * len(shape)
    assert raw == len(PICTURES[0]).to_bytes(4, "little") + PICTURES[0]


def test_other_numbers():
    tokens, mask = asked(("tokens", "INT64", [-1, 12]), ("mask", "BOOL", [-1, 12]))
    assert (tokens[:2], len(tokens[2])) == (("INT64", [1, 12]), 96)
    assert (mask[:2], len(mask[2])) == (("BOOL", [1, 12]), 12)


def test_what_cannot_be_made_up():
    texts = Inferring(("text", "BYTES", [-1]), ("more", "BYTES", [-1]))
    with served(texts) as server, pytest.raises(CannotAskError, match="text takes BYTES"):
        ask(server, "open-inference", "net", "", PICTURES.copy)
    with served(Inferring(names=("a", "b"))) as server, pytest.raises(CannotAskError, match=r"2 models.*--model"):
        ask(server, "open-inference", "", "", PICTURES.copy)
    with served(Inferring()) as server, pytest.raises(ServerError):
        ask(server, "taxon", "net", "", PICTURES.copy)


@pytest.mark.parametrize(
    "service",
    [
        Classifying(features=pb.FeaturesInput(feature_count=2**31 - 1)),
        Inferring(("rows", "FP32", [1, 2**40])),
        Inferring(("image", "UINT8", [1, 30_000, 30_000, 3])),
        Inferring(("rows", "FP64", [2**24]), ("more", "FP64", [2**24 + 1])),
    ],
)
def test_a_server_that_wants_requests_that_fit_nowhere(service):
    with served(service) as server, pytest.raises(CannotAskError, match="a request would have"):
        ask(server, "auto", "", "", PICTURES.copy)


def test_large_requests_are_fewer(monkeypatch):
    monkeypatch.setattr(asking_module, "MOST_BYTES", 1000)
    with served(Inferring(("rows", "FP32", [100]))) as server:
        assert len(ask(server, "auto", "", "", PICTURES.copy).requests) == 2
