"""Where a graph parts from torch: the values of all nodes that both name, side by side.

For the message after a failed gate. Knows only graphs of the dynamo exporter, whose values keep torch's names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import fx, nn

from taxon.training.exporting.examples import Array
from taxon.training.exporting.providers import CPU

PARTED = 1e-3
"""Relative to the largest value of a node; rounding stays two orders below."""


@dataclass(frozen=True, slots=True)
class NodeDifference:
    """One value, computed by both."""

    name: str
    operator: str
    """Of torch."""
    max_difference: float
    relative_difference: float
    """By the largest absolute value that torch gives."""


def differences(served: nn.Module, path: Path, pictures: Array) -> list[NodeDifference]:
    """Runs both on uint8 `[N, H, W, C]` or float32 `[N, F]`, N at least 2, and compares every float value that
    they name alike.

    Returns:
        In the order of computation.
    """
    expected = _torch_values(served, pictures)
    actual = _graph_values(path, pictures, set(expected))
    found = []
    for name, (operator, value) in expected.items():
        other = actual.get(name)
        if other is None or other.shape != value.shape:
            continue
        difference = float(np.abs(other.astype(np.float64) - value).max(initial=0.0))
        scale = float(np.abs(value).max(initial=0.0)) or 1.0
        found.append(NodeDifference(name, operator, difference, difference / scale))
    return found


def first_parting(found: Sequence[NodeDifference]) -> NodeDifference | None:
    """The first value that differs by more than rounding; None if none does."""
    return next((node for node in found if not node.relative_difference <= PARTED), None)


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, tuple[str, NDArray[np.float32]]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point():
            self.values[n.name] = (str(n.target), value.detach().to(torch.float32).numpy())
        return value


def _torch_values(served: nn.Module, pictures: Array) -> dict[str, tuple[str, NDArray[np.float32]]]:
    example = torch.from_numpy(pictures)
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(served, (example,), dynamic_shapes=({0: batch},), strict=False)
    recorder = _Recorder(program.run_decompositions({}).module())
    with torch.inference_mode():
        recorder.run(example)
    return recorder.values


def _graph_values(path: Path, pictures: Array, names: set[str]) -> dict[str, NDArray[np.float32]]:
    model = onnx.load(path)
    outputs = {output.name for output in model.graph.output}
    wanted = [name for node in model.graph.node for name in node.output if name in names and name not in outputs]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    values = session.run(None, {model.graph.input[0].name: pictures})
    return dict(zip(wanted, values, strict=True))
