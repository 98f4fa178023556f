"""Requests of the Open Inference Protocol and their answers, for the tests of the service."""

import numpy as np

from taxon.bundle.pixels import decode
from taxon.inference import open_inference_service_pb2 as pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.service.open_inference.tensors import framed
from tests.fakes import COLORS, TOY_PIXELS, picture

PICTURES = [picture(color, size=(20, 31)) for color in COLORS.values()]
CONTROL = ("--model-control", "explicit")


def stub_of(running) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(running.channel)


def sent(name: str, datatype: str, shape, **parameters) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, parameters=parameters)


def encoded(*pictures: bytes, model="colors", **fields) -> pb.ModelInferRequest:
    image = sent("image", "BYTES", [len(pictures)])
    return pb.ModelInferRequest(model_name=model, inputs=[image], raw_input_contents=[framed(pictures)], **fields)


def decoded(*pictures: bytes, model="colors", **fields) -> pb.ModelInferRequest:
    arrays = np.stack([decode(one, TOY_PIXELS) for one in pictures])
    image = sent("image", "UINT8", arrays.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[image], raw_input_contents=[arrays.tobytes()], **fields)


def pair(a: np.ndarray, b: np.ndarray, model="simple", **fields) -> pb.ModelInferRequest:
    inputs = [sent("INPUT0", "INT32", a.shape), sent("INPUT1", "INT32", b.shape)]
    raw = [a.astype("<i4").tobytes(), b.astype("<i4").tobytes()]
    return pb.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **fields)


def array_of(response: pb.ModelInferResponse, index: int = 0) -> np.ndarray:
    dtype = {"FP32": "<f4", "INT32": "<i4", "INT8": "i1"}[response.outputs[index].datatype]
    return np.frombuffer(response.raw_output_contents[index], dtype).reshape(response.outputs[index].shape)


def elements_of(response: pb.ModelInferResponse, index: int = 0) -> list[str]:
    raw, elements = response.raw_output_contents[index], []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        elements.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return elements


def classes(name: str, count: int) -> pb.ModelInferRequest.InferRequestedOutputTensor:
    parameter = pb.InferParameter(int64_param=count)
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters={"classification": parameter})
