"""A bundle's files → a session that has answered the bundle's goldens, on the provider that will serve.

Knows bundles and sessions; not threads, queues or callers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon import freed_memory
from taxon.bundle import class_maps, pixels, proof, thumbnails
from taxon.bundle.class_maps import Head
from taxon.bundle.manifest import (
    FAMILIARITY_OUTPUT,
    GRAPH_INPUTS,
    GRAPH_OUTPUT,
    PLACES_OUTPUT,
    BundleError,
    Manifest,
    Variant,
)
from taxon.bundle.picture_limits import Limits
from taxon.bundle.proof import Array
from taxon.bundle.store import Bundle
from taxon.service.runtime.description import FORMAT_NHWC, Description, Trial
from taxon.service.runtime.device import CPU, TENSORRT, Device
from taxon.service.runtime.session import Session, Tensor, merged, open_session, profile
from taxon.service.runtime.tensor_types import BYTES, TensorSpec

# Long enough for several runs of a small model, short enough that a large one is run once.
TIMING_S = 0.01
LONG_RUN_S = 0.1
FULL: Final = "fp32"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proven:
    """A bundle that may be served."""

    variant: Variant
    session: Session
    run_s: dict[int, float]
    """Seconds of one run by bucket, ascending."""
    largest_difference: float
    """Of any score or familiarity of any golden."""
    given: Array
    """The goldens, as the graph takes them."""
    head: Head | None = None
    """What makes maps of the places that the graph gives; None: it gives none."""

    def explain(self, batch: NDArray[np.uint8]) -> NDArray[Any]:
        """See `Session.explain`."""
        return self.session.explain(batch, self.head)


def prove(
    bundle: Bundle,
    precision: str,
    device: Device,
    thread_count: int,
    buckets: Sequence[int],
    limits: Limits,
    given: Array | None = None,
) -> Proven:
    """Opens a bundle's graph, compares it with the manifest, replays the goldens, and times every bucket.

    Args:
        bundle: From `store.read`.
        precision: Of the variant; a bundle that lacks it is proven as fp32, and the log says so.
        device: Where it runs.
        thread_count: Threads of one run on the CPU.
        buckets: Batch sizes, ascending from 1.
        limits: Of the goldens' pictures.
        given: The goldens, as the proof of another variant has made them.

    Raises:
        BundleError: The graph does not load, is not the one that the manifest speaks of, or answers a golden
            differently.
    """
    variant = _choose_variant(bundle.manifest, precision)
    try:
        return _prove(bundle, variant, device, thread_count, buckets, limits, given)
    except BundleError as error:
        if not device.tries_cuda_graphs:
            raise
        reason = str(error)
    # Only what can be proven without them was refused because of them.
    proven = _prove(bundle, variant, replace(device, options={}), thread_count, buckets, limits, given)
    log.warning(
        "CUDA graphs do not take the model: whenever the size of its batches changes, a run takes longer",
        model=bundle.manifest.name,
        variant=variant.precision,
        reason=reason,
    )
    return proven


def _prove(
    bundle: Bundle,
    variant: Variant,
    device: Device,
    thread_count: int,
    buckets: Sequence[int],
    limits: Limits,
    given: Array | None,
) -> Proven:
    fixed = profile(GRAPH_INPUTS[bundle.manifest.input.kind], bundle.manifest.input.shape, buckets[-1])
    options = merged({TENSORRT: fixed}, variant.provider_options, device.options)
    session = open_session(bundle.folder / variant.file, device.provider, thread_count, options, variant.precision)
    freed_memory.release()  # opening a graph takes three times what is kept of it
    check_graph(session, bundle.manifest)
    if given is None:
        if bundle.manifest.pixels is not None and (reason := pixels.why_slow(bundle.manifest.pixels)):
            log.warning("pictures are resized slowly, by NumPy", model=bundle.manifest.name, reason=reason)
        given = proof.inputs(bundle.manifest, bundle.read, limits)
    largest_difference, run_s = _replay(session, bundle.manifest, variant, given, buckets)
    head = None
    if bundle.manifest.maps:
        weights = head = class_maps.read_head(bundle.read(bundle.manifest.maps.weights), bundle.manifest)

        def maps(batch: Array) -> NDArray[np.float32]:
            return class_maps.of_places(session.run_with_places(batch)[1], weights)

        proof.replay_maps(bundle.manifest, variant, given, maps)
    if held := bundle.manifest.thumbnails:
        thumbnails.read_features(bundle.read(held.features), bundle.manifest)
    return Proven(variant, session, run_s, largest_difference, given, head)


def describe(
    manifest: Manifest,
    precision: str,
    provider: str,
    buckets: Sequence[int],
    max_batch_size: int,
    trials: Sequence[Trial] = (),
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
        [TensorSpec(output, "FP32", (-1, *shape)) for output, shape in _outputs(manifest).items()],
        {GRAPH_OUTPUT: manifest.labels},
        max_batch_size,
        buckets,
        provider,
        precision,
        trials,
        {name: FORMAT_NHWC} if manifest.input.kind == "image" else {},
    )


def _choose_variant(manifest: Manifest, precision: str) -> Variant:
    by_precision: dict[str, Variant] = {variant.precision: variant for variant in manifest.variants}
    if precision not in by_precision:
        log.warning("bundle lacks the variant, serving fp32", model=manifest.name, variant=precision)
    return by_precision.get(precision, by_precision[FULL])


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
    _check_tensors("input", session.inputs, {GRAPH_INPUTS[kind]: manifest.input.shape}, manifest.input.dtype)
    outputs = _outputs(manifest)
    if manifest.maps:
        outputs[PLACES_OUTPUT] = (manifest.maps.feature_count, *manifest.maps.shape)
    _check_tensors("output", session.outputs, outputs, "float32")


def _outputs(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """What the graph answers for one input: shapes by name, in its order. Places, if it gives them, follow."""
    scores: dict[str, tuple[int, ...]] = {GRAPH_OUTPUT: (len(manifest.labels),)}
    return scores | ({FAMILIARITY_OUTPUT: (1,)} if manifest.judges_familiarity else {})


def _check_tensors(role: str, tensors: Sequence[Tensor], expected: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    if len(tensors) != len(expected):
        raise BundleError(f"the graph has {len(tensors)} {role}s, it must have {len(expected)}: {', '.join(expected)}")
    for tensor, (name, shape) in zip(tensors, expected.items(), strict=True):
        if (tensor.name, tensor.dtype) != (name, dtype):
            raise BundleError(f"the graph's {role} is {tensor.dtype} {tensor.name!r}, it must be {dtype} {name!r}")
        if not tensor.shape or isinstance(tensor.shape[0], int):
            raise BundleError(f"the graph's {role} has the fixed shape {tensor.shape}, its batch axis must be free")
        # An exporter may leave an output's class axis symbolic; the goldens then prove its length.
        lengths = [length if isinstance(length, int) else None for length in tensor.shape[1:]]
        if len(lengths) != len(shape) or any(a not in (None, b) for a, b in zip(lengths, shape, strict=True)):
            raise BundleError(f"the graph's {role} has the shape {tensor.shape}, the manifest says (batch, *{shape})")


def _replay(
    session: Session, manifest: Manifest, variant: Variant, given: Array, buckets: Sequence[int]
) -> tuple[float, dict[int, float]]:
    """The largest difference of a score, and the seconds of one run by bucket: proof and warm-up are one."""
    run_s: dict[int, float] = {}

    def run(batch: Array) -> NDArray[np.float32]:
        bucket = len(batch)
        started = session.clock()
        rows = session.run(batch)
        first_s = session.clock() - started
        # The first run of a shape allocates, and on a GPU searches kernels; a long run on a CPU hardly shows it.
        is_long = session.provider == CPU and first_s > LONG_RUN_S
        measured_s = first_s if is_long else _time(session, batch)
        # A bucket is at most as slow as two of half its size: whatever says more is noise, and would keep the
        # bucket from ever being used and measured again.
        run_s[bucket] = min(measured_s, 2 * run_s.get(bucket // 2, measured_s), run_s.get(bucket, measured_s))
        return rows

    return proof.replay(manifest, variant, given, run, buckets), run_s


def _time(session: Session, batch: Array) -> float:
    """The shortest of a few runs, in seconds: what else the machine does only ever adds."""
    shortest_s, spent_s = math.inf, 0.0
    while spent_s < TIMING_S:
        started = session.clock()
        session.run(batch)
        took_s = session.clock() - started
        shortest_s, spent_s = min(shortest_s, took_s), spent_s + took_s
    return shortest_s
