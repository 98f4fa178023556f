"""The highest rate at which a server keeps a promise about latency, by bisection. Pure but for the measuring."""

from collections.abc import Callable
from dataclasses import dataclass, field

SHARE = 0.99
FIRST = 0.75
MOST = 1.05
RESOLUTION = 0.03
"""Of the saturated rate."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One open loop."""

    rate: float
    """Asked for, in calls per second."""
    offered: float
    """That came of it: arrivals are chance."""
    within: float
    """Share of all calls that were answered in time; failed ones were not."""
    p99_ms: float | None
    """Of those that were answered."""


@dataclass(slots=True)
class Capacity:
    """What was found."""

    saturated: float
    """Answers per second in a closed loop of many callers."""
    rate: float = 0.0
    """The highest offered rate at which 99 % of the calls were answered in time; 0 if there was none."""
    p99_ms: float | None = None
    """At that rate."""
    probes: list[Probe] = field(default_factory=list)


def capacity(saturated: float, probe: Callable[[float], Probe]) -> Capacity:
    """Looks for the rate.

    A rate that seems too high is tried once more before it counts as such: what else a machine does only ever adds to
    latencies.

    Args:
        saturated: Answers per second in a closed loop: the rate is looked for up to 5 % above it, to 3 % of it.
        probe: Measures an open loop at a rate.
    """
    found = Capacity(saturated)
    low, high, rate = 0.0, MOST * saturated, FIRST * saturated
    while high - low > RESOLUTION * saturated:
        for _ in range(2):
            seen = probe(rate)
            found.probes.append(seen)
            if holds := seen.within >= SHARE:
                break
        if holds:
            low, found.rate, found.p99_ms = rate, seen.offered, seen.p99_ms
        else:
            high = rate
        rate = (low + high) / 2
    return found
