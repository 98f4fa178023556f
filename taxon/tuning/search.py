"""The search: one setting at a time, then the best together, then fewer and fewer with more and more measurements.

Coordinate search to begin with and successive halving (Jamieson, Talwalkar 2016) to decide. In each round every
candidate is measured once, in turns, so that what the machine does meanwhile touches all alike. The default is in every
round, and stays unless another has beaten it by more than chance and noise would. Pure but for the measuring.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from taxon.tuning.settings import Tried, combined

HALVING = 4
FINAL_ROUNDS = 3
WORTH = 1.03
"""How many times as good as the default the best must be: the rate is found to 3 %."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate, measured once."""

    tried: Tried
    stage: str
    """`screen`, `halving`, `final` or `prediction`."""
    rate: float
    """Calls per second at which the objective was kept; 0 at none."""
    saturated: float
    """Answers per second in a closed loop."""
    p99_ms: float | None
    """At that rate."""
    variant: str = ""
    """That the server chose, or was told; empty if none came up."""


@dataclass(slots=True)
class Found:
    """What the search has come to."""

    chosen: Tried
    default: Tried
    gain: float | None
    """Median ratio of the best rate to the default's, paired by rounds; 1 if the default is the best; None if the
    default keeps the objective at no rate.
    """
    rate: float = 0.0
    """What is predicted: the median of measurements that had no part in the choice."""
    measured: list[Measured] = field(default_factory=list)


Measure = Callable[[Tried, str, bool], Measured]
"""Candidate, stage, whether to take the time for precision."""


def search(default: Tried, others: Iterable[Tried], measure: Measure) -> Found:
    """Looks for the candidate with the highest rate.

    Args:
        default: What is served if nobody says anything.
        others: Each differs from it in one setting.
        measure: Measures a candidate once.
    """
    found = Found(default, default, 1.0)
    singles = [*others]
    screened = _rounds([default, *singles], 1, "screen", measure, found, precise=False)
    better = {tried: rates[0] for tried, rates in screened.items() if rates[0] > screened[default][0]}
    ranked = sorted(singles, key=lambda tried: screened[tried][0], reverse=True)
    rivals = [*dict.fromkeys([combined(default, better), *ranked])]
    rivals = [tried for tried in rivals if tried != default][: HALVING - 1]
    if len(rivals) > 1:
        halved = _rounds([default, *rivals], 2, "halving", measure, found, precise=False)
        rivals = sorted(rivals, key=lambda tried: statistics.median(halved[tried]), reverse=True)[:1]
    if rivals:
        final = _rounds([default, *rivals], FINAL_ROUNDS, "final", measure, found, precise=True)
        found.chosen, found.gain = _decide(default, rivals[0], final[default], final[rivals[0]])
    told = _rounds([found.chosen], FINAL_ROUNDS, "prediction", measure, found, precise=True)
    found.rate = statistics.median(told[found.chosen])
    return found


def _decide(default: Tried, rival: Tried, usual: Sequence[float], rates: Sequence[float]) -> tuple[Tried, float | None]:
    """The rival, if it is worth it in the middle round and no worse in any; else the default."""
    if not statistics.median(usual):
        return (rival, None) if statistics.median(rates) else (default, 1.0)
    ratios = [rate / before if before else math.inf for rate, before in zip(rates, usual, strict=True)]
    gain = statistics.median(ratios)
    return (rival, gain) if gain >= WORTH and min(ratios) >= 1.0 else (default, 1.0)


def _rounds(
    candidates: Sequence[Tried], count: int, stage: str, measure: Measure, found: Found, *, precise: bool
) -> dict[Tried, list[float]]:
    """Measures all in turns, every second round from behind; returns each one's rates by round."""
    rates: dict[Tried, list[float]] = {tried: [] for tried in candidates}
    for number in range(count):
        for tried in candidates if number % 2 == 0 else reversed(candidates):
            seen = measure(tried, stage, precise)
            found.measured.append(seen)
            rates[tried].append(seen.rate)
    return rates
