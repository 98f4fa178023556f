"""An ONNX classifier that exists already: read, checked, and as the reference of the gate.

The graph gets the contract's input and output around it (`wrapped`). The proof is the same gate as for a network, with
the original graph in its place: it is fed by torchvision's normalisation, the new one by its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from taxon.bundle import graph_files
from taxon.bundle.manifest import PixelSpec
from taxon.mistaken import MISTAKEN_BYTES, first_line, mistaken_for
from taxon.training.dataset import data
from taxon.training.exporting import foreign
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.exporting.graph import Strategy
from taxon.training.exporting.providers import CPU

OUTPUTS = ("logits", "scores")
SMALLEST_SCORE = 1e-12
SUM_TOLERANCE = 1e-2
"""How far the sum of a picture's scores may lie from 1: float16 rounds each of them."""
OLDEST_OPSET = 7
"""From which operators stretch their operands to each other's shapes."""
FRACTIONS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True)
class Original:
    """What is known of the graph to import."""

    file: Path
    model: onnx.ModelProto
    """With all weights inside."""
    layout: Literal["nchw", "nhwc"]
    takes_bytes: bool
    """uint8 instead of float32."""
    gives: str
    """`logits` or `scores`."""
    class_count: int | None
    """None if the graph does not say."""

    gives_float32: bool = True
    """Else another type of fractions, which is cast."""

    @property
    def opset(self) -> int:
        """Of ONNX's own operators; 0 if it has none."""
        return max((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), default=0)

    @property
    def strategy(self) -> Strategy:
        """How the gate names what it passes: nothing is exported, only wrapped."""
        return Strategy("imported", "dynamo", self.opset, optimize=False)


class OriginalNetwork(nn.Module):
    """The original graph as a network: normalised float32 `[N, C, H, W]` → logits `[N, K]`."""

    def __init__(self, original: Original) -> None:
        super().__init__()
        self.original = original
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(original.model.SerializeToString(), options, providers=[CPU])
        except Exception as error:  # ONNX Runtime has its own exceptions, derived from Exception
            raise ExportError(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error
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
            raise ExportError(f"the graph fails on a batch of {len(values)}: {first_line(error)}") from error
        if np.shape(answer)[:1] != (len(values),):
            raise ExportError(
                f"the graph answers {list(np.shape(answer))} for a batch of {len(values)}: its first axis must be the "
                "batch"
            )
        given = torch.from_numpy(answer.reshape(len(answer), -1).astype(np.float32))
        if self.original.gives == "logits":
            return given
        _check_scores(given)
        return given.clamp(min=SMALLEST_SCORE).log()


def _check_scores(given: Tensor) -> None:
    """Refuses what is no distribution over classes, whatever it was said to be: float32 `[N, K]`."""
    sums = given.sum(dim=1)
    if bool((given >= -SUM_TOLERANCE).all()) and bool(((sums - 1.0).abs() <= SUM_TOLERANCE).all()):
        return
    raise ExportError(
        f"the graph's output is not scores of one label per picture: values go from {given.min():.3g} to "
        f"{given.max():.3g}, their sums from {sums.min():.3g} to {sums.max():.3g} instead of 1; if there is no softmax "
        "at its end say --gives logits; a sigmoid is for several labels per picture, which cannot be imported"
    )


def check_logits(logits: NDArray[np.float32]) -> None:
    """Refuses logits that are scores already: a second softmax would change them all and no comparison would show it.

    Args:
        logits: float32 `[pictures, K]`, what the graph answers.

    Raises:
        ExportError: Every row is a distribution, in percent too, or every value lies between 0 and 1.
    """
    if not len(logits) or (logits < 0.0).any() or not np.isfinite(logits).all():
        return
    sums = logits.sum(axis=1, dtype=np.float64)
    if (np.abs(sums - 1.0) <= SUM_TOLERANCE).all():
        raise ExportError(
            "the graph's output is scores, not logits: all are from 0 to 1 and sum to 1; say --gives scores"
        )
    if len(sums) > 1 and (np.abs(sums - sums.mean()) <= SUM_TOLERANCE * sums.mean()).all():
        raise ExportError(
            "the graph's output is scores, not logits: no value is negative and those of every picture sum to "
            f"{sums.mean():g}; export it again with scores that sum to 1, and say --gives scores"
        )
    if (logits > 1.0).any():
        return
    raise ExportError(
        "the graph's output is no logits: all values lie between 0 and 1, as behind a sigmoid, which is for several "
        "labels per picture and cannot be imported"
    )


def read(path: Path, pixels: PixelSpec, gives: str) -> Original:
    """Reads a graph and checks that it can be wrapped.

    Args:
        path: The file; weights beside it are taken in, if they lie in its folder.
        pixels: Says the picture size; a free height and width are fixed to it.
        gives: `logits` or `scores`.

    Raises:
        ExportError: Not ONNX, older than opset 7, several inputs or outputs, another shape or type, or a fixed batch.
    """
    _check_file(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ExportError(f"{path} is not a whole ONNX graph: {first_line(error)}") from error
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    for entries, role in ((inputs, "inputs"), (model.graph.output, "outputs")):
        if len(entries) != 1:
            raise ExportError(f"the graph has {len(entries)} {role} ({', '.join(e.name for e in entries)}), not one")
    for entry in (inputs[0], model.graph.output[0]):
        if entry.type.WhichOneof("value") != "tensor_type":
            raise ExportError(f"the graph's {entry.name!r} is no tensor but {entry.type.WhichOneof('value')}")
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise ExportError("the graph's input is neither float32 nor uint8")
    dims = tensor.shape.dim
    height, width, channels = pixels.shape
    if len(dims) != 4:
        raise ExportError(f"the graph's input has {len(dims)} axes, a batch of pictures has 4")
    if dims[0].dim_value > 0:
        raise ExportError(f"the graph's batch is fixed at {dims[0].dim_value}: export it again with a free batch axis")
    shapes = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    layout = next((key for key, shape in shapes.items() if _fits(dims, shape)), None)
    if layout is None:
        given = [dim.dim_value or dim.dim_param or "?" for dim in dims]
        raise ExportError(f"the graph takes {given}, the pixels give height, width, channels {pixels.shape}")
    for dim, value in zip(list(dims)[1:], shapes[layout], strict=True):
        dim.dim_value = value
    if dims[0].HasField("dim_value"):  # some exporters write -1 or 0 for any length
        dims[0].dim_param = "batch"
    answer = model.graph.output[0].type.tensor_type
    if answer.elem_type not in FRACTIONS:
        kind = TensorProto.DataType.Name(answer.elem_type)
        raise ExportError(f"the graph's output is {kind}, scores are fractions: does it give the class alone?")
    original = Original(
        path,
        model,
        "nchw" if layout == "nchw" else "nhwc",
        tensor.elem_type == TensorProto.UINT8,
        gives,
        _class_count(answer.shape.dim) if answer.HasField("shape") else None,
        answer.elem_type == TensorProto.FLOAT,
    )
    if original.opset < OLDEST_OPSET:
        raise ExportError(
            f"the graph is of opset {original.opset}, the oldest that can be wrapped is {OLDEST_OPSET}: export it again"
        )
    return original


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            mistaken = mistaken_for(file.read(MISTAKEN_BYTES))
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    if mistaken:
        raise ExportError(f"{path} is {mistaken}, not an ONNX graph")


def _class_count(dims: Sequence[Any]) -> int | None:
    """Of one picture's answer, flattened as the wrapper does it: `[N, K]`, `[N, K, 1, 1]`."""
    lengths = [dim.dim_value for dim in dims[1:]]
    return math.prod(lengths) if lengths and min(lengths) > 0 else None


def _fits(dims: object, shape: tuple[int, int, int]) -> bool:
    return all(
        dim.dim_value <= 0 or dim.dim_value == value
        for dim, value in zip(list(dims)[1:], shape, strict=True)  # type: ignore[call-overload]
    )


def candidate(
    original: Original,
    pixels: PixelSpec,
    *,
    labels: Path,
    folder: Path,
    mean: Sequence[float],
    std: Sequence[float],
    expected_accuracy: float | None,
) -> Candidate:
    """The graph with its labels and the pictures to prove it on.

    Args:
        original: From `read`.
        pixels: The same as there.
        labels: Text file, one label a line, in the order of the graph's output.
        folder: Labelled folder of validation pictures.
        mean: Of `x / 255`, per channel or one for all.
        std: As `mean`.
        expected_accuracy: On these pictures, if the user knows it.

    Raises:
        TrainingError: Labels, mean or deviation do not fit the graph, or there are no such pictures.
    """
    names, channels = foreign.read_labels(labels), pixels.shape[2]
    means, deviations = (
        foreign.check_channels(list(values) * channels if len(values) == 1 else values, channels, what)
        for values, what in ((mean, "the mean"), (std, "the deviation"))
    )
    if original.takes_bytes and (set(means), set(deviations)) != ({0.0}, {1.0}):
        raise ExportError("the graph takes bytes: it has its own mean and deviation")
    if original.class_count not in (None, len(names)):
        raise ExportError(f"the graph gives {original.class_count} scores for {len(names)} labels")
    held_out = data.with_digests(data.scan_held_out(folder, data.VALIDATION_FIRST))
    return Candidate(
        network=OriginalNetwork(original),
        labels=names,
        pixels=pixels,
        mean=means,
        std=deviations,
        files=tuple(sample.path for sample in held_out.samples),
        answers=foreign.answers(held_out),
        run_id=f"sha256-{graph_files.digest(original.file)[:16]}",
        data_digest=data.digest(held_out.samples, held_out.labels),
        expected_accuracy=expected_accuracy,
        recipe={"imported": original.file.name},
        notes=foreign.notes(held_out, folder),
    )
