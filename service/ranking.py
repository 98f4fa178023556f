"""Scores → the classes worth naming. Pure; knows tasks and thresholds, not how scores come about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DEFAULT_MAX_RESULTS = 5
# The usual threshold of a sigmoid, for a multi-label bundle that has measured none.
DEFAULT_LABEL_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Ranked:
    """The classes that reached the lowest score, best first."""

    indexes: list[int]
    scores: list[float]
    unknown: bool
    """Whether the best score of a single-label model is below its `unknown` threshold."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one model's scores mean."""

    task: Literal["single_label", "multi_label"]
    unknown_threshold: float | None
    label_thresholds: Sequence[float] | None

    def rank(self, scores: NDArray[np.float32], max_results: int, min_score: float | None) -> Ranked:
        """Orders the classes of one input; of equal scores the lower index comes first.

        Args:
            scores: float32 `[classes]`, each finite and in `[0, 1]`.
            max_results: The largest number of classes to return; 0 means `DEFAULT_MAX_RESULTS`.
            min_score: The lowest score to return. None means every score for a single-label model and each
                label's own threshold for a multi-label one.
        """
        count = max_results or DEFAULT_MAX_RESULTS
        order = _best(scores, count) if self.task == "single_label" else np.argsort(-scores, kind="stable")
        unknown = False
        if self.task == "single_label":
            unknown = self.unknown_threshold is not None and float(scores[order[0]]) < self.unknown_threshold
            lowest: NDArray[np.float32] | float = 0.0 if min_score is None else min_score
        elif min_score is not None:
            lowest = min_score
        else:
            lowest = np.asarray(self.label_thresholds or DEFAULT_LABEL_THRESHOLD, dtype=np.float32)
        # Compared as float32: a caller's 0.3 must let a score of float32(0.3) pass.
        passed = (scores >= np.asarray(lowest, dtype=np.float32))[order]
        best = order[passed][:count]
        return Ranked(best.tolist(), scores[best].tolist(), unknown)


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The indexes of at least the `count` best scores, best first: sorting all of a thousand classes takes several
    times as long as finding the few that are asked for.
    """
    if count >= len(scores):
        return np.argsort(-scores, kind="stable")
    lowest = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= lowest)  # ascending, so that a stable sort keeps the lower index first
    return candidates[np.argsort(-scores[candidates], kind="stable")]
