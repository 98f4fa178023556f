"""Counters that a server gives, looked at again and again → what happens in a second."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from taxon.inference.open_inference_service_pb2 import ModelStatistics

SPAN_S = 30.0
"""Rates are of the last seconds, so many at most."""
LEAST_S = 0.5
"""Of less, no rate is told."""

Counts = dict[tuple[str, str], ModelStatistics]


@dataclass(frozen=True, slots=True)
class Rate:
    """What one version does."""

    model: str
    version: str
    answered: int
    """Since it was loaded."""
    answers_per_s: float | None
    """None here and below: nothing is known yet, or nothing happened."""
    failures_per_s: float | None
    mean_ms: float | None
    """From arrival to answer."""
    mean_batch: float | None


class Rates:
    """Compares what counters say now with what they said up to half a minute ago."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Counts]] = deque()

    def look(self, now: float, statistics: Sequence[ModelStatistics]) -> tuple[list[Rate], float]:
        """Takes what the server says.

        Args:
            now: Seconds of a monotonic clock.
            statistics: As `ModelStatistics` gives them.

        Returns:
            A rate for each version, and how many seconds they are of; 0 if there is none yet.
        """
        counts = {(one.name, one.version): one for one in statistics}
        if self._seen and _restarted(self._seen[-1][1], counts):
            self._seen.clear()
        while self._seen and now - self._seen[0][0] > SPAN_S:
            self._seen.popleft()
        since, before = self._seen[0] if self._seen else (now, {})
        if not self._seen or now - self._seen[-1][0] >= LEAST_S:
            self._seen.append((now, counts))
        span = now - since
        if span < LEAST_S:
            return [_rate(one, None, 0.0) for one in statistics], 0.0
        return [_rate(one, before.get((one.name, one.version), ModelStatistics()), span) for one in statistics], span


def _restarted(before: Counts, now: Counts) -> bool:
    return any(
        key in now and now[key].inference_stats.success.count < one.inference_stats.success.count
        for key, one in before.items()
    )


def _rate(now: ModelStatistics, before: ModelStatistics | None, span: float) -> Rate:
    answered = now.inference_stats.success.count
    if before is None:
        return Rate(now.name, now.version, answered, None, None, None, None)
    new, old = now.inference_stats, before.inference_stats
    answers = new.success.count - old.success.count
    runs = now.execution_count - before.execution_count
    return Rate(
        model=now.name,
        version=now.version,
        answered=answered,
        answers_per_s=answers / span,
        failures_per_s=(new.fail.count - old.fail.count) / span,
        mean_ms=(new.success.ns - old.success.ns) / answers / 1e6 if answers else None,
        mean_batch=(now.inference_count - before.inference_count) / runs if runs else None,
    )
