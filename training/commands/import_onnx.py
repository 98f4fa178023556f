"""The command `taxon import-onnx`: an existing ONNX classifier becomes a bundle.

The graph gets the contract's input and output around it: uint8 pictures in, scores out. The proof is the same gate,
with the original graph as the reference: it is fed by torchvision's normalisation, the new one by its own.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

from taxon.bundle.manifest import GRAPH_INPUTS, GRAPH_OUTPUT, BundleError, PixelSpec
from taxon.bundle.store import sha256
from taxon.training.commands import export
from taxon.training.dataset import data
from taxon.training.errors import TrainingError
from taxon.training.exporting import bundling, foreign, graph
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.exporting.graph import GraphError, Served, Strategy

OUTPUTS = ("logits", "scores")
PREFIX = "imported/"
SMALLEST_SCORE = 1e-12


@dataclass(frozen=True, slots=True)
class Original:
    """What is known of the graph to import."""

    model: onnx.ModelProto
    """With all weights inside."""
    layout: Literal["nchw", "nhwc"]
    takes_bytes: bool
    """uint8 instead of float32."""
    gives: str
    """`logits` or `scores`."""
    class_count: int | None
    """None if the graph does not say."""


def main(argv: list[str]) -> int:
    """`taxon import-onnx`. Returns 0 if a bundle was published, 2 if not."""
    parser = argparse.ArgumentParser(description="Make a proven bundle of an existing ONNX classifier of pictures.")
    parser.add_argument("onnx", type=Path, help="graph with one input [batch, C, H, W] or [batch, H, W, C]")
    parser.add_argument("--labels", type=Path, required=True, help="text file, one label a line, in class order")
    parser.add_argument("--pixels", type=Path, required=True, help="JSON of a manifest's `pixels`: resize, crop …")
    parser.add_argument("--data", type=Path, required=True, help="labelled folder of validation pictures")
    parser.add_argument("--gives", choices=OUTPUTS, required=True, help="what the graph's output is")
    parser.add_argument("--mean", type=float, nargs="+", default=[0.0], help="per channel of x / 255 (default 0)")
    parser.add_argument("--std", type=float, nargs="+", default=[1.0], help="per channel of x / 255 (default 1)")
    parser.add_argument("--expected-accuracy", type=float, help="refuse if the pictures give another")
    parser.add_argument("--models", type=Path, required=True, help="model repository")
    parser.add_argument("--name", required=True, help="model name")
    export.add_settings(parser)
    options = parser.parse_args(argv)
    try:
        name, chosen = export.model_name(options.name, options.onnx), export.settings(options)
        pixels, labels = foreign.read_pixels(options.pixels), foreign.read_labels(options.labels)
        channels = pixels.shape[2]
        mean, std = (
            foreign.check_channels(values * channels if len(values) == 1 else values, channels, what)
            for values, what in ((options.mean, "the mean"), (options.std, "the deviation"))
        )
        original = read(options.onnx, pixels, options.gives)
        if original.takes_bytes and (set(mean), set(std)) != ({0.0}, {1.0}):
            raise ExportError("the graph takes bytes: it has its own mean and deviation")
        if original.class_count not in (None, len(labels)):
            raise ExportError(f"the graph gives {original.class_count} scores for {len(labels)} labels")
        held_out = data.with_digests(data.scan(options.data))
        candidate = Candidate(
            network=OriginalNetwork(original),
            labels=labels,
            pixels=pixels,
            mean=mean,
            std=std,
            files=tuple(sample.path for sample in held_out.samples),
            answers=foreign.answers(held_out),
            run_id=f"sha256-{sha256(options.onnx)[:16]}",
            data_digest=data.digest(held_out.samples, held_out.labels),
            expected_accuracy=options.expected_accuracy,
            recipe={"imported": options.onnx.name},
        )
        opset = next(entry.version for entry in original.model.opset_import if entry.domain in ("", "ai.onnx"))
        published = bundling.publish(
            candidate,
            options.models,
            name,
            chosen,
            ladder=(Strategy("imported", "dynamo", opset, optimize=False),),
            write_graph=lambda served, shape, path, _: write_wrapped(original, served, shape, path),
        )
    except (TrainingError, BundleError, OSError) as error:
        sys.stderr.write(f"taxon import-onnx: {error}\n")
        return 2
    export.print_summary(published)
    return 0


class OriginalNetwork(nn.Module):
    """The original graph as a network: normalised float32 `[N, C, H, W]` → logits `[N, K]`."""

    def __init__(self, original: Original) -> None:
        super().__init__()
        self.original = original
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                original.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has its own exceptions, derived from Exception
            raise ExportError(f"ONNX Runtime cannot load the graph: {str(error).strip()}") from error
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> "OriginalNetwork":
        """Itself: it has no weights that torch could change."""
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """Asks ONNX Runtime; scores become logarithms, whose softmax are the scores again."""
        values = pictures.numpy() if self.original.layout == "nchw" else pictures.movedim(1, -1).numpy()
        if self.original.takes_bytes:
            values = np.rint(values * 255).astype(np.uint8)
        try:
            (answer,) = self.session.run(None, {self.session.get_inputs()[0].name: np.ascontiguousarray(values)})
        except Exception as error:  # as above
            raise ExportError(f"the graph fails on a batch of {len(values)}: {str(error).strip()}") from error
        logits = torch.from_numpy(answer.reshape(len(answer), -1).astype(np.float32))
        return logits if self.original.gives == "logits" else logits.clamp(min=SMALLEST_SCORE).log()


def read(path: Path, pixels: PixelSpec, gives: str) -> Original:
    """Reads a graph and checks that it can be wrapped.

    Args:
        path: The file; weights beside it are taken in, if they lie in its folder.
        pixels: Says the picture size; a free height and width are fixed to it.
        gives: `logits` or `scores`.

    Raises:
        ExportError: Not ONNX, several inputs or outputs, another shape or type, or a fixed batch.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ExportError(f"{path} is not a whole ONNX graph: {str(error).splitlines()[0]}") from error
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    for entries, role in ((inputs, "inputs"), (model.graph.output, "outputs")):
        if len(entries) != 1:
            raise ExportError(f"the graph has {len(entries)} {role} ({', '.join(e.name for e in entries)}), not one")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ExportError("the graph's input is neither float32 nor uint8")
    dims = tensor.shape.dim
    height, width, channels = pixels.shape
    if len(dims) != 4:
        raise ExportError(f"the graph's input has {len(dims)} axes, a batch of pictures has 4")
    if dims[0].HasField("dim_value"):
        raise ExportError(f"the graph's batch is fixed at {dims[0].dim_value}: export it again with a free batch axis")
    shapes = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    layout = next((key for key, shape in shapes.items() if _fits(dims, shape)), None)
    if layout is None:
        given = [dim.dim_value or dim.dim_param or "?" for dim in dims]
        raise ExportError(f"the graph takes {given}, the pixels give height, width, channels {pixels.shape}")
    for dim, value in zip(list(dims)[1:], shapes[layout], strict=True):
        dim.dim_value = value
    last = model.graph.output[0].type.tensor_type.shape.dim
    classes = last[-1].dim_value if last and last[-1].HasField("dim_value") else None
    return Original(
        model, "nchw" if layout == "nchw" else "nhwc", tensor.elem_type == TensorProto.UINT8, gives, classes
    )


def _fits(dims: object, shape: tuple[int, int, int]) -> bool:
    return all(
        not dim.HasField("dim_value") or dim.dim_value == value
        for dim, value in zip(list(dims)[1:], shape, strict=True)  # type: ignore[call-overload]
    )


def write_wrapped(original: Original, served: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
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
    after = [helper.make_node("Reshape", [answer, "taxon/rows"], ["taxon/flat"])]
    logits = "taxon/flat"
    if original.gives == "scores":
        after += [
            helper.make_node("Max", [logits, "taxon/smallest"], ["taxon/positive"]),
            helper.make_node("Log", ["taxon/positive"], ["taxon/log"]),
        ]
        logits = "taxon/log"
    after.append(helper.make_node("Div", [logits, "taxon/temperature"], ["taxon/tempered"]))
    after.append(helper.make_node("Softmax", ["taxon/tempered"], [GRAPH_OUTPUT], axis=-1))
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
    onnx.save(model, path)
    graph.tidy(path)


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
