"""Two versions of a model on the same held-out pictures: is the newer one better, and can that be told from chance?

Knows answers by label name, because versions may order their labels differently. Decides nothing: see `promotions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from taxon.bundle.answers import parted
from taxon.bundle.store import Bundle
from taxon.training.dataset import slices
from taxon.training.dataset.slices import Slice
from taxon.training.exporting import parity, variants
from taxon.training.exporting.candidate import target_matrix
from taxon.training.exporting.examples import Array, Example
from taxon.training.exporting.providers import CPU
from taxon.training.loop import metrics
from taxon.training.loop.significance import CONFIDENCE, change_p_value, changed, holm, loss_p_value, wilson
from taxon.training.releases.held_out import HeldOut
from taxon.training.releases.promotions import PromotionError

REGRESSION = 0.05
"""A class whose recall falls by more is named."""
FULL = "fp32"


@dataclass(frozen=True, slots=True)
class Answers:
    """What one version says to every picture."""

    right: NDArray[np.bool_]
    """bool `[files]`."""
    calibration_error: float
    path: Path
    """Its fp32 graph."""


@dataclass(frozen=True, slots=True)
class ClassChange:
    """The recall of one class, before and after."""

    label: str
    before: float
    after: float
    picture_count: int


@dataclass(frozen=True, slots=True)
class SliceChange:
    """A part of the pictures, before and after."""

    title: str
    picture_count: int
    accuracy_before: float
    accuracy_after: float
    interval_before: tuple[float, float]
    """At 95 %, of this slice alone."""
    interval_after: tuple[float, float]
    gained: int
    lost: int
    p_value: float
    """McNemar's exact test, one-sided: how often chance alone would lose so many more than it gains, on any slice of as
    many as were looked at.
    """

    def loses(self, allowed_loss: float) -> bool:
        """Whether it loses more accuracy than is allowed, and more than chance explains."""
        return self.p_value < 1 - CONFIDENCE and self.accuracy_before - self.accuracy_after > allowed_loss + 1e-12


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidate against the current version, on `picture_count` pictures."""

    picture_count: int
    accuracy_before: float
    accuracy_after: float
    difference: float
    """Of accuracy; positive is better."""
    interval: tuple[float, float]
    """Of the difference, at 95 %."""
    gained: int
    """Pictures that only the candidate gets right."""
    lost: int
    """Pictures that only the current version gets right."""
    p_value: float
    """McNemar's exact test: how often chance alone would give so uneven a split of gained and lost."""
    calibration_error_before: float
    calibration_error_after: float
    latency_ms_before: dict[int, float]
    """Median of one run by batch size, on this machine's CPU."""
    latency_ms_after: dict[int, float]
    regressions: tuple[ClassChange, ...]
    """Classes whose recall falls by more than five points."""
    slices: tuple[SliceChange, ...] = ()
    """The one that loses most certainly first."""


def answers(bundle: Bundle, files: Sequence[Example], labels: Sequence[tuple[str, ...]]) -> Answers:
    """Asks the fp32 graph of a bundle, on the CPU. A true label that the bundle does not know counts as wrong.

    Raises:
        ParityError: A picture cannot be read, or the graph does not run.
    """
    manifest = bundle.manifest
    path = bundle.folder / next(variant.file for variant in manifest.variants if variant.precision == FULL)
    sizes = (parity.REFERENCE_BATCH,)
    rows = parity.graph_rows(parity.open_session(path), files, manifest.pixels, sizes)
    scores, _ = parted(rows[: len(files)], len(manifest.labels))
    known = [tuple(label for label in answer if label in manifest.labels) for answer in labels]
    targets = target_matrix(known, manifest.labels)
    complete = np.array([len(answer) == len(kept) for answer, kept in zip(labels, known, strict=True)])
    right = metrics.right(scores, targets, manifest.task) & complete
    return Answers(right, metrics.reliability(scores, targets, manifest.task).error, path)


def compared(current: Bundle, candidate: Bundle, held_out: HeldOut) -> Comparison:
    """Asks both versions about the held-out pictures and times both.

    Raises:
        PromotionError: The candidate lacks labels that callers may rely on, or takes other numbers.
        ParityError: A picture cannot be read.
    """
    same_input = candidate.manifest.input == current.manifest.input
    if "features" in (candidate.manifest.input.kind, current.manifest.input.kind) and not same_input:
        raise PromotionError(f"version {candidate.manifest.version} takes other input; publish it under a new name")
    if missing := sorted(set(current.manifest.labels) - set(candidate.manifest.labels)):
        raise PromotionError(
            f"version {candidate.manifest.version} lacks the labels {missing[:5]}; publish it under a new name"
        )
    before, after = (answers(bundle, held_out.files, held_out.labels) for bundle in (current, candidate))
    pictures = None
    if same_input:
        size = min(8, len(held_out.files))
        _, pictures = next(parity.decoded_batches(held_out.files, candidate.manifest.pixels, (size,)))
    seen = slices.looks(held_out.samples, candidate.manifest.pixels)
    parts = slices.slices(held_out.samples, candidate.manifest.labels, seen)
    return compare(before, after, held_out.labels, pictures, parts)


def compare(
    before: Answers,
    after: Answers,
    labels: Sequence[tuple[str, ...]],
    pictures: Array | None = None,
    parts: Sequence[Slice] = (),
) -> Comparison:
    """Compares the answers of two versions.

    Args:
        before: Of the current version.
        after: Of the candidate.
        labels: The true labels, by picture.
        pictures: What both graphs take, to time them on; None if their inputs differ.
        parts: Slices of the pictures.
    """
    count = len(labels)
    gained, lost = changed(before.right, after.right)
    timed: list[dict[int, float]] = [{}, {}]
    if pictures is not None:
        timed = variants.latencies([before.path, after.path], pictures, CPU)
    return Comparison(
        picture_count=count,
        accuracy_before=float(before.right.mean()),
        accuracy_after=float(after.right.mean()),
        difference=(gained - lost) / count,
        interval=difference_interval(gained, lost, count),
        gained=gained,
        lost=lost,
        p_value=change_p_value(gained, lost),
        calibration_error_before=before.calibration_error,
        calibration_error_after=after.calibration_error,
        latency_ms_before=timed[0],
        latency_ms_after=timed[1],
        regressions=regressions(before.right, after.right, labels),
        slices=slice_changes(before.right, after.right, parts),
    )


def difference_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """The interval of a difference of paired proportions, after Agresti and Min (Statistics in Medicine, 2005): half
    a picture is added to each of the four cells, which keeps it honest for small counts.
    """
    gained_, lost_, count_ = gained + 0.5, lost + 0.5, count + 2.0
    center = (gained_ - lost_) / count_
    variance = (gained_ + lost_ - (gained_ - lost_) ** 2 / count_) / count_**2
    reach = float(norm.ppf(0.5 + CONFIDENCE / 2)) * variance**0.5
    return center - reach, center + reach


def regressions(
    before: NDArray[np.bool_], after: NDArray[np.bool_], labels: Sequence[tuple[str, ...]]
) -> tuple[ClassChange, ...]:
    """The classes whose recall falls by more than `REGRESSION`, worst first."""
    changes = []
    for label in sorted({label for answer in labels for label in answer}):
        chosen = np.array([label in answer for answer in labels])
        change = ClassChange(label, float(before[chosen].mean()), float(after[chosen].mean()), int(chosen.sum()))
        if change.before - change.after > REGRESSION:
            changes.append(change)
    return tuple(sorted(changes, key=lambda change: change.after - change.before))


def slice_changes(
    before: NDArray[np.bool_], after: NDArray[np.bool_], parts: Sequence[Slice]
) -> tuple[SliceChange, ...]:
    """Both versions on every slice, the smallest p-value first. The p-values are corrected for the number of slices, so
    that not even one of many that lose nothing is taken for a loss more often than once in twenty comparisons (Holm,
    Scandinavian Journal of Statistics 6, 1979).
    """
    changes = []
    for part in parts:
        was, now, count = before[part.numbers], after[part.numbers], len(part.numbers)
        gained, lost = changed(was, now)
        changes.append(
            SliceChange(
                title=part.title,
                picture_count=count,
                accuracy_before=float(was.mean()),
                accuracy_after=float(now.mean()),
                interval_before=wilson(int(was.sum()), count),
                interval_after=wilson(int(now.sum()), count),
                gained=gained,
                lost=lost,
                p_value=loss_p_value(gained, lost),
            )
        )
    changes.sort(key=lambda change: change.p_value)
    corrected = holm([change.p_value for change in changes])
    return tuple(replace(change, p_value=p_value) for change, p_value in zip(changes, corrected, strict=True))
