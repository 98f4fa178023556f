"""What chance explains: of a share, and of what two classifiers answer to the same samples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

CONFIDENCE = 0.95


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, Journal of the American Statistical Association 22, 1927); (0, 1) of
    nothing.
    """
    if not count:
        return 0.0, 1.0
    found = binomtest(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def changed(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[int, int]:
    """(gained, lost): samples that only the second classifier answers rightly, and that only the first one does.

    Args:
        before: bool `[N]`, whether the first one is right.
        after: bool `[N]`, whether the second one is.
    """
    return int((after & ~before).sum()), int((before & ~after).sum())


def change_p_value(gained: int, lost: int) -> float:
    """How often chance alone would give so uneven a split: two-sided and exact (McNemar, Psychometrika, 1947)."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def loss_p_value(gained: int, lost: int) -> float:
    """How often chance alone would lose so many more than it gains: one-sided, else the same."""
    return float(binomtest(lost, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Ascending p-values, corrected so that not even one of many true hypotheses is rejected more often than one alone
    would be (Holm, Scandinavian Journal of Statistics, 1979); in the same order, at most 1.
    """
    corrected, largest = [], 0.0
    for place, p_value in enumerate(p_values):
        largest = max(largest, min(1.0, p_value * (len(p_values) - place)))
        corrected.append(largest)
    return corrected
