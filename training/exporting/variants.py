"""Lighter graphs beside the fp32 one: evaluated on the whole validation set, timed, kept or dropped.

Decides by figures alone. How the graphs are made is in `half` and `eight_bits`.
"""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from taxon.bundle.answers import parted
from taxon.bundle.manifest import Evidence, Variant
from taxon.training.exporting import calibrate, evidence, half, maps, parity
from taxon.training.exporting.candidate import Candidate, target_matrix
from taxon.training.exporting.evidence import Budget
from taxon.training.exporting.examples import Array, Example
from taxon.training.exporting.graph import GraphError
from taxon.training.exporting.mapped import Mapped
from taxon.training.exporting.parity import ParityError
from taxon.training.exporting.providers import CPU
from taxon.training.loop import metrics

TIMED_BATCHES = (1, 8)
REPEATS = 15


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """On a lighter graph beside the fp32 one, on the validation pictures."""

    rows: NDArray[np.float32]
    """What it answers to them (see `taxon.bundle.answers`)."""
    evidence: Evidence
    accuracy: float

    @property
    def fault(self) -> str:
        """Why it must not be published; empty if it may."""
        return evidence.fault(self.evidence)

    def kept(self, precision: Literal["fp16", "int8"], path: Path, latency_ms: dict[int, float], how: str) -> Kept:
        """It is worth publishing. `how` it was made and how fast it is goes into the note."""
        variant = Variant(
            file=path.name,
            precision=precision,
            accuracy=self.accuracy,
            latency_ms=latency_ms,
            evidence=self.evidence,
        )
        by_estimate = ", published for that alone" if self.evidence.judged_by == "estimate" else ""
        return Kept(variant, self.rows, f"{precision}: {evidence.sentence(self.evidence)}{by_estimate}; {how}")


def half_precision(
    source: Path, candidate: Candidate, reference: NDArray[np.float32], budget: Budget = Budget()
) -> Kept | Dropped:
    """Makes `model.fp16.onnx` beside `source`.

    Args:
        source: The proven fp32 graph.
        candidate: Whose validation pictures are used.
        reference: float32 `[files, K]`, torch's scores on them.
        budget: What may be lost.
    """
    target, provider = source.with_name("model.fp16.onnx"), parity.providers()[0]
    try:
        half.write_half(source, target)
        verdict = judge(target, candidate, reference, budget, provider)
    except (GraphError, ParityError) as error:
        target.unlink(missing_ok=True)
        return Dropped("fp16", str(error))
    if verdict.fault:
        target.unlink()
        return Dropped("fp16", verdict.fault)
    latency = {}
    speed = "judged on a CPU, which computes in fp32; its speed shows only on CUDA, which this machine lacks"
    if provider != CPU:
        full, latency = latencies([source, target], timed_pictures(candidate), provider)
        speed = f"{ratio(full, latency):.2f} times as fast as fp32 on CUDA"
    return verdict.kept("fp16", target, latency, speed)


def judge(
    path: Path, candidate: Candidate, reference: NDArray[np.float32], budget: Budget, provider: str = CPU
) -> Verdict:
    """Asks a lighter graph about the whole validation set. Once for each graph that is to be published: who looks for
    one that passes finds one that was lucky. On the provider that it is for, if this machine has it.

    Raises:
        GraphError: Its scores are not finite.
        ParityError: It does not run, or a file cannot be read.
    """
    truth = target_matrix(candidate.answers, candidate.labels)
    rows = rows_on(path, decoded(candidate.files, candidate), provider)
    scores, _ = parted(rows, len(candidate.labels))
    found = evidence.seen(reference, scores, truth, candidate.task, budget)
    return Verdict(rows, found, metrics.accuracy(scores, truth, candidate.task))


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
    """Gives a variant the tolerance for its replay, from what it answers to the chosen goldens, and an `unknown`
    threshold of its own: rounding in the network makes it less sure of every picture, and every picture less familiar.

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
    if coverage is not None:
        measured = calibrate.unknown_measure(kept.rows, label_count)
        changes["unknown"] = calibrate.unknown_threshold(measured, coverage)
    return replace(kept, variant=kept.variant.model_copy(update=changes))


def with_map_tolerance(
    kept: Kept,
    folder: Path,
    network: Mapped,
    candidate: Candidate,
    golden_maps: Mapping[int, NDArray[np.float32]],
    winners: NDArray[np.int64],
) -> Kept:
    """Gives a variant the tolerance for the replay of its maps, as `as_served` does for its scores.

    Args:
        kept: The variant.
        folder: Where its graph is.
        network: With maps.
        candidate: Whose validation pictures are used.
        golden_maps: What torch gives, by index of the golden picture.
        winners: The label by index of the validation picture.
    """
    difference = maps.graph_difference(folder / kept.variant.file, network, candidate, golden_maps, winners)
    tolerance = round(min(2.0, 1.5 * difference + maps.TOLERANCE), 4)
    return replace(kept, variant=kept.variant.model_copy(update={"map_tolerance": tolerance}))


def rows_on(path: Path, batches: Iterable[Array], provider: str = CPU) -> NDArray[np.float32]:
    """What a graph answers, a row for each picture or row of numbers (see `taxon.bundle.answers`).

    Raises:
        GraphError: A score or the familiarity is not finite.
        ParityError: It does not run, or what `batches` raises.
    """
    session = parity.open_session(path, provider)
    rows = np.concatenate([parity.run(session, batch) for batch in batches])
    if not np.isfinite(rows).all():
        raise GraphError("its scores are not finite")
    return rows


def decoded(files: Sequence[Example], candidate: Candidate) -> Iterator[Array]:
    """Pictures or rows as the candidate takes them, in batches; each once.

    Raises:
        ParityError: A file cannot be read.
    """
    sizes = (min(parity.REFERENCE_BATCH, len(files)),)
    return (batch for _, batch in parity.decoded_batches(files, candidate.pixels, sizes))


def timed_pictures(candidate: Candidate) -> Array:
    """Validation pictures or rows, enough for the largest timed batch."""
    return next(decoded(candidate.files[: max(TIMED_BATCHES)], candidate))


def ratio(full: dict[int, float], latency: dict[int, float]) -> float:
    """Times as fast as fp32, at the largest timed batch size."""
    size = max(latency)
    return full[size] / latency[size]
