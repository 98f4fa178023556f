"""How good answers are: the figures of the report, from scores and truths alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support

from taxon.training.loop import metrics
from taxon.training.loop.order import uniform

RESAMPLES = 1000
CONFIDENCE = 0.95


def accuracy_interval(correct: NDArray[np.bool_], seed: int = 0) -> tuple[float, float]:
    """The bootstrap percentile interval of an accuracy (Efron, 1979), at 95 %."""
    count = len(correct)
    means = [correct[(uniform(seed, n, np.arange(count)) * count).astype(np.int64)].mean() for n in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def figures(scores: NDArray[np.float32], targets: NDArray[np.int64], labels: tuple[str, ...]) -> dict[str, Any]:
    """Every figure of the report, ready for JSON.

    Args:
        scores: [N, K].
        targets: [N] class indices, or [N, K] of 0 and 1.
        labels: In class order.
    """
    task, truth = metrics.task_of(targets), metrics.as_truth(targets, len(labels))
    answer, correct = metrics.chosen(scores, task), metrics.right(scores, truth, task)
    low, high = accuracy_interval(correct)
    per_class = precision_recall_fscore_support(truth, answer, average=None, zero_division=0.0)
    present = truth.sum(axis=0) > 0
    average_precision = [
        float(average_precision_score(truth[:, k], scores[:, k])) if present[k] else None for k in range(len(labels))
    ]
    found: dict[str, Any] = {
        "sample_count": len(targets),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(per_class[1][present].mean()),
        "mean_average_precision": float(np.mean([value for value in average_precision if value is not None])),
        "expected_calibration_error": metrics.reliability(scores, truth, task).error,
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
        parts = metrics.averages(scores, truth, task, average)
        found |= {f"{average}_{name}": value for name, value in parts.items()}
    if targets.ndim == 1:
        matrix = confusion_matrix(targets, scores.argmax(axis=1), labels=range(len(labels)))
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
    truth = metrics.as_truth(targets, scores.shape[1])
    wrongness = np.abs(truth - scores).max(axis=1)
    wrong = np.flatnonzero(~metrics.right(scores, truth, metrics.task_of(targets)))
    return wrong[np.argsort(-wrongness[wrong], kind="stable")][:count]
