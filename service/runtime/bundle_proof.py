"""A bundle's files → a session that has answered the bundle's goldens, on the provider that will serve.

Knows bundles and sessions; not threads, queues or callers.
"""

import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.bundle import pixels
from taxon.bundle.manifest import GRAPH_INPUTS, GRAPH_OUTPUT, BundleError, Golden, Manifest, Variant
from taxon.bundle.picture_limits import Limits
from taxon.bundle.store import Bundle
from taxon.service.machine import release_freed_memory
from taxon.service.runtime.description import FORMAT_NHWC, Description
from taxon.service.runtime.device import CPU, TENSORRT, Device
from taxon.service.runtime.features import to_features
from taxon.service.runtime.session import Session, Tensor, merged, open_session, profile
from taxon.service.runtime.tensor_types import BYTES, TensorSpec

# Long enough for several runs of a small model, short enough that a large one is run once.
TIMING_S = 0.01
LONG_RUN_S = 0.1

log = structlog.get_logger(__name__)

Array = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Proven:
    """A bundle that may be served."""

    manifest: Manifest
    variant: Variant
    session: Session
    run_s: dict[int, float]
    """Seconds of one run by bucket, ascending."""
    largest_difference: float
    """Of any score of any golden."""


def prove(
    bundle: Bundle,
    precision: Literal["fp32", "fp16", "int8"],
    device: Device,
    thread_count: int,
    buckets: Sequence[int],
    limits: Limits,
) -> Proven:
    """Opens a bundle's graph, compares it with the manifest, replays the goldens, and times every bucket.

    Raises:
        BundleError: The graph does not load, is not the one that the manifest speaks of, or answers a golden
            differently.
    """
    variant = _choose_variant(bundle.manifest, precision)
    fixed = profile(GRAPH_INPUTS[bundle.manifest.input.kind], bundle.manifest.input.shape, buckets[-1])
    options = merged({TENSORRT: fixed}, variant.provider_options, device.options)
    session = open_session(bundle.folder / variant.file, device.provider, thread_count, options, variant.precision)
    release_freed_memory()
    check_graph(session, bundle.manifest)
    goldens = bundle.manifest.golden
    if (tolerance := variant.golden_tolerance) is not None:
        goldens = tuple(golden.model_copy(update={"tolerance": tolerance}) for golden in goldens)
    arrays = [_golden_array(bundle, golden, limits) for golden in goldens]
    largest_difference, run_s = _replay(session, goldens, arrays, buckets)
    return Proven(bundle.manifest, variant, session, run_s, largest_difference)


def describe(
    manifest: Manifest, precision: str, provider: str, buckets: Sequence[int], max_batch_size: int
) -> Description:
    """What the Open Inference Protocol tells of a bundle. A picture may be sent in two ways."""
    name = GRAPH_INPUTS[manifest.input.kind]
    if manifest.input.kind == "image":
        inputs = [TensorSpec(name, "UINT8", (-1, *manifest.input.shape)), TensorSpec(name, BYTES, (-1,))]
    else:
        inputs = [TensorSpec(name, "FP32", (-1, *manifest.input.shape))]
    return Description(
        manifest.name,
        manifest.version,
        inputs,
        [TensorSpec(GRAPH_OUTPUT, "FP32", (-1, len(manifest.labels)))],
        {GRAPH_OUTPUT: manifest.labels},
        max_batch_size,
        buckets,
        provider,
        precision,
        {name: FORMAT_NHWC} if manifest.input.kind == "image" else {},
    )


def _choose_variant(manifest: Manifest, precision: str) -> Variant:
    by_precision = {variant.precision: variant for variant in manifest.variants}
    for variant in manifest.variants:
        if variant.precision == precision:
            return variant
    log.warning("bundle lacks the variant, serving fp32", model=manifest.name, variant=precision)
    return by_precision["fp32"]


def check_graph(session: Session, manifest: Manifest) -> None:
    """Compares what the graph says of itself with the manifest.

    Raises:
        BundleError: Metadata, input or output differ.
    """
    for key, expected in manifest.contract().items():
        actual = session.metadata.get(key)
        if actual != expected:
            raise BundleError(f"the graph's metadata {key} is {actual!r}, the manifest says {expected!r}")
    kind = manifest.input.kind
    _check_tensors("input", session.inputs, GRAPH_INPUTS[kind], manifest.input.dtype, manifest.input.shape)
    _check_tensors("output", session.outputs, GRAPH_OUTPUT, "float32", (len(manifest.labels),))


def _check_tensors(role: str, tensors: Sequence[Tensor], name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if len(tensors) != 1:
        raise BundleError(f"the graph has {len(tensors)} {role}s, it must have one")
    tensor = tensors[0]
    if (tensor.name, tensor.dtype) != (name, dtype):
        raise BundleError(f"the graph's {role} is {tensor.dtype} {tensor.name!r}, it must be {dtype} {name!r}")
    if not tensor.shape or isinstance(tensor.shape[0], int):
        raise BundleError(f"the graph's {role} has the fixed shape {tensor.shape}, its batch axis must be free")
    # An exporter may leave an output's class axis symbolic; the goldens then prove its length.
    if len(tensor.shape) != len(shape) + 1 or any(
        isinstance(actual, int) and actual != expected for actual, expected in zip(tensor.shape[1:], shape, strict=True)
    ):
        raise BundleError(f"the graph's {role} has the shape {tensor.shape}, the manifest says (batch, *{shape})")


def _golden_array(bundle: Bundle, golden: Golden, limits: Limits) -> Array:
    try:
        stored = bundle.read(golden.file)
        if bundle.manifest.pixels is not None:
            return pixels.decode(stored, bundle.manifest.pixels, limits)
        return to_features(json.loads(stored), bundle.manifest)
    except Exception as error:
        raise BundleError(f"{golden.file} cannot be decoded: {error}") from error


def _replay(
    session: Session, goldens: Sequence[Golden], arrays: Sequence[Array], buckets: Sequence[int]
) -> tuple[float, dict[int, float]]:
    """Runs every bucket once with goldens, and every golden at least once, so that proof and warm-up are one."""
    largest_difference = 0.0
    run_s: dict[int, float] = {}
    for bucket, indexes in _rounds(len(goldens), buckets):
        batch = np.empty((bucket, *arrays[0].shape), arrays[0].dtype)
        np.stack([arrays[index] for index in indexes], out=batch)
        try:
            started = time.perf_counter()
            scores = session.run(batch)
            first_s = time.perf_counter() - started
            # The first run of a shape allocates, and on a GPU searches kernels; a long run on a CPU hardly shows it.
            is_long = session.provider == CPU and first_s > LONG_RUN_S
            measured_s = first_s if is_long else _time(session, batch)
        except Exception as error:
            raise BundleError(f"the graph fails on a batch of {bucket}: {error}") from error
        # A bucket is at most as slow as two of half its size: whatever says more is noise, and would keep the
        # bucket from ever being used and measured again.
        run_s[bucket] = min(measured_s, 2 * run_s.get(bucket // 2, measured_s), run_s.get(bucket, measured_s))
        for index, actual in zip(indexes, scores, strict=True):
            expected = np.asarray(goldens[index].scores, dtype=np.float32)
            largest_difference = max(largest_difference, _compare(goldens[index], actual, expected, bucket))
    return largest_difference, run_s


def _time(session: Session, batch: Array) -> float:
    """The shortest of a few runs, in seconds: what else the machine does only ever adds."""
    shortest_s, spent_s = math.inf, 0.0
    while spent_s < TIMING_S:
        started = time.perf_counter()
        session.run(batch)
        took_s = time.perf_counter() - started
        shortest_s, spent_s = min(shortest_s, took_s), spent_s + took_s
    return shortest_s


def _rounds(golden_count: int, buckets: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(bucket, indexes of goldens): every bucket, then the largest until every golden has had its turn."""
    turns = itertools.cycle(range(golden_count))
    left = golden_count - sum(buckets)
    extra = [buckets[-1]] * max(0, -(-left // buckets[-1]))
    for bucket in (*buckets, *extra):
        yield bucket, list(itertools.islice(turns, bucket))


def _compare(golden: Golden, actual: Array, expected: Array, bucket: int) -> float:
    if actual.shape != expected.shape:
        raise BundleError(f"{golden.file}: the graph gives {actual.size} scores, the golden has {expected.size}")
    difference = float(np.abs(actual - expected).max())
    if not difference <= golden.tolerance:  # not `>`: NaN must fail
        raise BundleError(
            f"{golden.file}: in a batch of {bucket} a score differs by {difference:.3g}, "
            f"at most {golden.tolerance:g} is allowed"
        )
    if actual.argmax() != expected.argmax():
        raise BundleError(
            f"{golden.file}: in a batch of {bucket} class {actual.argmax()} wins, expected {expected.argmax()}"
        )
    return difference
