"""From validation logits to scores that can be read as probabilities, and to thresholds.

Knows arrays only. Temperature scaling after Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_curve

from taxon.bundle.answers import parted
from taxon.bundle.manifest import Calibration, Thresholds
from taxon.training.config import Task
from taxon.training.exporting.parity import scores_of
from taxon.training.loop.metrics import accuracy, reliability

TEMPERATURES = (0.1, 10.0)
MIN_POSITIVES = 10
"""A label with fewer keeps the threshold 0.5."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the graph and the manifest get."""

    calibration: Calibration
    thresholds: Thresholds

    @property
    def temperature(self) -> float:
        """Divides the logits."""
        return self.calibration.temperature


UNCALIBRATED = Calibrated(Calibration(), Thresholds())


def calibrate(logits: NDArray[np.float32], targets: NDArray[np.bool_], task: Task) -> Calibrated:
    """Fits the temperature, and for several labels chooses their thresholds.

    Args:
        logits: float32 `[N, K]` of validation pictures.
        targets: bool `[N, K]`.
        task: Softmax or sigmoid.

    Returns:
        The errors in it are cross-fitted: each half is measured with the temperature of the other.
    """
    temperature = fit_temperature(logits, targets, task)
    before = reliability(scores_of(logits, task), targets, task).error
    halves = (slice(0, None, 2), slice(1, None, 2))
    crossed = np.empty_like(logits)
    for fitted, measured in (halves, halves[::-1]):
        crossed[measured] = scores_of(logits[measured], task, fit_temperature(logits[fitted], targets[fitted], task))
    after = reliability(crossed, targets, task).error
    if after >= before:
        temperature, after = 1.0, before
    calibration = Calibration(temperature=temperature, ece_before=before, ece=after)
    if task == "single_label":
        return Calibrated(calibration, Thresholds())
    return Calibrated(calibration, Thresholds(labels=label_thresholds(scores_of(logits, task, temperature), targets)))


def with_unknown(
    calibrated: Calibrated, rows: NDArray[np.float32], targets: NDArray[np.bool_], coverage: float
) -> Calibrated:
    """Chooses the `unknown` threshold of a single-label classifier too, and measures what it keeps.

    Args:
        calibrated: What is known already.
        rows: What the classifier answers to validation pictures: float32 `[N, K]` scores, or with the familiarity
            behind them `[N, K + 1]`, whose threshold it is then.
        targets: bool `[N, K]`.
        coverage: Share of validation pictures that keep an answer, above 0 and at most 1.

    Raises:
        ValueError: It is not.
    """
    scores, familiarity = parted(rows, targets.shape[1])
    measured = unknown_measure(rows, targets.shape[1])
    threshold = unknown_threshold(measured, coverage)
    kept = measured >= threshold
    figures = {
        "unknown_coverage": float(kept.mean()),
        "unknown_accuracy": accuracy(scores[kept], targets[kept], "single_label"),
    }
    by: Literal["score", "familiarity"] = "score" if familiarity is None else "familiarity"
    return Calibrated(calibrated.calibration.model_copy(update=figures), Thresholds(unknown=threshold, unknown_by=by))


def unknown_measure(rows: NDArray[np.float32], label_count: int) -> NDArray[np.float32]:
    """float32 `[N]`: what the `unknown` threshold is compared with, the familiarity or else the best score."""
    scores, familiarity = parted(rows, label_count)
    best: NDArray[np.float32] = scores.max(axis=1)
    return best if familiarity is None else familiarity


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.bool_], task: Task) -> float:
    """The temperature with the smallest negative log-likelihood.

    The targets are softened as Platt did (1999): of N answers one more counts as wrong. Without it a network that
    makes no mistake on the few pictures at hand would be told to be infinitely certain.
    """
    result = minimize_scalar(
        lambda exponent: negative_log_likelihood(scores_of(logits, task, float(np.exp(exponent))), targets, task),
        bounds=tuple(np.log(TEMPERATURES)),
        method="bounded",
    )
    return float(np.exp(result.x))


def negative_log_likelihood(scores: NDArray[np.float32], targets: NDArray[np.bool_], task: Task) -> float:
    """Of softened targets, in nats: mean over pictures, for several labels over pictures and labels."""
    tiny, doubt = 1e-12, 1.0 / (len(scores) + 2)
    right = np.log(np.clip(scores.astype(np.float64), tiny, 1.0))
    if task == "single_label":
        softened = np.where(targets, 1.0 - doubt, doubt / (scores.shape[1] - 1))
        return float(-(softened * right).sum(axis=1).mean())
    wrong = np.log(np.clip(1.0 - scores.astype(np.float64), tiny, 1.0))
    softened = np.where(targets, 1.0 - doubt, doubt)
    return float(-(softened * right + (1.0 - softened) * wrong).mean())


def unknown_threshold(measured: NDArray[np.float32], coverage: float) -> float:
    """The largest threshold that at least the share `coverage` of the values `[N]` reaches.

    Raises:
        ValueError: The coverage is not above 0 and at most 1.
    """
    if not 0.0 < coverage <= 1.0:
        raise ValueError(f"coverage {coverage} must be above 0 and at most 1")
    falling = np.sort(measured)[::-1]
    return float(falling[max(int(np.ceil(coverage * len(falling) - 1e-9)), 1) - 1])


def label_thresholds(scores: NDArray[np.float32], targets: NDArray[np.bool_]) -> tuple[float, ...]:
    """Per label the threshold with the best F1; 0.5 for labels with few examples."""
    thresholds = []
    for label in range(scores.shape[1]):
        truth = targets[:, label]
        if not MIN_POSITIVES <= truth.sum() <= len(truth) - MIN_POSITIVES:
            thresholds.append(0.5)
            continue
        precision, recall, candidates = precision_recall_curve(truth, scores[:, label])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds.append(float(candidates[int(f1[:-1].argmax())]))
    return tuple(thresholds)
