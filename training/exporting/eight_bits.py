"""The int8 variant: which operators compute in eight bits, how many of their nodes stay float, whether it is worth it.

All of it is chosen on training pictures, so that the validation pictures are asked once, about the graph that is to be
published. How such a graph is made is in `quantise`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.answers import parted
from taxon.training.config import Task
from taxon.training.exporting import parity, quantise, variants
from taxon.training.exporting.candidate import Candidate, target_matrix
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.examples import Array
from taxon.training.exporting.graph import GraphError
from taxon.training.exporting.parity import ParityError
from taxon.training.exporting.providers import CPU
from taxon.training.exporting.quantise import Plan
from taxon.training.exporting.requantise import input_means
from taxon.training.exporting.variants import Dropped, Kept
from taxon.training.loop import metrics

WORTH = 1.05
"""How many times as fast as fp32 it must be at every timed batch size: less may be the timing's noise."""
CALIBRATION_PICTURES = 64
TRIAL_PICTURES = 512
EXCLUDED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the quantised nodes, the most sensitive first, that are put back to float while the loss is too large."""
ON_TRIAL = 0.25
"""Of the budget may be lost on training pictures: a network is surer of those, so that fewer answers change."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """Training pictures to try graphs on, decoded. No range was taken from them where there are 128 or more; where
    there are fewer than 576, so are these than 512.
    """

    batches: tuple[Array, ...]
    truth: NDArray[np.bool_]
    right: int
    """Pictures that the fp32 graph answers rightly."""


def eight_bits(
    source: Path, candidate: Candidate, reference: NDArray[np.float32], budget: Budget = Budget()
) -> Kept | Dropped:
    """Makes `model.int8.onnx` beside `source`: the fastest plan that is clearly faster than fp32, its most sensitive
    nodes left in float if it loses too much.

    Args:
        source: The proven fp32 graph.
        candidate: Whose pictures are used: those of training to make it, those of validation to judge it.
        reference: float32 `[files, K]`, torch's scores on the validation pictures.
        budget: What may be lost.
    """
    if not candidate.training_files:
        return Dropped("int8", "there are no training pictures to take the ranges of the activations from")
    prepared, target = source.with_name("prepared.onnx"), source.with_name("model.int8.onnx")
    try:
        result = _eight_bits(source, prepared, target, candidate, reference, budget)
    except (GraphError, ParityError) as error:
        result = Dropped("int8", str(error))
    finally:
        prepared.unlink(missing_ok=True)
    if isinstance(result, Dropped):
        target.unlink(missing_ok=True)
    return result


def _eight_bits(
    source: Path, prepared: Path, target: Path, candidate: Candidate, reference: NDArray[np.float32], budget: Budget
) -> Kept | Dropped:
    quantise.prepare(source, prepared)
    ranges, on_trial = _divided(len(candidate.training_files))
    _, pictures = next(
        parity.decoded_batches([candidate.training_files[n] for n in ranges], candidate.pixels, (len(ranges),))
    )
    timed = variants.timed_pictures(candidate)
    plan, tried = _fastest_plan(source, prepared, target, pictures, timed)
    if plan is None:
        return Dropped("int8", f"no plan is {WORTH} times as fast as fp32 on this CPU ({tried})")
    trial = _trial(source, candidate, on_trial)
    means = input_means(prepared, pictures)
    count = quantise.write_int8(prepared, target, pictures, plan, means=means)
    sensitive: list[str] = []
    losses = []
    for in_float in sorted({math.ceil(share * count) for share in (0.0, *EXCLUDED_SHARES)}):
        if in_float:
            sensitive = sensitive or quantise.most_sensitive(prepared, target, pictures, plan)
            quantise.write_int8(prepared, target, pictures, plan, sensitive[:in_float], means)
        loss = _loss(target, candidate, trial)
        if loss <= ON_TRIAL * budget.loss:
            break
        losses.append(f"{loss:.2%} with {in_float} nodes in float")
    else:
        allowed = f"{ON_TRIAL * budget.loss:.2%} is allowed there"
        return Dropped("int8", f"on {len(trial.truth)} training pictures it loses {', '.join(losses)}; {allowed}")
    full, latency = variants.latencies([source, target], timed, CPU)
    if min(full[size] / latency[size] for size in latency) < WORTH:
        return Dropped("int8", f"timed with {in_float} nodes in float, it is not {WORTH} times as fast as fp32")
    verdict = variants.judge(target, candidate, reference, budget)
    if verdict.fault:
        return Dropped("int8", f"with {in_float} of {count} nodes in float {verdict.fault}")
    how = (
        f"{variants.ratio(full, latency):.2f} times as fast as fp32 on this CPU; "
        f"{plan.name}, {count - in_float} nodes in 8 bits, {in_float} of the most sensitive left in float"
    )
    return verdict.kept("int8", target, latency, how)


def _divided(count: int) -> tuple[list[int], list[int]]:
    """Which training pictures the ranges are taken from, and which a graph is tried on: both spread over the files,
    whose order is by class; the same ones where there are too few for both.
    """
    spread = np.unique(np.linspace(0, count - 1, CALIBRATION_PICTURES + TRIAL_PICTURES).astype(int))
    for_ranges = spread[np.unique(np.linspace(0, len(spread) - 1, CALIBRATION_PICTURES).astype(int))]
    others = np.setdiff1d(spread, for_ranges)
    return for_ranges.tolist(), (others if len(others) >= len(for_ranges) else spread).tolist()


def _trial(source: Path, candidate: Candidate, indexes: Sequence[int]) -> _Trial:
    batches = tuple(variants.decoded([candidate.training_files[n] for n in indexes], candidate))
    truth = target_matrix([candidate.training_answers[n] for n in indexes], candidate.labels)
    return _Trial(batches, truth, _right(source, batches, truth, candidate.task))


def _right(path: Path, batches: Sequence[Array], truth: NDArray[np.bool_], task: Task) -> int:
    scores, _ = parted(variants.rows_on(path, batches), truth.shape[1])
    return int(metrics.right(scores, truth, task).sum())


def _loss(path: Path, candidate: Candidate, trial: _Trial) -> float:
    """Of accuracy, on training pictures."""
    return (trial.right - _right(path, trial.batches, trial.truth, candidate.task)) / len(trial.truth)


def _fastest_plan(source: Path, prepared: Path, target: Path, pictures: Array, timed: Array) -> tuple[Plan | None, str]:
    """The plan with the best throughput among those that are worth it at every timed batch size, and all ratios."""
    ratios: dict[Plan, float] = {}
    tried = []
    for plan in quantise.PLANS:
        if quantise.write_int8(prepared, target, pictures[:8], plan) == 0:
            continue
        full, latency = variants.latencies([source, target], timed, CPU)
        by_size = [full[size] / latency[size] for size in latency]
        tried.append(f"{plan.name}: {', '.join(f'{ratio:.2f} times' for ratio in by_size)}")
        if min(by_size) >= WORTH:
            ratios[plan] = by_size[-1]
    return max(ratios, key=ratios.__getitem__, default=None), "; ".join(tried) or "nothing to quantise"
