"""An ONNX classifier that exists already: read, checked, and as the reference of the gate.

The graph gets the contract's input and output around it (`wrapped`). The proof is the same gate as for a network, with
the original graph in its place: it is fed by torchvision's normalisation, the new one by its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto
from torch import Tensor, nn

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.store import sha256
from taxon.training.dataset import data
from taxon.training.exporting import foreign
from taxon.training.exporting.candidate import Candidate, ExportError
from taxon.training.exporting.graph import Strategy
from taxon.training.exporting.providers import CPU

OUTPUTS = ("logits", "scores")
SMALLEST_SCORE = 1e-12


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

    @property
    def strategy(self) -> Strategy:
        """How the gate names what it passes: nothing is exported, only wrapped."""
        opset = next(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))
        return Strategy("imported", "dynamo", opset, optimize=False)


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
    takes_bytes = tensor.elem_type == TensorProto.UINT8
    return Original(path, model, "nchw" if layout == "nchw" else "nhwc", takes_bytes, gives, classes)


def _fits(dims: object, shape: tuple[int, int, int]) -> bool:
    return all(
        not dim.HasField("dim_value") or dim.dim_value == value
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
    held_out = data.with_digests(data.scan(folder))
    return Candidate(
        network=OriginalNetwork(original),
        labels=names,
        pixels=pixels,
        mean=means,
        std=deviations,
        files=tuple(sample.path for sample in held_out.samples),
        answers=foreign.answers(held_out),
        run_id=f"sha256-{sha256(original.file)[:16]}",
        data_digest=data.digest(held_out.samples, held_out.labels),
        expected_accuracy=expected_accuracy,
        recipe={"imported": original.file.name},
    )
