"""The bundle's contract around an ONNX graph that exists already: uint8 pictures in, scores out.

What is inside stays as it was given; see `original`.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from taxon.bundle.manifest import GRAPH_INPUTS, GRAPH_OUTPUT
from taxon.training.exporting import graph
from taxon.training.exporting.graph import GraphError, Served
from taxon.training.exporting.original import SMALLEST_SCORE, Original

PREFIX = "imported/"
OLDEST_IR = 4
"""In earlier files weights are inputs too, which a bundle's graph must not have."""


def write_wrapped(original: Original, served: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Writes the graph with the contract's input and output around it.

    Raises:
        GraphError: The result is not a valid graph.
    """
    if not isinstance(served, Served):
        raise GraphError("only a served network can be wrapped")
    model = compose.add_prefix(original.model, PREFIX)
    inner = model.graph
    weights = {entry.name for entry in inner.initializer}
    (given,) = (entry.name for entry in inner.input if entry.name not in weights)
    (answer,) = (entry.name for entry in inner.output)
    before = _entrance(original, given)
    constants = {
        "taxon/scale": _shaped(served.scale, original.layout, shape[1]),
        "taxon/bias": _shaped(served.bias, original.layout, shape[1]),
        "taxon/temperature": np.array(served.temperature, dtype=np.float32),
        "taxon/rows": np.array([0, -1], dtype=np.int64),
        "taxon/smallest": np.array(SMALLEST_SCORE, dtype=np.float32),
    }
    after = []
    if not original.gives_float32:
        after.append(helper.make_node("Cast", [answer], ["taxon/answer"], to=TensorProto.FLOAT))
        answer = "taxon/answer"
    after.append(helper.make_node("Reshape", [answer, "taxon/rows"], ["taxon/flat"]))
    logits = "taxon/flat"
    if original.gives == "scores":
        after += [
            _at_least(original.opset, logits, "taxon/smallest", "taxon/positive"),
            helper.make_node("Log", ["taxon/positive"], ["taxon/log"]),
        ]
        logits = "taxon/log"
    after.append(helper.make_node("Div", [logits, "taxon/temperature"], ["taxon/tempered"]))
    after.append(helper.make_node("Softmax", ["taxon/tempered"], [GRAPH_OUTPUT], axis=1))  # -1 is unknown to opset 10
    nodes = [*before, *inner.node, *after]
    del inner.node[:], inner.input[:], inner.output[:]
    inner.node.extend(nodes)
    inner.input.append(helper.make_tensor_value_info(GRAPH_INPUTS["image"], TensorProto.UINT8, ["batch", *shape]))
    inner.output.append(
        helper.make_tensor_value_info(GRAPH_OUTPUT, TensorProto.FLOAT, ["batch", original.class_count or "classes"])
    )
    used = {name for node in nodes for name in node.input}
    inner.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items() if name in used)
    del model.metadata_props[:]
    model.ir_version = max(model.ir_version, OLDEST_IR)
    onnx.save(model, path)
    graph.tidy(path)


def _at_least(opset: int, values: str, lowest: str, result: str) -> onnx.NodeProto:
    if opset < 8:  # its Max takes operands of one shape only
        return helper.make_node("Clip", [values], [result], min=SMALLEST_SCORE)
    return helper.make_node("Max", [values, lowest], [result])


def _entrance(original: Original, target: str) -> list[onnx.NodeProto]:
    """uint8 `[batch, H, W, C]` to what the original graph takes."""
    name = GRAPH_INPUTS["image"]
    nodes = []
    if original.layout == "nchw":
        nodes.append(helper.make_node("Transpose", [name], ["taxon/moved"], perm=[0, 3, 1, 2]))
        name = "taxon/moved"
    if original.takes_bytes:
        return [*nodes, helper.make_node("Identity", [name], [target])]
    return [
        *nodes,
        helper.make_node("Cast", [name], ["taxon/float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["taxon/float", "taxon/scale"], ["taxon/scaled"]),
        helper.make_node("Add", ["taxon/scaled", "taxon/bias"], [target]),
    ]


def _shaped(values: Tensor, layout: str, width: int) -> np.ndarray:
    """Repeated along the width, as in `Served`."""
    repeated = values.expand(-1, -1, 1, width)
    return (repeated if layout == "nchw" else repeated.movedim(1, -1)).numpy()
