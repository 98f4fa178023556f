"""Two classifiers on the same samples: is one worse than chance explains?"""

from collections.abc import Sequence

from scipy.stats import binomtest


def loss_p_value(gained: int, lost: int) -> float:
    """How often chance alone would lose so many more than it gains: one-sided and exact (McNemar, Psychometrika, 1947).

    Args:
        gained: Samples that only the second classifier answers rightly.
        lost: Samples that only the first one does.
    """
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
