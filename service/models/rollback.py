"""Whether a canary goes on: its last calls are compared with the default's of the same time. One for all fronts."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from taxon.bundle.traffic import Bounds
from taxon.service.models.repository import Repository
from taxon.service.models.routing import MOST_DEATHS, Seen

QUANTILE = 0.9
SLACK_S = 0.005
"""Answers that come later by less are not slow, whatever the ratio."""
LEAST_COMPARED = 20
"""Of fewer answers of the default the 90th percentile says nothing."""
FAILURES = "error", "nan", "fatal"
LOOKS = 50
"""So often within a window the latencies are looked at, which must be sorted for it."""


@dataclass(slots=True)
class Calls:
    """The last calls of one version."""

    number: int = 0
    """Of the model."""
    seen: deque[tuple[float, Seen]] = field(default_factory=deque)
    """Each with its time, oldest first."""
    counts: dict[str, int] = field(default_factory=lambda: {"answer": 0, "error": 0, "nan": 0, "fatal": 0})
    whole_count: int = 0
    """Of all calls, also those that have been forgotten."""

    def add(self, now: float, seen: Seen, most: int) -> None:
        """Counts one call; the oldest of more than `most` is forgotten."""
        self.seen.append((now, seen))
        self.counts[seen.outcome] += 1
        self.whole_count += 1
        while len(self.seen) > most:
            self.drop()

    def drop(self) -> None:
        """Forgets the oldest call."""
        _, seen = self.seen.popleft()
        self.counts[seen.outcome] -= 1

    def share(self, *outcomes: str) -> float:
        """The share of calls that ended so."""
        return sum(self.counts[outcome] for outcome in outcomes) / max(1, len(self.seen))

    def latency_s(self) -> float:
        """The 90th percentile of answers, by the nearest rank."""
        times = sorted(seen.seconds for _, seen in self.seen if seen.outcome == "answer")
        return times[min(len(times) - 1, int(QUANTILE * len(times)))]


class Rollback:
    """The judge of all canaries of a server. Lives on the event loop."""

    def __init__(
        self,
        repository: Repository,
        count: Callable[[str, int], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Has seen nothing yet.

        Args:
            repository: Told when a canary is rolled back.
            count: Told name and version of each that is.
            clock: In seconds.
        """
        self._repository = repository
        self._count = count
        self._clock = clock
        self._canaries: dict[str, Calls] = {}
        self._defaults: dict[str, Calls] = {}

    def take(self, seen: Seen) -> None:
        """Takes in what became of one call; those of versions that have ended are passed over."""
        known, name = self._repository.known, seen.name
        trial = known.trials.get((name, "canary"))
        default = known.models.get(name, {}).get(known.defaults.get(name, 0))
        declared = known.traffic[name].canary if name in known.traffic else None
        if declared is None or trial is None or trial.state != "RUNNING" or default is None:
            self._canaries.pop(name, None)
            self._defaults.pop(name, None)
            return
        number = known.models[name][trial.version].number
        canary, usual = self._canaries.get(name), self._defaults.get(name)
        if canary is None or usual is None or (canary.number, usual.number) != (number, default.number):
            canary = self._canaries[name] = Calls(number)
            usual = self._defaults[name] = Calls(default.number)
        now = self._clock()
        if seen.number == usual.number:
            usual.add(now, seen, declared.bounds.window)
        elif seen.number == canary.number:
            canary.add(now, seen, declared.bounds.window)
            while usual.seen and usual.seen[0][0] < canary.seen[0][0]:
                usual.drop()
            if reason := broken(declared.bounds, canary, usual):
                del self._canaries[name], self._defaults[name]
                self._count(name, trial.version)
                self._repository.roll_back(name, reason)


def broken(bounds: Bounds, canary: Calls, default: Calls) -> str:
    """Which bound a canary breaks, with the figures; empty if none."""
    count, deaths = len(canary.seen), canary.counts["fatal"]
    if deaths >= MOST_DEATHS and deaths > 2 * default.counts["fatal"]:  # each takes a worker from all other models
        return f"{deaths} of its last {count} calls ended their worker, of the default's {default.counts['fatal']}"
    if count < bounds.min_calls:
        return ""
    of = f"of its last {count} calls"
    nans, usual = canary.share("nan"), default.share("nan")
    if nans - usual > bounds.max_nan_increase:
        return f"{nans:.1%} {of} gave scores that are not numbers, the default's {usual:.1%}"
    errors, usual = canary.share(*FAILURES), default.share(*FAILURES)
    if errors - usual > bounds.max_error_increase:
        return f"{errors:.1%} {of} failed, the default's {usual:.1%}"
    if canary.counts["answer"] < bounds.min_calls or default.counts["answer"] < LEAST_COMPARED:
        return ""
    if canary.whole_count % (-(-bounds.window // LOOKS)):
        return ""
    slow_s, usual_s = canary.latency_s(), default.latency_s()
    if slow_s > bounds.max_latency_ratio * usual_s + SLACK_S:
        return f"a tenth {of} took {slow_s * 1e3:.1f} ms or more, the default's {usual_s * 1e3:.1f} ms"
    return ""
