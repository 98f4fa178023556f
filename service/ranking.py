"""Scores → the classes worth naming, and whether to believe them. Pure; knows tasks and thresholds, not how scores
come about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taxon.bundle import answers

DEFAULT_MAX_RESULTS = 5
# The usual threshold of a sigmoid, for a multi-label bundle that has measured none.
DEFAULT_LABEL_THRESHOLD = 0.5
# Up to so many results are looked for one by one.
FEW = 10


class Ranked(NamedTuple):
    """The classes that reached the lowest score, best first."""

    indexes: list[int]
    scores: list[float]
    unknown: bool
    """Whether a single-label model's best score, or its familiarity if it judges that, is below `unknown`."""
    familiarity: float | None = None
    """How much the input is like those of training, in `[0, 1]`; None if the model does not judge it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one model's scores mean."""

    task: Literal["single_label", "multi_label"]
    unknown_threshold: float | None
    label_thresholds: Sequence[float] | None
    label_count: int

    def rank(self, row: NDArray[np.float32], max_results: int, min_score: float | None) -> Ranked:
        """Orders the classes of one input; of equal scores the lower index comes first.

        Args:
            row: The model's `answers` for it, each finite and in `[0, 1]`.
            max_results: The largest number of classes to return; 0 means `DEFAULT_MAX_RESULTS`.
            min_score: The lowest score to return. None means every score for a single-label model and each
                label's own threshold for a multi-label one.
        """
        scores, judged = answers.parted(row, self.label_count)
        familiarity = None if judged is None else float(judged)
        count = max_results or DEFAULT_MAX_RESULTS
        if self.task == "single_label":
            best = _best(scores, count)
            values: list[float] = scores[best].tolist()
            measured = values[0] if familiarity is None else familiarity
            unknown = self.unknown_threshold is not None and measured < self.unknown_threshold
            # Compared as float32: a caller's 0.3 must let a score of float32(0.3) pass.
            passed = count if min_score is None else sum(value >= float(np.float32(min_score)) for value in values)
            return Ranked(best[:passed], values[:passed], unknown, familiarity)
        lowest = min_score if min_score is not None else self.label_thresholds or DEFAULT_LABEL_THRESHOLD
        order = np.argsort(-scores, kind="stable")
        reached = order[(scores >= np.asarray(lowest, dtype=np.float32))[order]][:count]
        return Ranked(reached.tolist(), scores[reached].tolist(), False)


def _best(scores: NDArray[np.float32], count: int) -> list[int]:
    """The indexes of the `count` best scores, best first. Every call pays this: looking for the best one a few times
    takes a third of the time of sorting a thousand classes.
    """
    if count > FEW:
        order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
        return order
    left, best = scores.copy(), []
    for _ in range(min(count, len(scores))):
        index = int(left.argmax())  # of equal ones the first
        best.append(index)
        left[index] = -1.0
    return best
