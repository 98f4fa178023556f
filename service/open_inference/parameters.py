"""The parameters of a `ModelInfer` request → numbers, checked: urgency, time limit, classification. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taxon.inference.open_inference_service_pb2 import InferParameter, ModelInferRequest
from taxon.service.errors import FieldInvalidError, UnsupportedError
from taxon.service.models.routing import MAX_KEY_BYTES
from taxon.service.open_inference.tensors import shown
from taxon.service.runtime.tensor_types import TensorSpec

ENABLE_FINAL_RESPONSE = "triton_enable_empty_final_response"
ROUTING_KEY = "routing_key"
RESERVED_PREFIX = "triton_"
MAX_TIMEOUT_US = 2**53


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a request wants to be treated."""

    priority: int
    """1 is the most urgent, 0 the default."""
    timeout_s: float | None
    """How long it may take; None: as long as any."""
    routing_key: str = ""
    """See `Routing.route`."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """One output that a request asks for."""

    path: str
    """For errors."""
    index: int
    """Of the model's outputs."""
    class_count: int
    """0: the tensor itself; else how many classes in its place."""


def read_parameters(parameters: Mapping[str, InferParameter]) -> Wishes:
    """The parameters of a request. Names that nobody has given a meaning are ignored, as the protocol demands.

    Raises:
        FieldInvalidError: A parameter has the wrong type or is out of range, or is of a reserved name.
    """
    for name in parameters:
        if name.startswith(RESERVED_PREFIX) and name != ENABLE_FINAL_RESPONSE:
            raise FieldInvalidError("parameters", f"{shown(name)} is reserved")
    timeout_us = _whole(parameters, "timeout")
    timeout_s = min(timeout_us, MAX_TIMEOUT_US) / 1e6 if timeout_us else None
    return Wishes(_whole(parameters, "priority"), timeout_s, _key(parameters))


def read_outputs(request: ModelInferRequest, specs: Sequence[TensorSpec]) -> list[WantedOutput]:
    """The outputs that a request asks for, in its order; all of the model's if it names none.

    Raises:
        FieldInvalidError: An output is unknown or named twice, or `classification` is not a positive number.
        UnsupportedError: An output is to go to shared memory.
    """
    if not request.outputs:
        return [WantedOutput(f"outputs[{index}]", index, 0) for index in range(len(specs))]
    indexes = {spec.name: index for index, spec in enumerate(specs)}
    wanted: list[WantedOutput] = []
    for position, output in enumerate(request.outputs):
        path = f"outputs[{position}]"
        if output.name not in indexes:
            raise FieldInvalidError(
                f"{path}.name", f"{shown(output.name)} is not an output; there is {sorted(indexes)}"
            )
        index = indexes[output.name]
        if any(before.index == index for before in wanted):
            raise FieldInvalidError(f"{path}.name", f"{shown(output.name)} was asked for twice")
        if any(key.startswith("shared_memory") for key in output.parameters):
            raise UnsupportedError(f"{path}: shared memory is not supported")
        count = 0
        if "classification" in output.parameters:
            parameter = output.parameters["classification"]
            count = parameter.int64_param
            if parameter.WhichOneof("parameter_choice") != "int64_param" or count < 1:
                raise FieldInvalidError(f"{path}.parameters.classification", "must be a positive int64_param")
        wanted.append(WantedOutput(path, index, count))
    return wanted


def _key(parameters: Mapping[str, InferParameter]) -> str:
    if ROUTING_KEY not in parameters:  # a protobuf map would make an entry
        return ""
    parameter = parameters[ROUTING_KEY]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise FieldInvalidError(f"parameters.{ROUTING_KEY}", "must be a string_param")
    if len(parameter.string_param.encode()) > MAX_KEY_BYTES:
        raise FieldInvalidError(f"parameters.{ROUTING_KEY}", f"must have at most {MAX_KEY_BYTES} bytes")
    return parameter.string_param


def _whole(parameters: Mapping[str, InferParameter], name: str) -> int:
    """A number of either kind, 0 if it is not there."""
    if name not in parameters:  # a protobuf map would make an entry
        return 0
    choice = parameters[name].WhichOneof("parameter_choice")
    if choice not in ("int64_param", "uint64_param"):
        raise FieldInvalidError(f"parameters.{name}", "must be an int64_param or a uint64_param")
    value: int = getattr(parameters[name], choice)
    if value < 0:
        raise FieldInvalidError(f"parameters.{name}", "must not be negative")
    return value
