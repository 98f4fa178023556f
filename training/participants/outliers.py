"""Which contributions do not fit among the others: copies, far larger updates, updates in the opposite direction.

A server that averages is at the mercy of one participant whose update is large enough (Blanchard et al., "Machine
learning with adversaries", NeurIPS 2017). Norms are bounded by a multiple of the median of the others' (a threshold on
norms: Sun et al., "Can you really backdoor federated learning?", 2019); directions by the cosine with the others' mean
direction, below zero of no use as in FLTrust (Cao et al., NDSS 2021), which asks a trusted update instead. Both hold
while fewer than half of the participants are in league: where most leave something as it was, such as the statistics
of batch normalisation, nobody may change it, for those who do could all be in league. A small update in a common
direction passes: that takes held-out data, see `gain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from taxon.training.participants.contributions import Contribution


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed."""

    largest_norm: float = 5.0
    """Of an update, in medians of the others' norms. Honest ones differ as their steps do: by the root of the count of
    samples, or with very different class mixes by twice that.
    """
    least_cosine: float = 0.0
    """Of an update with the mean direction of the others; -1 allows all."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one contribution."""

    contribution: Contribution
    norm: float
    """Of its update."""
    cosine: float | None = None
    """With the mean direction of the others that are left; None if there are none."""
    reason: str = field(default="")
    """Why it is refused; empty if it is not."""


def judge(contributions: Sequence[Contribution], rules: Rules = Rules()) -> list[Verdict]:
    """A verdict on each, in their order. Sizes are judged first: one that is too large has no say about directions."""
    verdicts = [
        Verdict(one, float(one.update.norm()), reason=_copy(index, contributions) or _size(index, contributions, rules))
        for index, one in enumerate(contributions)
    ]
    left = [verdict.contribution for verdict in verdicts if not verdict.reason]
    directions = {id(one): one.update / one.update.norm().clamp(min=1e-300) for one in left}
    total = sum(directions.values(), torch.zeros(1, dtype=torch.float64))
    judged = []
    for verdict in verdicts:
        own = directions.get(id(verdict.contribution))
        if own is not None and len(left) > 1:
            cosine = _cosine(own, total - own)
            reason = ""
            if cosine < rules.least_cosine:
                reason = (
                    f"its update goes against the others': the cosine with their mean direction is {cosine:.2f}, at "
                    f"least {rules.least_cosine:g} is needed"
                )
            verdict = replace(verdict, cosine=cosine, reason=reason)
        judged.append(verdict)
    return judged


def _copy(index: int, contributions: Sequence[Contribution]) -> str:
    one = contributions[index]
    for earlier in contributions[:index]:
        if torch.equal(one.update, earlier.update) and torch.equal(one.shift, earlier.shift):
            return f"it is a copy of {earlier.name}"
    return ""


def _size(index: int, contributions: Sequence[Contribution], rules: Rules) -> str:
    for part, what in (("update", "update"), ("shift", "shift of batch statistics")):
        others = [float(getattr(c, part).norm()) for n, c in enumerate(contributions) if n != index]
        own = float(getattr(contributions[index], part).norm())
        usual = float(torch.tensor(others, dtype=torch.float64).quantile(0.5)) if others else own
        if own > rules.largest_norm * usual:
            if usual == 0:
                return f"its {what} has the norm {own:.3g}, and most of the others have none"
            return f"its {what} has the norm {own:.3g}, {own / usual:.3g} times the others' median of {usual:.3g}"
    return ""


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(first @ second / (first.norm() * second.norm()).clamp(min=1e-300))
