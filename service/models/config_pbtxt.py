"""Triton's model configuration: a `config.pbtxt` → what of it is honoured.

Warns of everything in a file that is not honoured; nothing is dropped in silence.
"""

from pathlib import Path

import structlog
from google.protobuf import text_format

from taxon.bundle.manifest import BundleError
from taxon.inference import model_config_pb2 as pb
from taxon.service.runtime.description import GRAPH_FILE, GraphConfig
from taxon.service.runtime.tensor_types import BYTES

FILE = "config.pbtxt"
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
HONOURED = {
    "name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "dynamic_batching",
    "default_model_filename",
}  # fmt: skip

log = structlog.get_logger(__name__)


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
