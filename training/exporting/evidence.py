"""Does a lighter graph lose no more accuracy than its budget, on pictures that nobody has seen?

The budget is a promise about those, so what must stay within it is not the loss that happens to show on the validation
pictures but a bound of it: paired, one-sided, with a stated confidence. Pure arithmetic on scores.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import beta, norm

from taxon.bundle.manifest import Evidence
from taxon.training.config import Task
from taxon.training.loop import metrics
from taxon.training.loop.significance import changed

CONFIDENCE = 0.95
BUDGET = 0.01
SMALLEST_SCORE = 1e-12
MOST_PICTURES = 10_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What a lighter graph may lose."""

    loss: float = BUDGET
    """Accuracy, in 0…1."""
    judged_by: Literal["bound", "estimate"] = "bound"
    """What must not exceed it: what the graph loses at most, with 95 % confidence; or what it loses on the validation
    pictures, which says little of others if they are few.
    """


def seen(
    reference: NDArray[np.float32], scores: NDArray[np.float32], truth: NDArray[np.bool_], task: Task, budget: Budget
) -> Evidence:
    """Compares a lighter graph with the fp32 one.

    Args:
        reference: float32 `[N, K]`, scores in fp32.
        scores: float32 `[N, K]`, of the lighter one on the same pictures.
        truth: bool `[N, K]`.
        task: See `metrics`.
        budget: What it may lose.
    """
    before, after = (metrics.right(given, truth, task) for given in (reference, scores))
    gained, lost = changed(before, after)
    same = (metrics.chosen(reference, task) == metrics.chosen(scores, task)).all(axis=1)
    return Evidence(
        picture_count=len(truth),
        lost=lost,
        gained=gained,
        loss_bound=loss_bound(lost, gained, len(truth)),
        confidence=CONFIDENCE,
        budget=budget.loss,
        judged_by=budget.judged_by,
        agreement=float(same.mean()),
        divergence=divergence(reference, scores, task),
    )


def loss_bound(lost: float, gained: float, count: float) -> float:
    """The largest loss of accuracy, in -1…1, that the counts do not contradict with 95 % confidence, one-sided.

    The larger of two bounds: the score bound of a difference of paired proportions (Tango, Statistics in Medicine 17,
    1998), and the exact one (Clopper and Pearson, Biometrika 26, 1934) of the net loss as if nothing had been gained,
    since the first alone is too hopeful where next to nothing changes. Summed over all outcomes, at most 5.2 % of the
    graphs that lose more than their budget stay within it, whatever share of pictures changes.

    Args:
        lost: Pictures that only the fp32 graph answers rightly.
        gained: Pictures that only the lighter one does.
        count: All pictures. All three may be fractions, of pictures to come.
    """
    net = lost - gained
    if net >= count:
        return 1.0
    quantile = float(norm.ppf(CONFIDENCE))

    def excess(loss: float) -> float:
        return _score(lost, gained, count, loss) + quantile

    by_score = float(brentq(excess, net / count + 1e-12, 1.0 - 1e-12))
    kept = max(net, 0)
    return max(by_score, float(beta.ppf(CONFIDENCE, kept + 1, count - kept)))


def _score(lost: float, gained: float, count: float, loss: float) -> float:
    """Tango's statistic: how many standard deviations the counts lie above a true loss."""
    linear = (2 * count - lost + gained) * loss - lost - gained
    constant = -gained * loss * (1 - loss)
    share_gained = (math.sqrt(max(linear**2 - 8 * count * constant, 0.0)) - linear) / (4 * count)
    variance = count * (2 * share_gained + loss * (1 - loss))
    return (lost - gained - count * loss) / math.sqrt(variance)


def pictures_needed(evidence: Evidence) -> int | None:
    """How many pictures would show the budget to be kept, if as large a share of them were lost and gained; None if
    `MOST_PICTURES` would not.
    """
    lost, gained = (count / evidence.picture_count for count in (evidence.lost, evidence.gained))

    def suffice(count: int) -> bool:
        return loss_bound(lost * count, gained * count, count) <= evidence.budget

    if not suffice(MOST_PICTURES):
        return None
    low, high = 1, MOST_PICTURES
    while low < high:
        middle = (low + high) // 2
        if suffice(middle):
            high = middle
        else:
            low = middle + 1
    return low


def fewest_pictures(budget: float) -> int:
    """How many pictures show a budget to be kept if none of them is lost."""
    return math.ceil(math.log1p(-CONFIDENCE) / math.log1p(-budget))


def divergence(reference: NDArray[np.float32], scores: NDArray[np.float32], task: Task) -> float:
    """The mean Kullback-Leibler divergence of scores from the reference, in nats; for several labels the sum over all
    of them. It tells two graphs apart on fewer pictures than their answers do.
    """
    before, after = (np.clip(given.astype(np.float64), SMALLEST_SCORE, 1.0) for given in (reference, scores))
    total = rel_entr(before, after).sum(axis=1)
    if task == "multi_label":
        total += rel_entr(*(np.clip(1.0 - given, SMALLEST_SCORE, 1.0) for given in (before, after))).sum(axis=1)
    return max(0.0, float(total.mean()))  # single labels: float32 scores need not sum to 1


def fault(evidence: Evidence) -> str:
    """Why the graph must not be published; empty if it keeps its budget."""
    loss = (evidence.lost - evidence.gained) / evidence.picture_count
    allowed = f"a loss of {evidence.budget:.2%} is allowed"
    if loss > evidence.budget:
        return f"{sentence(evidence)}; {allowed}"
    if evidence.judged_by == "estimate" or evidence.loss_bound <= evidence.budget:
        return ""
    needed = pictures_needed(evidence)
    more = "" if needed is None else f" about {_rounded(needed)} such pictures would,"
    return (
        f"{sentence(evidence)}; {allowed}, and {evidence.picture_count} validation pictures do not show it:{more} "
        "or --judge-by estimate publishes it for what it loses on these"
    )


def sentence(evidence: Evidence) -> str:
    """What was seen, in one clause."""
    loss = (evidence.lost - evidence.gained) / evidence.picture_count
    return (
        f"it {'gains' if loss < 0 else 'loses'} {abs(loss):.2%} of {evidence.picture_count:,} pictures "
        f"({evidence.lost} lost, {evidence.gained} gained), with {evidence.confidence:.0%} confidence at most "
        f"{evidence.loss_bound:.2%}, and answers {evidence.agreement:.2%} as fp32 does "
        f"(divergence {evidence.divergence:.2g} nats)"
    )


def _rounded(count: int) -> str:
    """To two digits, upwards; small numbers as they are."""
    step = 10 ** max(0, len(str(count)) - 2) if count >= 1000 else 1
    return f"{-(-count // step) * step:,}"
