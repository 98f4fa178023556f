"""Lighter graphs beside the fp32 one: made, evaluated on the whole validation set, timed, kept or dropped.

Decides by figures alone. How the graphs are made is in `half` and `quantise`.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from taxon.bundle.answers import parted
from taxon.bundle.manifest import Variant
from taxon.training.exporting import calibrate, half, parity, quantise
from taxon.training.exporting.candidate import Candidate, target_matrix
from taxon.training.exporting.examples import Array
from taxon.training.exporting.graph import GraphError
from taxon.training.exporting.parity import ParityError
from taxon.training.exporting.providers import CPU
from taxon.training.exporting.quantise import Plan
from taxon.training.loop import metrics

BUDGET = 0.01
"""Accuracy that a variant may lose."""
WORTH = 1.05
"""How many times as fast as fp32 an int8 graph must be at every timed batch size: less may be the timing's noise."""
CALIBRATION_PICTURES = 64
TIMED_BATCHES = (1, 8)
REPEATS = 15
EXCLUDED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the quantised nodes, the most sensitive first, that are put back to float while the loss is too large."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A variant worth publishing."""

    variant: Variant
    rows: NDArray[np.float32]
    """What it answers to the validation pictures (see `taxon.bundle.answers`)."""
    note: str
    """How it was made and what it gives, one sentence."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A variant that is not."""

    precision: str
    reason: str


def half_precision(source: Path, candidate: Candidate, accuracy: float, budget: float = BUDGET) -> Kept | Dropped:
    """Makes `model.fp16.onnx` beside `source`.

    Args:
        source: The proven fp32 graph.
        candidate: Whose validation pictures are used.
        accuracy: Of the fp32 graph.
        budget: Accuracy that may be lost.
    """
    target = source.with_name("model.fp16.onnx")
    try:
        half.write_half(source, target)
        rows = _validation_rows(target, candidate)
    except (GraphError, ParityError) as error:
        target.unlink(missing_ok=True)
        return Dropped("fp16", str(error))
    measured = _accuracy(rows, candidate)
    if accuracy - measured > budget:
        target.unlink()
        return Dropped("fp16", _too_much_lost(accuracy, measured, budget))
    latency = {}
    note = f"fp16: accuracy {measured:.2%}; its speed shows only on CUDA, which this machine lacks"
    if (provider := parity.providers()[0]) != CPU:
        full, latency = latencies([source, target], timed_pictures(candidate), provider)
        note = f"fp16: accuracy {measured:.2%}, {_ratio(full, latency):.2f} times as fast as fp32 on CUDA"
    return Kept(Variant(file=target.name, precision="fp16", accuracy=measured, latency_ms=latency), rows, note)


def eight_bits(source: Path, candidate: Candidate, accuracy: float, budget: float = BUDGET) -> Kept | Dropped:
    """Makes `model.int8.onnx` beside `source`: the fastest plan that is clearly faster than fp32, its most sensitive
    nodes left in float if it loses too much.

    Args:
        source: The proven fp32 graph.
        candidate: Whose validation pictures are used; the ranges come from its training pictures.
        accuracy: Of the fp32 graph.
        budget: Accuracy that may be lost.
    """
    if not candidate.training_files:
        return Dropped("int8", "there are no training pictures to take the ranges of the activations from")
    prepared, target = source.with_name("prepared.onnx"), source.with_name("model.int8.onnx")
    try:
        return _eight_bits(source, prepared, target, candidate, accuracy, budget)
    except (GraphError, ParityError) as error:
        target.unlink(missing_ok=True)
        return Dropped("int8", str(error))
    finally:
        prepared.unlink(missing_ok=True)


def _eight_bits(
    source: Path, prepared: Path, target: Path, candidate: Candidate, accuracy: float, budget: float
) -> Kept | Dropped:
    quantise.prepare(source, prepared)
    pictures = _training_pictures(candidate)
    plan, tried = _fastest_plan(source, prepared, target, candidate, pictures)
    if plan is None:
        target.unlink(missing_ok=True)
        return Dropped("int8", f"no plan is {WORTH} times as fast as fp32 on this CPU ({tried})")
    count = quantise.write_int8(prepared, target, pictures, plan)
    sensitive: list[str] = []
    losses = []
    for in_float in sorted({math.ceil(share * count) for share in (0.0, *EXCLUDED_SHARES)}):
        if in_float:
            sensitive = sensitive or quantise.most_sensitive(prepared, target, pictures, plan)
            quantise.write_int8(prepared, target, pictures, plan, sensitive[:in_float])
        rows = _validation_rows(target, candidate)
        measured = _accuracy(rows, candidate)
        if accuracy - measured <= budget:
            break
        losses.append(f"{accuracy - measured:.2%} with {in_float} nodes in float")
    else:
        target.unlink()
        return Dropped("int8", f"it loses {', '.join(losses)}; {budget:.2%} is allowed")
    full, latency = latencies([source, target], timed_pictures(candidate), CPU)
    if min(full[size] / latency[size] for size in latency) < WORTH:
        target.unlink()
        return Dropped("int8", f"timed with {in_float} nodes in float, it is not {WORTH} times as fast as fp32")
    note = (
        f"int8: accuracy {measured:.2%}, {_ratio(full, latency):.2f} times as fast as fp32 on this CPU; "
        f"{plan.name}, {count - in_float} nodes in 8 bits, {in_float} of the most sensitive left in float"
    )
    return Kept(Variant(file=target.name, precision="int8", accuracy=measured, latency_ms=latency), rows, note)


def _fastest_plan(
    source: Path, prepared: Path, target: Path, candidate: Candidate, pictures: Array
) -> tuple[Plan | None, str]:
    """The plan with the best throughput among those that are worth it at every timed batch size, and all ratios."""
    ratios: dict[Plan, float] = {}
    tried = []
    for plan in quantise.PLANS:
        if quantise.write_int8(prepared, target, pictures[:8], plan) == 0:
            continue
        full, latency = latencies([source, target], timed_pictures(candidate), CPU)
        by_size = [full[size] / latency[size] for size in latency]
        tried.append(f"{plan.name}: {', '.join(f'{ratio:.2f} times' for ratio in by_size)}")
        if min(by_size) >= WORTH:
            ratios[plan] = by_size[-1]
    return max(ratios, key=ratios.__getitem__, default=None), "; ".join(tried) or "nothing to quantise"


def latencies(paths: Sequence[Path], pictures: Array, provider: str) -> list[dict[int, float]]:
    """As `timed`, for graphs on one provider."""
    return timed([parity.open_session(path, provider) for path in paths], pictures)


def timed(sessions: Sequence[InferenceSession], pictures: Array) -> list[dict[int, float]]:
    """Median milliseconds of one run by batch size, for each session; in turns, so that a busy machine slows all.

    Args:
        sessions: From `parity.open_session`.
        pictures: uint8 `[N, H, W, C]` or float32 `[N, F]`, at least one.

    Raises:
        ParityError: A graph does not run.
    """
    results: list[dict[int, float]] = [{} for _ in sessions]
    for size in TIMED_BATCHES:
        batch = pictures[np.arange(size) % len(pictures)]
        seconds: list[list[float]] = [[] for _ in sessions]
        for session in sessions:
            parity.run(session, batch)
        for _ in range(REPEATS):
            for session, times in zip(sessions, seconds, strict=True):
                started = time.perf_counter()
                parity.run(session, batch)
                times.append(time.perf_counter() - started)
        for result, times in zip(results, seconds, strict=True):
            result[size] = round(statistics.median(times) * 1000, 3)
    return results


def as_served(
    kept: Kept, reference: NDArray[np.float32], goldens: Sequence[int], label_count: int, coverage: float | None
) -> Kept | Dropped:
    """Gives a variant the tolerance for its replay, from what it answers to the chosen goldens, and if it judges
    familiarity a threshold of its own: rounding in the network makes every picture less like those of the bank.

    The tolerance is half as much again as measured, and two hundredths: what stays float rounds differently on other
    processors.

    Args:
        kept: The variant.
        reference: What torch answers to the validation pictures.
        goldens: Indexes of the golden pictures.
        label_count: K.
        coverage: Share of validation pictures that keep an answer; None for no `unknown` threshold.
    """
    chosen = list(goldens)
    if (kept.rows[chosen, :label_count].argmax(axis=1) != reference[chosen, :label_count].argmax(axis=1)).any():
        return Dropped(kept.variant.precision, "it decides differently on a golden picture")
    difference = float(np.abs(kept.rows[chosen] - reference[chosen]).max())
    changes: dict[str, float] = {"golden_tolerance": round(min(1.0, 1.5 * difference + 0.02), 4)}
    _, familiarity = parted(kept.rows, label_count)
    if familiarity is not None and coverage is not None:
        changes["unknown"] = calibrate.unknown_threshold(familiarity, coverage)
    return replace(kept, variant=kept.variant.model_copy(update=changes))


def _validation_rows(path: Path, candidate: Candidate) -> NDArray[np.float32]:
    sizes = (parity.REFERENCE_BATCH,)
    rows = parity.graph_rows(parity.open_session(path), candidate.files, candidate.pixels, sizes)
    if not np.isfinite(rows).all():
        raise GraphError("its scores are not finite")
    return rows[: len(candidate.files)]


def _accuracy(rows: NDArray[np.float32], candidate: Candidate) -> float:
    scores, _ = parted(rows, len(candidate.labels))
    return metrics.accuracy(scores, target_matrix(candidate.answers, candidate.labels), candidate.task)


def _training_pictures(candidate: Candidate) -> Array:
    """Spread over the training files, whose order is by class."""
    files = candidate.training_files
    count = min(CALIBRATION_PICTURES, len(files))
    chosen = [files[int(index)] for index in np.linspace(0, len(files) - 1, count)]
    _, pictures = next(parity.decoded_batches(chosen, candidate.pixels, (count,)))
    return pictures


def timed_pictures(candidate: Candidate) -> Array:
    """Validation pictures or rows, enough for the largest timed batch."""
    sizes = (min(max(TIMED_BATCHES), len(candidate.files)),)
    _, pictures = next(parity.decoded_batches(candidate.files, candidate.pixels, sizes))
    return pictures


def _ratio(full: dict[int, float], latency: dict[int, float]) -> float:
    size = max(latency)
    return full[size] / latency[size]


def _too_much_lost(accuracy: float, measured: float, budget: float) -> str:
    return f"its accuracy is {measured:.2%} instead of {accuracy:.2%}; a loss of {budget:.2%} is allowed"
