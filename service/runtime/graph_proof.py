"""ONNX files without a manifest, `<root>/<name>/<version>/model.onnx` → models that are served as tensors.

There are no goldens to replay, so less is proven than of a bundle: the graph loads, takes and gives numbers, and,
if it is to be batched, answers two inputs together as it does singly. One input of such a model travels through the
batcher as one structured array that holds all of its tensors.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.bundle import graph_files
from taxon.bundle.manifest import BundleError
from taxon.service.runtime.description import Description, GraphConfig
from taxon.service.runtime.packing import run_packed
from taxon.service.runtime.session import Session, Tensor, open_session
from taxon.service.runtime.tensor_types import DATATYPES, OF_NUMPY, TensorSpec

# Lengths to try for an axis of any length, to find an input that the graph takes.
SAMPLE_LENGTHS = (8, 128, 1024, 16384)
# Largest difference between an input's answer alone and in a batch; summation order may change.
BATCH_TOLERANCE = 1e-3
# Assumed until a run has been measured, for a graph that took none of the samples.
UNKNOWN_RUN_S = 1e-3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProvenGraph:
    """A graph that may be served."""

    description: Description
    run: Callable[[NDArray[Any]], NDArray[Any]]
    """Structured `[bucket]` of inputs → structured `[bucket]` of outputs, see `packing`."""
    run_s: Mapping[int, float]
    """Seconds of one run by bucket, ascending."""


def prove_graph(
    folder: Path,
    config: GraphConfig,
    provider: str,
    thread_count: int,
    buckets: Sequence[int],
    max_batch_size: int,
) -> ProvenGraph:
    """Opens a graph, decides whether it can be batched, and times every batch size.

    Args:
        folder: `<root>/<name>/<version>`.
        config: Of the model.
        provider: Execution provider.
        thread_count: Threads of one run.
        buckets: Batch sizes, ascending from 1.
        max_batch_size: Of one request, unless the model's configuration says otherwise.

    Raises:
        BundleError: It must not be served; the message says why.
    """
    name, version = folder.parent.name, int(folder.name)
    graph_files.check_beside(folder, config.graph_file)
    # By its path: given bytes, ONNX Runtime takes weights kept beside the graph from the process's own folder.
    session = open_session(folder / config.graph_file, provider, thread_count, {})
    if any(key.startswith("taxon.") for key in session.metadata):
        raise BundleError("this is the graph of a bundle, and its manifest is missing")
    inputs = [_spec("input", tensor, config.inputs) for tensor in session.inputs]
    outputs = [_spec("output", tensor, config.outputs) for tensor in session.outputs]
    sample = _find_sample(session, inputs)
    if batched := _is_batched(session, config, sample, name):
        largest = config.max_batch_size or max_batch_size
        run_s = _time(session, sample, [bucket for bucket in buckets if bucket <= largest])
    else:
        largest, run_s = 0, _time(session, sample, [1])
    description = Description(
        name, version, inputs, outputs, config.labels, largest, list(run_s), session.provider, formats=config.formats
    )

    def run(tensors: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        return session.run_tensors(_feeds(session, tensors))

    return ProvenGraph(description, functools.partial(run_packed, run, batched=batched), run_s)


def _spec(role: str, tensor: Tensor, declared: Mapping[str, str]) -> TensorSpec:
    if tensor.dtype not in OF_NUMPY:
        raise BundleError(f"the {role} {tensor.name!r} is {tensor.dtype}; only tensors of numbers are served")
    datatype = OF_NUMPY[tensor.dtype]
    if declared and declared.get(tensor.name, "") not in (datatype, "INVALID"):
        raise BundleError(
            f"the {role} {tensor.name!r} is {datatype}, config.pbtxt says {declared.get(tensor.name, 'nothing of it')}"
        )
    return TensorSpec(
        tensor.name, datatype, tuple(length if isinstance(length, int) else -1 for length in tensor.shape)
    )


def _is_batched(session: Session, config: GraphConfig, sample: list[NDArray[Any]] | None, name: str) -> bool:
    """Whether inputs may share a run."""
    if config.max_batch_size == 0:
        return False
    tensors = [*session.inputs, *session.outputs]
    fixed = [tensor.name for tensor in tensors if not tensor.shape or isinstance(tensor.shape[0], int)]
    if config.max_batch_size is not None:
        if fixed:
            raise BundleError(
                f"config.pbtxt says max_batch_size {config.max_batch_size}, but {fixed} have no free first axis"
            )
        return True
    if fixed:
        return False
    if sample is None or not _answers_alike(session, sample):
        log.warning("graph is not batched: two inputs together are not answered as they are singly", model=name)
        return False
    return True


def _find_sample(session: Session, specs: Sequence[TensorSpec]) -> list[NDArray[Any]] | None:
    """Zeros that the graph takes, a first axis of any length being 1; None if it takes none that were tried."""
    for length in SAMPLE_LENGTHS:
        sample = [
            np.zeros(
                [(1 if axis == 0 else length) if wanted < 0 else wanted for axis, wanted in enumerate(spec.shape)],
                DATATYPES[spec.datatype][0],
            )
            for spec in specs
        ]
        if session.probe(_feeds(session, sample)) is not None:
            return sample
    return None


def _answers_alike(session: Session, sample: list[NDArray[Any]]) -> bool:
    singles = [sample, [np.ones_like(tensor) for tensor in sample]]
    pair = [np.concatenate(rows) for rows in zip(*singles, strict=True)]
    first, second = (session.probe(_feeds(session, single)) for single in singles)
    together = session.probe(_feeds(session, pair))
    if first is None or second is None or together is None:
        return False
    expected = [np.concatenate(rows) for rows in zip(first, second, strict=True)]
    return all(
        given.shape == wanted.shape
        and np.allclose(given, wanted, rtol=BATCH_TOLERANCE, atol=BATCH_TOLERANCE, equal_nan=True)
        for given, wanted in zip(together, expected, strict=True)
    )


def _time(session: Session, sample: list[NDArray[Any]] | None, buckets: Sequence[int]) -> dict[int, float]:
    """Warms every batch size as well."""
    run_s = {}
    for bucket in buckets:
        if sample is None:
            run_s[bucket] = UNKNOWN_RUN_S * bucket
            continue
        feeds = _feeds(session, [np.repeat(tensor, bucket, axis=0) if bucket > 1 else tensor for tensor in sample])
        try:
            session.run_tensors(feeds)
            started = session.clock()
            session.run_tensors(feeds)
        except Exception as error:
            raise BundleError(f"the graph fails on a batch of {bucket}: {error}") from error
        run_s[bucket] = session.clock() - started
    return run_s


def _feeds(session: Session, tensors: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {spec.name: tensor for spec, tensor in zip(session.inputs, tensors, strict=True)}
