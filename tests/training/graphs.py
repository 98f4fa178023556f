"""Small ONNX classifiers as others make them: of any opset, output and type."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
TYPES = {"float32": (TensorProto.FLOAT, np.float32), "float16": (TensorProto.FLOAT16, np.float16)}


def classifier(
    path: Path,
    *,
    opset: int = 17,
    ir_version: int = 8,
    end: str = "",
    classes: int = 2,
    tail: str = "",
    output: str = "float32",
    weights_are_inputs: bool = False,
    batch: str | int = "N",
) -> Path:
    """float32 `[N, 3, 8, 8]` → the mean of each colour → `classes` values.

    Args:
        path: The file to write.
        opset: Of the operators.
        ir_version: Of the file.
        end: `Softmax`, `Percent` (a softmax times 100), `Sigmoid`, `ArgMax` or nothing behind the last layer.
        classes: How many.
        tail: `maps` for an output `[N, K, 1, 1]`, `turned` for `[K, N]`, `one` for a single number.
        output: Of the type `float32` or `float16`.
        weights_are_inputs: As files had it before IR 4.
        batch: Length of the first axis.
    """
    random = np.random.default_rng(0)
    if tail == "maps":
        weights = [numpy_helper.from_array(random.normal(size=(classes, 3, 1, 1)).astype(np.float32) * 3, "W")]
        nodes = [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Conv", ["pooled", "W"], ["raw"]),
        ]
    else:
        weights = [
            numpy_helper.from_array(random.normal(size=(3, classes)).astype(np.float32) * 3, "W"),
            numpy_helper.from_array(np.linspace(-1, 1, classes).astype(np.float32), "b"),
        ]
        nodes = [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "W", "b"], ["raw"]),
        ]
    last, kind, shape = "raw", TYPES[output][0], ["N", classes, *([1, 1] if tail == "maps" else [])]
    if end:
        operator = "Softmax" if end == "Percent" else end
        nodes.append(helper.make_node(operator, [last], ["ended"], **({} if end == "Sigmoid" else {"axis": 1})))
        last = "ended"
    if end == "Percent":
        weights.append(numpy_helper.from_array(np.float32(100.0), "hundred"))
        nodes.append(helper.make_node("Mul", [last, "hundred"], ["percent"]))
        last = "percent"
    if tail == "turned":
        nodes.append(helper.make_node("Transpose", [last], ["turned"]))
        last, shape = "turned", ["rows", "columns"]
    if tail == "one":
        nodes.append(helper.make_node("ReduceMax", [last], ["one"], keepdims=0))
        last, shape = "one", []
    if end == "ArgMax":
        kind, shape = TensorProto.INT64, ["N", 1]
    elif output != "float32":
        nodes.append(helper.make_node("Cast", [last], ["cast"], to=kind))
        last = "cast"
    nodes.append(helper.make_node("Identity", [last], ["out"]))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])]
    if weights_are_inputs:
        inputs += [helper.make_tensor_value_info(one.name, TensorProto.FLOAT, list(one.dims)) for one in weights]
    graph = helper.make_graph(nodes, "other", inputs, [helper.make_tensor_value_info("out", kind, shape)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, path)
    return path
