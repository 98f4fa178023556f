"""The graph that a bundle holds, and the ways to get it out of torch.

Knows the graph contract: uint8 `image` or float32 `features` in, float32 `scores` out and behind them `familiarity` if
the network judges it and `places` if it is mapped, everything after decoding inside. Does not know whether a graph
answers as the network did: that is `parity`'s question.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from taxon.bundle.manifest import FAMILIARITY_OUTPUT, GRAPH_INPUTS, GRAPH_OUTPUT, PLACES_OUTPUT
from taxon.mistaken import first_line
from taxon.training.config import Task
from taxon.training.errors import TrainingError
from taxon.training.exporting.judge import Judged
from taxon.training.exporting.mapped import Mapped

TRACE_BATCH = 2  # exporters take a batch of 1 for a constant
MAX_GRAPH_BYTES = 2**31 - 2**20  # protobuf's limit for one file, with room for the metadata


class GraphError(TrainingError):
    """A network that cannot become a graph, or a graph that breaks the contract."""


class Scored(nn.Module):
    """A network with its temperature and scores behind it. What stands before it is the subclasses'.

    Args:
        network: Normalised float32 → float32 `[N, K]` logits; a `Judged` one gives the familiarity too, and a
            `Mapped` one places.
        task: `single_label` ends in a softmax, `multi_label` in a sigmoid.
        temperature: The logits are divided by it.
    """

    def __init__(self, network: nn.Module, task: Task, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.temperature = temperature

    def normalised(self, given: Tensor) -> Tensor:
        """What the graph is given → what the network takes."""
        raise NotImplementedError

    @property
    def output_names(self) -> list[str]:
        """Of the graph."""
        mapped = isinstance(self.network, Mapped)
        judged = isinstance(self.network.network if isinstance(self.network, Mapped) else self.network, Judged)
        return [GRAPH_OUTPUT, *([FAMILIARITY_OUTPUT] if judged else []), *([PLACES_OUTPUT] if mapped else [])]

    def forward(self, given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the graph is given → float32 `[N, K]` scores in 0…1, and what else the network gives."""
        answer = self.network(self.normalised(given))
        logits, *others = answer if isinstance(answer, tuple) else (answer,)
        logits = logits / self.temperature
        scores: Tensor = logits.softmax(dim=-1) if self.task == "single_label" else logits.sigmoid()
        return (scores, *others) if others else scores


class Served(Scored):
    """A classifier of pictures: uint8 `[N, H, W, C]` in.

    Args:
        network: float32 `[N, C, H, W]`, normalised → float32 `[N, K]` logits.
        mean: Per channel, of pictures scaled to 0…1.
        std: Per channel, as `mean`.
        task: See `Scored`.
        temperature: See `Scored`.
    """

    scale: Tensor
    bias: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], task: Task, temperature: float = 1.0
    ) -> None:
        super().__init__(network, task, temperature)
        deviation = torch.tensor(std, dtype=torch.float64)
        scale = 1.0 / (255.0 * deviation)
        bias = -torch.tensor(mean, dtype=torch.float64) / deviation
        self.register_buffer("scale", scale.to(torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("bias", bias.to(torch.float32).reshape(1, -1, 1, 1))
        self.eval()

    def normalised(self, given: Tensor) -> Tensor:
        """uint8 `[N, H, W, C]` → float32 `[N, C, H, W]`."""
        # One constant per channel and column: ONNX Runtime moves int8 convolutions to channels last, where products
        # with three numbers at a time take ten times as long.
        scale, bias = (values.expand(-1, -1, 1, given.shape[2]) for values in (self.scale, self.bias))
        return given.permute(0, 3, 1, 2).to(torch.float32) * scale + bias


class ServedNumbers(Scored):
    """A classifier of numbers: float32 `[N, F]` in, as they stand in the table.

    Args:
        network: float32 `[N, F]`, standardised → float32 `[N, K]` logits.
        mean: Per feature.
        std: Per feature.
        task: See `Scored`.
        temperature: See `Scored`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], task: Task, temperature: float = 1.0
    ) -> None:
        super().__init__(network, task, temperature)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", (1.0 / torch.tensor(std, dtype=torch.float64)).to(torch.float32))
        self.eval()

    def normalised(self, given: Tensor) -> Tensor:
        """float32 `[N, F]` → the same, standardised. The mean first: it can be far larger than the deviation."""
        return (given - self.mean) * self.scale


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to export."""

    name: str
    exporter: Literal["dynamo", "torchscript"]
    opset: int
    optimize: bool
    """Lets the dynamo exporter fold and fuse; ONNX Runtime does so again at load."""


LADDER = (
    Strategy("dynamo", "dynamo", 20, optimize=True),
    Strategy("dynamo-unoptimised", "dynamo", 20, optimize=False),
    Strategy("dynamo-opset18", "dynamo", 18, optimize=False),
    Strategy("torchscript", "torchscript", 17, optimize=False),
)
"""From the best to the last resort: most known miscompilations came from the optimiser, some from the opset
conversion, and the older exporter shares no code with the newer one."""


def write_graph(served: nn.Module, shape: tuple[int, ...], path: Path, strategy: Strategy = LADDER[0]) -> None:
    """Writes `served` as one self-contained ONNX file and checks that it keeps the contract.

    Args:
        served: uint8 `[N, H, W, C]` or float32 `[N, F]` → float32 `[N, K]`, and more as a `Scored` one names it; in
            evaluation mode.
        shape: (height, width, channels) or (features,), fixed in the graph; the batch is free.
        path: The file to write.
        strategy: How to export.

    Raises:
        GraphError: A module is in training mode, the exporter fails, or the result is not a valid graph.
        OSError: The disk is full or not writable.
    """
    if training := [name or "the network" for name, module in served.named_modules() if module.training]:
        raise GraphError(f"{training[0]} is in training mode: dropout and batch statistics would be exported")
    kind = "features" if len(shape) == 1 else "image"
    outputs = served.output_names if isinstance(served, Scored) else [GRAPH_OUTPUT]
    example = torch.zeros((TRACE_BATCH, *shape), dtype=torch.float32 if kind == "features" else torch.uint8)
    with _quiet(), _plain_attention(), torch.no_grad():
        try:
            if strategy.exporter == "dynamo":
                program = torch.onnx.export(
                    served,
                    (example,),
                    None,
                    dynamo=True,
                    input_names=[GRAPH_INPUTS[kind]],
                    output_names=outputs,
                    dynamic_shapes=({0: "batch"},),
                    opset_version=strategy.opset,
                    optimize=strategy.optimize,
                    verbose=False,
                )
                if program is None:
                    raise GraphError("the exporter gave nothing back")
                program.save(path)
            else:
                torch.onnx.export(
                    served,
                    (example,),
                    str(path),
                    dynamo=False,
                    input_names=[GRAPH_INPUTS[kind]],
                    output_names=outputs,
                    dynamic_axes={name: {0: "batch"} for name in (GRAPH_INPUTS[kind], *outputs)},
                    opset_version=strategy.opset,
                )
        except OSError:
            raise  # a full disk is no fault of the graph
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise GraphError(f"the exporter failed ({type(error).__name__}): {reason[0]}") from error
    tidy(path)


def tidy(path: Path, contract: Mapping[str, str] | None = None) -> None:
    """Rewrites a graph without the exporter's notes (they hold paths of the exporting machine), with
    `contract` in its metadata, and checks it with full shape inference.

    Raises:
        GraphError: Not one self-contained, valid file.
    """
    if external := sorted(file.name for file in path.parent.glob(f"{path.name}.data*")):
        raise GraphError(f"the weights do not fit into one file, {external} lie beside it")
    model = onnx.load(path)
    for node in _all_nodes(model.graph):
        node.doc_string = ""
        del node.metadata_props[:]
    values: list[onnx.ValueInfoProto | onnx.TensorProto] = [*model.graph.input, *model.graph.output]
    for value in (*values, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    if contract is not None:
        onnx.helper.set_model_props(model, dict(contract))
    if model.ByteSize() > MAX_GRAPH_BYTES:
        raise GraphError(f"the graph has {model.ByteSize()} bytes, one file may have {MAX_GRAPH_BYTES}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        # The exporter's own shape notes can be wrong where the graph is right; without them they are inferred.
        del model.graph.value_info[:]
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise GraphError(f"onnx.checker refuses the graph: {first_line(error)}") from error
    onnx.save(model, path)


def metadata(path: Path) -> dict[str, str]:
    """The strings that a graph carries in its `metadata_props`."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def judging(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes on which no score depends: of familiarity and places. They stay in full precision."""
    needed, names = {GRAPH_OUTPUT}, []
    for node in reversed(model.graph.node):  # sorted topologically, as ONNX demands
        if needed.intersection(node.output):
            needed.update(node.input)
        else:
            names.append(node.name)
    return names


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Multi-head attention's fast path is one fused operator that ONNX does not have."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own deprecations, which says nothing about the result."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
