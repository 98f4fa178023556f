"""What is known of a loaded model before it is asked: its tensors, its sizes, where it runs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from taxon.service.runtime.tensor_types import TensorSpec

GRAPH_FILE = "model.onnx"
FORMAT_NHWC = 1
"""Of Triton's `ModelInput.Format`; its messages are not needed where models run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one variant of a bundle when the fastest was looked for."""

    variant: str
    speedup: float = 0.0
    """Times as fast as fp32, at the batch size where it gains least; 0 if it was not timed."""
    reason: str = ""
    """Why it is not served; empty for the one that is."""


@dataclass(frozen=True, slots=True)
class Description:
    """One version of a model, as the Open Inference Protocol tells it."""

    name: str
    version: int
    inputs: Sequence[TensorSpec]
    """Of a name that occurs twice, the first is what metadata show."""
    outputs: Sequence[TensorSpec]
    labels: Mapping[str, Sequence[str]]
    """In class order, by output."""
    max_batch_size: int
    """Of one request; 0 if the model takes no batches."""
    buckets: Sequence[int]
    """Batch sizes that run."""
    provider: str
    variant: str = "fp32"
    trials: Sequence[Trial] = ()
    """Of every variant of a bundle; empty if there was nothing to choose."""
    formats: Mapping[str, int] = field(default_factory=dict)
    """Triton's `ModelInput.Format` by input."""


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What a `config.pbtxt` says that is honoured. The defaults hold where there is none."""

    max_batch_size: int | None = None
    """0: no batching; None: as the graph allows."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Declared datatypes by name."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    """`ModelInput.Format` by input."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """In class order, by output."""
    latest_count: int | None = None
    """How many of the newest versions are served; None: all."""
    versions: frozenset[int] | None = None
    """The versions that are served; None: all."""
    graph_file: str = GRAPH_FILE

    def serves(self, version: int, newer_count: int) -> bool:
        """Whether a version is to be served.

        Args:
            version: In question.
            newer_count: How many versions in the folder are newer.
        """
        if self.versions is not None:
            return version in self.versions
        return self.latest_count is None or newer_count < self.latest_count
