"""Better weights and biases for an int8 graph that ONNX Runtime's quantiser has made.

Weights get as many of the eight bits as cannot overflow. Processors with AVX2 but without VNNI add two neighbouring
products of an activation (0 to 255) and a weight in 16 bits and cut the sum off at 32767. It fits if two neighbours of
one sign are at most 128 together; 7 bits for every weight, the usual cure, give away what single large weights do
not need. Depthwise convolutions are computed one product at a time, in 32 bits: they get all eight.

What rounding a weight then adds to the mean of each channel is taken out of its bias (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, with means measured on pictures).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from taxon.training.exporting.examples import Array
from taxon.training.exporting.providers import CPU

LARGEST = 127
LARGEST_BIAS = 2**30
MEASURED_BATCH = 4
Floats = NDArray[np.float64]


def input_means(prepared: Path, pictures: Array) -> dict[str, Floats]:
    """The mean of every input of a convolution or product by channel: `[channels]`, over pictures and places.

    Args:
        prepared: The float graph.
        pictures: uint8 `[N, H, W, C]` or float32 `[N, F]`.
    """
    model = onnx.load(prepared)
    axes = {node.input[0]: 1 for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    known = {entry.name for entry in model.graph.output} | {entry.name for entry in model.graph.input}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in axes if name not in known)
    names = [name for name in axes if name not in {entry.name for entry in model.graph.input}]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    (taken,) = session.get_inputs()
    means: dict[str, Floats] = {}
    for start in range(0, len(pictures), MEASURED_BATCH):
        batch = pictures[start : start + MEASURED_BATCH]
        for name, values in zip(names, session.run(names, {taken.name: batch}), strict=True):
            others = tuple(axis for axis in range(values.ndim) if axis != axes[name])
            part = values.mean(axis=others, dtype=np.float64) * (len(batch) / len(pictures))
            means[name] = means[name] + part if name in means else part
    return means


def requantise(prepared: Path, quantised: Path, means: Mapping[str, Floats]) -> None:
    """Rewrites the weights and biases of a graph.

    Args:
        prepared: The float graph that it was made from.
        quantised: The QDQ graph, with signed weights by channel; is replaced.
        means: From `input_means`. A node whose input is not among them keeps its bias.
    """
    full, model = onnx.load(prepared), onnx.load(quantised)
    weights = {entry.name: entry for entry in full.graph.initializer}
    nodes = {node.name: node for node in full.graph.node if len(node.input) > 1 and node.input[1] in weights}
    constants = {entry.name: entry for entry in model.graph.initializer}
    restored = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        original = nodes.get(node.name)
        weight = restored.get(node.input[1]) if original is not None else None
        if original is None or weight is None or constants[weight.input[0]].data_type != TensorProto.INT8:
            continue
        given, bias = restored.get(node.input[0]), restored.get(node.input[2]) if len(node.input) > 2 else None
        if given is None or (len(node.input) > 2 and bias is None):
            continue
        if not constants[weight.input[1]].dims:
            continue  # one scale for all: the quantiser's seven bits stay
        exact = numpy_helper.to_array(weights[original.input[1]]).astype(np.float64)
        axis = next((entry.i for entry in weight.attribute if entry.name == "axis"), 1)
        input_scale = float(numpy_helper.to_array(constants[given.input[1]]))
        exact_bias = None
        if bias is not None:
            exact_bias = numpy_helper.to_array(weights[original.input[2]]).astype(np.float64)
        scale = scales(exact, axis, is_depthwise(node, exact), exact_bias, input_scale)
        shape = [-1 if index == axis else 1 for index in range(exact.ndim)]
        rounded = np.rint(exact / scale.reshape(shape))
        _put(constants[weight.input[0]], rounded.astype(np.int8))
        _put(constants[weight.input[1]], scale.astype(np.float32))
        if bias is None or exact_bias is None:
            continue
        if original.input[0] in means:
            exact_bias -= shift(node, rounded * scale.reshape(shape) - exact, means[original.input[0]])
        bias_scale = (scale * input_scale).astype(np.float32)
        _put(constants[bias.input[0]], np.rint(exact_bias / bias_scale).astype(np.int32))
        _put(constants[bias.input[1]], bias_scale)
    onnx.save(model, quantised)


def scales(weight: Floats, axis: int, depthwise: bool, bias: Floats | None = None, input_scale: float = 1.0) -> Floats:
    """What one step of each channel's weights is worth: as little as lets no sum of two neighbours overflow.

    Args:
        weight: Of any shape.
        axis: Of the channels that have a scale each.
        depthwise: Whether each sum has one product at a time.
        bias: `[channels]`, which must fit into 32 bits in steps of both scales.
        input_scale: Of the activations.

    Returns:
        `[channels]`.
    """
    rows = np.moveaxis(weight, axis, 0)
    layouts = [rows.reshape(len(rows), -1)]
    if weight.ndim > 2:  # the same products with the channels innermost, as the kernels go through them
        layouts.append(np.moveaxis(rows, 1, -1).reshape(len(rows), -1))
    largest = np.abs(layouts[0]).max(axis=1)
    if not depthwise:
        for row in layouts:
            first, second = row[:, :-1], row[:, 1:]
            together = np.where(first * second > 0, np.abs(first) + np.abs(second), 0.0)
            largest = np.maximum(largest, together.max(axis=1, initial=0.0))
    scale = largest / LARGEST
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * LARGEST_BIAS))
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1.0)


def shift(node: NodeProto, error: Floats, mean: Floats) -> Floats:
    """What errors of the weights add to each output's mean, `[outputs]`, if each input has its mean everywhere.

    Args:
        node: A convolution, or a product with a bias.
        error: Of the weights, in the node's own layout.
        mean: `[inputs]`.
    """
    if node.op_type == "Conv":
        groups = _attribute(node, "group", 1)
        by_input = error.reshape(*error.shape[:2], -1).sum(axis=2).reshape(groups, -1, error.shape[1])
        by_group: Floats = np.einsum("goi,gi->go", by_input, mean.reshape(groups, -1))
        return by_group.reshape(-1)
    return error @ mean if _attribute(node, "transB", 0) else mean @ error


def is_depthwise(node: NodeProto, weight: Floats) -> bool:
    """Whether every channel is convolved for itself."""
    return node.op_type == "Conv" and weight.shape[1] == 1 and _attribute(node, "group", 1) == weight.shape[0]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((entry.i for entry in node.attribute if entry.name == name), default)


def _put(constant: TensorProto, values: NDArray[np.generic]) -> None:
    constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), constant.name))
