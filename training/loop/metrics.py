"""How good scores are, from scores and truths alone: the definitions that training, export and report share.

Scores are float32 `[N, K]` in 0…1, truths bool `[N, K]`. With one label per sample the answer is the best score; with
several it is every score from 0.5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxon.training.config import Task

BINS = 15
"""Of the reliability diagram and the expected calibration error; the usual number (Guo et al., 2017)."""


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


def task_of(targets: NDArray[np.int64]) -> Task:
    """Which task targets are of: `[N]` class indices, or `[N, K]` of 0 and 1."""
    return "multi_label" if targets.ndim == 2 else "single_label"


def as_truth(targets: NDArray[np.int64], class_count: int) -> NDArray[np.bool_]:
    """Bool `[N, K]` from `[N]` class indices or `[N, K]` of 0 and 1."""
    truth: NDArray[np.bool_] = targets == 1 if targets.ndim == 2 else np.eye(class_count, dtype=np.bool_)[targets]
    return truth


def chosen(scores: NDArray[np.float32], task: Task) -> NDArray[np.bool_]:
    """Bool `[N, K]`: the answers."""
    return as_truth(scores.argmax(axis=1), scores.shape[1]) if task == "single_label" else scores >= 0.5


def right(scores: NDArray[np.float32], truth: NDArray[np.bool_], task: Task) -> NDArray[np.bool_]:
    """Bool `[N]`: whether the answer is true, or for several labels wholly right."""
    correct: NDArray[np.bool_]
    if task == "single_label":
        correct = np.take_along_axis(truth, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
    else:
        correct = (chosen(scores, task) == truth).all(axis=1)
    return correct


def accuracy(scores: NDArray[np.float32], truth: NDArray[np.bool_], task: Task) -> float:
    """Share of samples that are answered rightly."""
    return float(right(scores, truth, task).mean())


def averages(scores: NDArray[np.float32], truth: NDArray[np.bool_], task: Task, average: str) -> dict[str, float]:
    """`precision`, `recall` and `f1`, averaged over the classes; a class without samples and answers counts as 0.

    Args:
        scores: See above.
        truth: See above.
        task: See above.
        average: `macro`, `micro` or `weighted`, as scikit-learn names them.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import, which a refusal need not

    parts = precision_recall_fscore_support(truth, chosen(scores, task), average=average, zero_division=0.0)
    return {name: float(part) for name, part in zip(("precision", "recall", "f1"), parts, strict=False)}


def reliability(scores: NDArray[np.float32], truth: NDArray[np.bool_], task: Task) -> Reliability:
    """Calibration of the best score, or for several labels of every score."""
    if task == "single_label":
        confidence, correct = scores.max(axis=1).astype(np.float64), right(scores, truth, task)
    else:
        confidence, correct = scores.ravel().astype(np.float64), truth.ravel()
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, weights=confidence, minlength=BINS) / counts
        hits = np.bincount(bins, weights=correct, minlength=BINS) / counts
    error = float(np.nansum(np.abs(mean - hits) * counts) / len(confidence))
    return Reliability(mean, hits, counts, min(error, 1.0))  # the sum may round upwards
