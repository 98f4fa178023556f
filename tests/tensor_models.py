"""Small ONNX files without manifests, as folders of a repository."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_graph(folder: Path, nodes: list, inputs: list, outputs: list, constants: list = (), **props: str) -> Path:
    """Writes `<folder>/model.onnx`; returns it."""
    graph = helper.make_graph(nodes, "toy", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    helper.set_model_props(model, props)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def tensor(name: str, dtype: int, shape: list):
    return helper.make_tensor_value_info(name, dtype, shape)


def simple(root: Path, name: str = "simple", dtype: int = TensorProto.INT32, batch: object = "batch") -> None:
    """INPUT0 + INPUT1 and INPUT0 - INPUT1, `[batch, 16]`: the model of Triton's examples."""
    write_graph(
        root / name / "1",
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [tensor("INPUT0", dtype, [batch, 16]), tensor("INPUT1", dtype, [batch, 16])],
        [tensor("OUTPUT0", dtype, [batch, 16]), tensor("OUTPUT1", dtype, [batch, 16])],
    )


def free_length(root: Path, name: str = "free") -> None:
    """float32 `[batch, length]` → `total` `[batch, 1]` and `doubled` `[batch, length]`."""
    write_graph(
        root / name / "1",
        [
            helper.make_node("ReduceSum", ["values", "axis"], ["total"], keepdims=1),
            helper.make_node("Add", ["values", "values"], ["doubled"]),
        ],
        [tensor("values", TensorProto.FLOAT, ["batch", "length"])],
        [
            tensor("total", TensorProto.FLOAT, ["batch", 1]),
            tensor("doubled", TensorProto.FLOAT, ["batch", "length"]),
        ],
        [numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )


def mixing(root: Path, name: str = "mixing") -> None:
    """`[batch, 2]` → each row less the batch's mean: a first axis that is free and yet no batch."""
    write_graph(
        root / name / "1",
        [
            helper.make_node("ReduceMean", ["values", "axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["values", "mean"], ["centred"]),
        ],
        [tensor("values", TensorProto.FLOAT, ["batch", 2])],
        [tensor("centred", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array([0], np.int64), "axis")],
    )


def strings(root: Path, name: str = "strings") -> None:
    """A graph whose output is text."""
    write_graph(
        root / name / "1",
        [helper.make_node("Cast", ["values"], ["text"], to=TensorProto.STRING)],
        [tensor("values", TensorProto.FLOAT, ["batch", 2])],
        [tensor("text", TensorProto.STRING, ["batch", 2])],
    )


def beside(folder: Path, value: float) -> Path:
    """float32 `[batch, 4]` → `[batch, 2]`: the sum times `value`, whose weights are in a file `weights.bin` beside the
    graph. Returns the graph.
    """
    weights = numpy_helper.from_array(np.full((4, 2), value, np.float32), "weights")
    path = write_graph(
        folder,
        [helper.make_node("MatMul", ["values", "weights"], ["sums"])],
        [tensor("values", TensorProto.FLOAT, ["batch", 4])],
        [tensor("sums", TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
