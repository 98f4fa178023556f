"""Triton's model configuration: a `config.pbtxt` → what of it is honoured, and a model → the reply of `ModelConfig`.

Warns of everything in a file that is not honoured; nothing is dropped in silence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from google.protobuf import text_format

from taxon.bundle.manifest import BundleError
from taxon.inference import model_config_pb2 as pb
from taxon.service.open_inference.tensors import BYTES, TensorSpec

FILE = "config.pbtxt"
GRAPH_FILE = "model.onnx"
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
HONOURED = {
    "name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "dynamic_batching",
    "default_model_filename",
}  # fmt: skip
FORMAT_NHWC = pb.ModelInput.FORMAT_NHWC

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """What a `config.pbtxt` says that is honoured. The defaults hold where there is none."""

    max_batch_size: int | None = None
    """0: no batching; None: as the graph allows."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Declared datatypes by name."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, pb.ModelInput.Format] = field(default_factory=dict)
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


def read_config(folder: Path) -> GraphConfig:
    """Reads `config.pbtxt` of a model's folder, if there is one.

    Raises:
        BundleError: It cannot be read, is another model's or another backend's, or names labels that are not there.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return GraphConfig()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{FILE} cannot be read: {error}") from error
    config = _parse(text, folder.name)
    if config.name not in ("", folder.name):
        raise BundleError(f"{FILE} is of model {config.name!r}")
    if config.platform not in ("", PLATFORM) or config.backend not in ("", BACKEND):
        raise BundleError(f"{FILE} asks for {config.platform or config.backend!r}; only {BACKEND!r} is served")
    if config.max_batch_size < 0:
        raise BundleError(f"{FILE}: max_batch_size must not be negative")
    policy = config.version_policy
    graph_file = config.default_model_filename or GRAPH_FILE
    if Path(graph_file).name != graph_file:
        raise BundleError(f"{FILE}: default_model_filename {graph_file!r} must be a file of the version's folder")
    return GraphConfig(
        max_batch_size=config.max_batch_size,
        inputs={tensor.name: of_data_type(tensor.data_type) for tensor in config.input},
        outputs={tensor.name: of_data_type(tensor.data_type) for tensor in config.output},
        formats={tensor.name: tensor.format for tensor in config.input if tensor.format},
        labels={
            tensor.name: _labels(folder, tensor.label_filename) for tensor in config.output if tensor.label_filename
        },
        latest_count=max(1, policy.latest.num_versions) if policy.HasField("latest") else None,
        versions=frozenset(policy.specific.versions) if policy.HasField("specific") else None,
        graph_file=graph_file,
    )


def _parse(text: str, model: str) -> pb.ModelConfig:
    try:
        config = text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as strict:
        try:
            config = text_format.Parse(text, pb.ModelConfig(), allow_unknown_field=True)
        except text_format.ParseError as error:
            raise BundleError(f"{FILE} is not a model configuration: {error}") from error
        log.warning("configuration has unknown parts, which are ignored", model=model, reason=str(strict))
    ignored = {descriptor.name for descriptor, _ in config.ListFields()} - HONOURED
    # The sizes and delays of Triton's batcher have no counterpart: this server batches what waits, at once.
    ignored |= {f"dynamic_batching.{descriptor.name}" for descriptor, _ in config.dynamic_batching.ListFields()}
    for role, tensors in (("input", config.input), ("output", config.output)):
        honoured = {"name", "data_type", "dims", "format", "label_filename"}
        ignored |= {
            f"{role}.{descriptor.name}"
            for tensor in tensors
            for descriptor, _ in tensor.ListFields()
            if descriptor.name not in honoured
        }
    if ignored:
        log.warning("configuration is honoured in part", model=model, ignored=sorted(ignored))
    return config


def _labels(folder: Path, name: str) -> tuple[str, ...]:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{FILE}: label file {name!r} leads out of the model's folder")
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{FILE}: label file {name!r} cannot be read: {error}") from error


def of_data_type(data_type: int) -> str:
    """The protocol's datatype for a `DataType`, such as `INT64` for `TYPE_INT64`."""
    name = pb.DataType.Name(data_type).removeprefix("TYPE_")
    return BYTES if name == "STRING" else name


def to_data_type(datatype: str) -> Any:
    """The `DataType` for the protocol's datatype."""
    return pb.DataType.Value("TYPE_" + ("STRING" if datatype == BYTES else datatype))


@dataclass(frozen=True, slots=True)
class Described:
    """What the protocol tells of one version of a model."""

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
    formats: Mapping[str, pb.ModelInput.Format] = field(default_factory=dict)


def model_config(described: Described, max_queued_count: int, max_call_s: float) -> pb.ModelConfig:
    """The reply of `ModelConfig`.

    Args:
        described: The model.
        max_queued_count: Permits of the server.
        max_call_s: Ceiling of a call's time in seconds.
    """
    skip = 1 if described.max_batch_size else 0
    shown = {spec.name: spec for spec in reversed(described.inputs)}
    kind = pb.ModelInstanceGroup.KIND_GPU if "CUDA" in described.provider else pb.ModelInstanceGroup.KIND_CPU
    config = pb.ModelConfig(
        name=described.name,
        platform=PLATFORM,
        backend=BACKEND,
        version_policy=pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All()),
        max_batch_size=described.max_batch_size,
        input=[
            pb.ModelInput(
                name=spec.name,
                data_type=to_data_type(spec.datatype),
                format=described.formats.get(spec.name, pb.ModelInput.FORMAT_NONE),
                dims=spec.shape[skip:],
            )
            for spec in reversed(shown.values())
        ],
        output=[
            pb.ModelOutput(
                name=spec.name,
                data_type=to_data_type(spec.datatype),
                dims=spec.shape[skip:],
                label_filename="labels.txt" if described.labels.get(spec.name) else "",
            )
            for spec in described.outputs
        ],
        instance_group=[pb.ModelInstanceGroup(name=described.name, count=1, kind=kind)],
        default_model_filename=GRAPH_FILE,
        parameters={
            "execution_provider": pb.ModelParameter(string_value=described.provider),
            "variant": pb.ModelParameter(string_value=described.variant),
        },
    )
    if described.max_batch_size:
        config.dynamic_batching.CopyFrom(
            pb.ModelDynamicBatching(
                preferred_batch_size=described.buckets,
                default_queue_policy=pb.ModelQueuePolicy(
                    default_timeout_microseconds=round(max_call_s * 1e6),
                    allow_timeout_override=True,
                    max_queue_size=max_queued_count,
                ),
            )
        )
    return config
