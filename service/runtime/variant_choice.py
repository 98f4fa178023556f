"""Which variant of a bundle is fastest on this machine: each is proven as fp32 is, then timed beside it.

Costs the proof of every further variant and, for its timing, half a second or one run of both where that is longer.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from taxon.bundle.manifest import BundleError, Manifest
from taxon.bundle.proof import Array
from taxon.service.runtime.bundle_proof import FULL, Proven
from taxon.service.runtime.description import Trial
from taxon.service.runtime.device import CPU, TENSORRT
from taxon.service.runtime.session import Clock

AUTO = "auto"
WORTH = 1.1
"""How many times as fast as fp32 a variant must be: less may be noise, and fp32 is what was trained."""
TIMING_S = 0.5
MOST_ROUNDS = 50
LONG_RUN_S = 0.1
"""A batch that takes longer says no more than a smaller one, which fills the machine as well."""


Prove = Callable[[str, Array | None], Proven]
"""Precision, and the goldens if another proof has made them → `bundle_proof.prove`."""


def fastest(
    manifest: Manifest,
    prove: Prove,
    without: Mapping[str, str],
    on_trial: Callable[[str], None],
) -> tuple[Proven, list[Trial]]:
    """Proves a bundle as fp32, then tries its other variants. One that fails, or gains too little, is passed over.

    Args:
        manifest: Of the bundle.
        prove: Proves a variant.
        without: Variants that must not be tried, and why.
        on_trial: Told of every variant that is tried, before it is opened.

    Returns:
        The fastest, and what became of each; nothing if there is only fp32.

    Raises:
        BundleError: The bundle may not be served as fp32.
    """
    full = prove(FULL, None)
    precisions: list[str] = [variant.precision for variant in manifest.variants]
    if len(precisions) == 1:
        return full, []
    tried, speedups, reasons = dict[str, Proven]({FULL: full}), dict[str, float]({FULL: 1.0}), dict[str, str]()
    for precision in precisions:
        if precision == FULL:
            continue
        if reason := without.get(precision) or unsuited(precision, full.session.provider):
            reasons[precision] = reason
            continue
        on_trial(precision)
        try:
            lighter = prove(precision, full.given)
            speedups[precision] = round(speedup(full, lighter, full.session.clock), 2)
            tried[precision] = lighter
        except BundleError as error:
            reasons[precision] = str(error)
    worth = [precision for precision in speedups if speedups[precision] >= WORTH]
    chosen = max(worth, key=speedups.__getitem__, default=FULL)
    for precision in speedups:
        if precision != chosen:
            enough = precision == FULL or precision in worth
            reasons[precision] = f"{chosen} is faster" if enough else f"it must be {WORTH} times as fast as fp32"
    trials = [Trial(name, speedups.get(name, 0.0), reasons.get(name, "")) for name in precisions]
    return tried[chosen], trials


def unsuited(precision: str, provider: str) -> str:
    """Why a variant cannot pay on an execution provider, so that it is not even opened; empty if it may."""
    if provider == TENSORRT:
        return "TensorRT would build another engine for it, which takes minutes"
    if precision == "fp16" and provider == CPU:
        return "a CPU computes it in fp32, after converting"
    if precision == "int8" and provider != CPU:
        return "it is made for CPUs"
    return ""


def speedup(full: Proven, lighter: Proven, clock: Clock) -> float:
    """How many times as fast the lighter variant is, where it gains least: at a batch of 1, and at the largest that is
    no long run. The shortest runs of each count, taken in turns: what else the machine does only ever adds.

    Raises:
        BundleError: A graph fails.
    """
    smallest = min(full.run_s)
    largest = max((size for size, seconds in full.run_s.items() if seconds <= LONG_RUN_S), default=smallest)
    batches = [full.given[np.arange(size) % len(full.given)] for size in sorted({smallest, largest})]
    shortest_s = [[math.inf, math.inf] for _ in batches]
    until = clock() + TIMING_S
    for _ in range(MOST_ROUNDS):
        for batch, times in zip(batches, shortest_s, strict=True):
            for index, proven in enumerate((full, lighter)):
                times[index] = min(times[index], _run_s(proven, batch, clock))
        if clock() >= until:
            break
    return min(before / after for before, after in shortest_s)


def _run_s(proven: Proven, batch: Array, clock: Clock) -> float:
    started = clock()
    try:
        proven.session.run(batch)
    except Exception as error:
        raise BundleError(f"the graph fails while it is timed: {error}") from error
    return clock() - started
