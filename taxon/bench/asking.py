"""What to send to a server: asks it what its model takes, by `taxon.v1` or by the Open Inference Protocol, and makes
requests of that kind.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from PIL import Image

from taxon import errors
from taxon.connection import Connection
from taxon.inference import open_inference_service_pb2 as inference_pb
from taxon.inference.open_inference_service_pb2_grpc import GRPCInferenceServiceStub
from taxon.v1 import classification_service_pb2 as pb
from taxon.v1.classification_service_pb2_grpc import ClassificationServiceStub

CLASSIFY = "/taxon.v1.ClassificationService/Classify"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 10.0
MOST_MESSAGE_BYTES = 2**31 - 1
VECTORS = 64
MOST_BYTES = 2**28
"""Of all requests together: what the server says of its model decides how large they are."""
FREE_LENGTH = 224
"""Of an axis of a picture that may have any."""
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


Pictures = Callable[[], Sequence[bytes]]


class CannotAskError(ValueError):
    """There is nothing that this could send. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Requests for one model of one server."""

    path: str
    """Of the method."""
    requests: tuple[bytes, ...]
    """Serialized."""
    model: str
    """`name/version variant`, as far as the server says it."""
    what: str
    """For people: what is sent."""


def ask(server: Connection, protocol: str, model: str, version: str, pictures: Pictures) -> Asking:
    """Makes the requests, and has the first one answered.

    Args:
        server: To ask.
        protocol: `taxon`, `open-inference`, or `auto`: the first that it speaks.
        model: Its name; empty for the only one.
        version: Empty for the default one.
        pictures: Gives encoded ones, for models that take pictures; others get random numbers.

    Raises:
        TaxonError: A call has failed.
        CannotAskError: See there.
    """
    sizes: list[tuple[str, str | int]] = [("grpc.max_receive_message_length", MOST_MESSAGE_BYTES)]
    with server.channel([*sizes, ("grpc.max_send_message_length", MOST_MESSAGE_BYTES)]) as channel, errors.typed():
        asking = _ask(channel, server, protocol, model, version, pictures)
        call: Any = channel.unary_unary(asking.path)
        call(asking.requests[0], timeout=TIMEOUT_S, metadata=server.metadata)
    return asking


def _ask(
    channel: grpc.Channel, server: Connection, protocol: str, model: str, version: str, pictures: Pictures
) -> Asking:
    if protocol != "open-inference":
        try:
            return _by_taxon(channel, server, model, version, pictures)
        except grpc.RpcError as error:
            if protocol == "taxon" or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
    return _by_open_inference(channel, server, model, version, pictures)


def _by_taxon(channel: grpc.Channel, server: Connection, model: str, version: str, pictures: Pictures) -> Asking:
    stub: Any = ClassificationServiceStub(channel)
    wanted = pb.GetModelRequest(model_name=model, model_version=version)
    found = stub.GetModel(wanted, timeout=TIMEOUT_S, metadata=server.metadata).model
    named: dict[str, Any] = {"model_name": model, "model_version": version}
    if found.input.WhichOneof("kind") == "features":
        dice, count = np.random.default_rng(0), found.input.features.feature_count
        rows = dice.standard_normal((_request_count(4 * count, VECTORS), count)).astype(np.float32)
        requests = [pb.ClassifyRequest(**named, features=pb.Features(values=row.tolist())) for row in rows]
        what = f"rows of {count} random numbers"
    else:
        encoded = pictures()
        requests = [pb.ClassifyRequest(**named, image=picture) for picture in encoded]
        what = f"{len(encoded)} pictures of {_mean_kb(encoded)} kB"
    serialized = tuple(request.SerializeToString() for request in requests)
    return Asking(CLASSIFY, serialized, f"{found.name}/{found.version} {found.variant}", f"taxon.v1, {what}")


def _by_open_inference(
    channel: grpc.Channel, server: Connection, model: str, version: str, pictures: Pictures
) -> Asking:
    stub: Any = GRPCInferenceServiceStub(channel)
    told = {"timeout": TIMEOUT_S, "metadata": server.metadata}
    model = model or _only_model(stub, told)
    found = stub.ModelMetadata(inference_pb.ModelMetadataRequest(name=model, version=version), **told)
    takes_pictures = len(found.inputs) == 1 and _channels_axis(found.inputs[0]) is not None
    takes_pictures = takes_pictures or [given.datatype for given in found.inputs] == ["BYTES"]
    encoded = pictures() if takes_pictures else ()
    requests, shown = [], ""
    byte_count = sum(_byte_count(given, picture=takes_pictures) for given in found.inputs)
    for seed in range(_request_count(byte_count, len(encoded) or VECTORS)):
        request = inference_pb.ModelInferRequest(model_name=model, model_version=version)
        for given in found.inputs:
            shape, raw = _picture(given, encoded[seed]) if takes_pictures else _numbers(given, seed)
            request.inputs.add(name=given.name, datatype=given.datatype, shape=shape)
            request.raw_input_contents.append(raw)
        shown = ", ".join(f"{given.name} {given.datatype} {[*given.shape]}" for given in request.inputs)
        requests.append(request.SerializeToString())
    versions = version or ",".join(found.versions[-1:])
    return Asking(MODEL_INFER, tuple(requests), f"{found.name}/{versions}", f"Open Inference, {shown}")


def _only_model(stub: Any, told: dict[str, Any]) -> str:
    try:
        index = stub.RepositoryIndex(inference_pb.RepositoryIndexRequest(ready=True), **told)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise CannotAskError("the server does not list its models: name one by --model") from None
        raise
    names: list[str] = sorted({model.name for model in index.models})
    if len(names) != 1:
        raise CannotAskError(f"the server has {len(names)} models: name one of {names} by --model")
    return names[0]


def _channels_axis(given: Any) -> int | None:
    """Which axis of a tensor holds a picture's colours; None if it is none: numbers, not `[batch, …, …, 1 or 3]`."""
    shape = [*given.shape]
    if len(shape) not in (3, 4) or given.datatype not in ("UINT8", "FP32", "FP16"):
        return None
    inner = shape[-3:]
    axis = next((axis for axis in (2, 0) if inner[axis] in (1, 3)), None)
    return None if axis is None else axis - 3


def _picture(given: Any, encoded: bytes) -> tuple[list[int], bytes]:
    """A picture as an input takes it: encoded, or decoded and scaled to its size; floats are from 0 to 1."""
    if given.datatype == "BYTES":
        return [1] * len(given.shape), len(encoded).to_bytes(4, "little") + encoded
    axis = _channels_axis(given)
    shape = _shape(given, picture=True)
    lengths = shape[-3:]
    channels = lengths.pop(axis if axis is not None else -1)
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert("RGB" if channels == 3 else "L").resize((lengths[1], lengths[0]))
    pixels = np.asarray(image).reshape(*lengths, channels)
    pixels = pixels.transpose(2, 0, 1) if axis == -3 else pixels
    values = pixels if given.datatype == "UINT8" else (pixels / 255).astype(DTYPES[given.datatype])
    return shape, np.ascontiguousarray(values).tobytes()


def _shape(given: Any, *, picture: bool) -> list[int]:
    """Of what is sent: a batch of one."""
    if picture:
        return [1] * (len(given.shape) - 3) + [length if length > 0 else FREE_LENGTH for length in given.shape[-3:]]
    return [length if length > 0 else 1 for length in given.shape]


def _byte_count(given: Any, *, picture: bool) -> int:
    """Zero for what is no numbers."""
    if given.datatype not in DTYPES:
        return 0
    return math.prod(_shape(given, picture=picture)) * np.dtype(DTYPES[given.datatype]).itemsize


def _request_count(byte_count: int, most: int) -> int:
    """How many requests of so many bytes there is room for.

    Raises:
        CannotAskError: Not even for one.
    """
    if byte_count > MOST_BYTES:
        raise CannotAskError(f"a request would have {byte_count:,} bytes, this sends {MOST_BYTES:,} at most")
    return min(most, MOST_BYTES // max(1, byte_count))


def _numbers(given: Any, seed: int) -> tuple[list[int], bytes]:
    """Random numbers from 0 to 1, or zeros and ones: valid for most that takes numbers, tokens included."""
    if given.datatype not in DTYPES:
        raise CannotAskError(f"{given.name} takes {given.datatype}: this can send pictures and numbers only")
    shape = _shape(given, picture=False)
    dtype = np.dtype(DTYPES[given.datatype])
    dice = np.random.default_rng(seed)
    values = dice.random(math.prod(shape)) if dtype.kind == "f" else dice.integers(0, 2, math.prod(shape))
    return shape, values.astype(dtype).tobytes()


def _mean_kb(pictures: Sequence[bytes]) -> int:
    return round(sum(map(len, pictures)) / len(pictures) / 1e3)
