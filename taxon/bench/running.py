"""Runs of the generator against one server."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from taxon.bench import figures, load
from taxon.bench.capacity import Capacity, Probe, capacity
from taxon.bench.figures import Figures
from taxon.bench.http2 import Target
from taxon.bench.load import Plan

MANY_CALLERS = 64
SHORTEST_DEADLINE_S = 1.0


@dataclass(frozen=True, slots=True)
class Runs:
    """What to send where, and for how long each time."""

    target: Target
    bodies: Sequence[bytes]
    """As they go over the wire."""
    plan: Plan
    """Without callers or rate."""

    def closed(self, callers: int) -> Figures:
        """A closed loop. Whoever waits for an answer in it waits long."""
        patient = replace(self.plan, callers=callers, deadline_s=max(10.0, self.plan.deadline_s))
        return figures.figures(load.run(self.target, self.bodies, patient))

    def open(self, rate: float) -> Figures:
        """An open loop."""
        return figures.figures(load.run(self.target, self.bodies, replace(self.plan, rate=rate)))

    def within(self, rate: float, seconds: float) -> Probe:
        """An open loop, judged by the share that was answered in so many seconds."""
        deadline_s = max(SHORTEST_DEADLINE_S, 2 * seconds)
        outcome = load.run(self.target, self.bodies, replace(self.plan, rate=rate, deadline_s=deadline_s))
        told = figures.figures(outcome)
        return Probe(round(rate, 1), told["offered_per_s"], round(figures.within(outcome, seconds), 4), told["p99_ms"])

    def capacity(self, p99_s: float) -> Capacity:
        """The highest rate at which 99 % are answered within `p99_s` seconds."""
        return capacity(self.closed(MANY_CALLERS)["answered_per_s"], lambda rate: self.within(rate, p99_s))
