"""How good answers are: the figures of the report, from scores and truths alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from taxon.training.loop.order import uniform

RESAMPLES = 1000
CONFIDENCE = 0.95
BINS = 15
"""Of the reliability diagram; the usual number (Guo et al., 2017)."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width."""

    confidence: NDArray[np.float64]
    """[bins] mean score in each bin; NaN where it is empty."""
    accuracy: NDArray[np.float64]
    """[bins] share of right answers; NaN where it is empty."""
    counts: NDArray[np.int64]
    error: float
    """Expected calibration error: the mean gap, weighted by the counts."""


def as_matrix(targets: NDArray[np.int64], class_count: int) -> NDArray[np.int64]:
    """[N, K] of 0 and 1 from class indices; multi-label targets are that already."""
    matrix: NDArray[np.int64] = targets if targets.ndim == 2 else np.eye(class_count, dtype=np.int64)[targets]
    return matrix


def chosen(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N, K] of 0 and 1: the best class, or for multi-label those from 0.5."""
    if targets.ndim == 2:
        return (scores >= 0.5).astype(np.int64)
    return as_matrix(scores.argmax(axis=1), scores.shape[1])


def right(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N] whether the answer is wholly right."""
    correct: NDArray[np.bool_] = (chosen(scores, targets) == as_matrix(targets, scores.shape[1])).all(axis=1)
    return correct


def accuracy_interval(correct: NDArray[np.bool_], seed: int = 0) -> tuple[float, float]:
    """The bootstrap percentile interval of an accuracy (Efron, 1979), at 95 %."""
    count = len(correct)
    means = [correct[(uniform(seed, n, np.arange(count)) * count).astype(np.int64)].mean() for n in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def reliability(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> Reliability:
    """Calibration of the best score (single-label), or of every score (multi-label)."""
    if targets.ndim == 2:
        confidence, correct = scores.ravel().astype(np.float64), targets.ravel() == 1
    else:
        confidence, correct = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == targets
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, weights=confidence, minlength=BINS) / counts
        hits = np.bincount(bins, weights=correct, minlength=BINS) / counts
    return Reliability(mean, hits, counts, float(np.nansum(np.abs(mean - hits) * counts) / len(confidence)))


def figures(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of the report, ready for JSON.

    Args:
        scores: [N, K].
        targets: [N] class indices, or [N, K] of 0 and 1.
        labels: In class order.
    """
    truth, answer = as_matrix(targets, len(labels)), chosen(scores, targets)
    correct = right(scores, targets)
    low, high = accuracy_interval(correct)
    per_class = metrics.precision_recall_fscore_support(truth, answer, average=None, zero_division=0.0)
    present = truth.sum(axis=0) > 0
    average_precision = [
        float(metrics.average_precision_score(truth[:, k], scores[:, k])) if present[k] else None
        for k in range(len(labels))
    ]
    found: dict[str, Any] = {
        "sample_count": len(targets),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(per_class[1][present].mean()),
        "mean_average_precision": float(np.mean([value for value in average_precision if value is not None])),
        "expected_calibration_error": reliability(scores, targets).error,
        "per_class": {
            label: {
                "precision": float(per_class[0][k]),
                "recall": float(per_class[1][k]),
                "f1": float(per_class[2][k]),
                "average_precision": average_precision[k],
                "count": int(per_class[3][k]),
            }
            for k, label in enumerate(labels)
        },
    }
    for average in ("micro", "macro", "weighted"):
        parts = metrics.precision_recall_fscore_support(truth, answer, average=average, zero_division=0.0)
        found |= {f"{average}_{name}": float(v) for name, v in zip(("precision", "recall", "f1"), parts, strict=False)}
    if targets.ndim == 1:
        matrix = metrics.confusion_matrix(targets, scores.argmax(axis=1), labels=range(len(labels)))
        found["confusion"] = matrix.tolist()
    return found


def confusions(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(truth, answer, how often, as a share of the truth) of every confusion that happened, the most frequent first."""
    counts = np.asarray(matrix)
    found = counts * (1 - np.eye(len(labels), dtype=np.int64))
    order = np.argsort(-found, axis=None, kind="stable")[: np.count_nonzero(found)]
    pairs = zip(*np.unravel_index(order, found.shape), strict=True)
    return [(labels[t], labels[a], int(found[t, a]), float(found[t, a] / counts[t].sum())) for t, a in pairs]


def worst(scores: NDArray[np.float32], targets: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Numbers of the wrong answers with the score furthest from the truth, the furthest first."""
    truth = as_matrix(targets, scores.shape[1])
    wrongness = np.abs(truth - scores).max(axis=1)
    wrong = np.flatnonzero(~right(scores, targets))
    return wrong[np.argsort(-wrongness[wrong], kind="stable")][:count]
