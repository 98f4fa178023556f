"""One line for every call that was refused or failed, and for a sample of the others; bounded, whatever comes in."""

import random
import time
from collections.abc import Callable

import structlog

MOST_LINES_S = 50
"""Of each kind, in each process that speaks gRPC: under overload most calls are refused, and all would be logged."""

log = structlog.get_logger("taxon.access")


class Rate:
    """So many a second, on average, and no more than a second's worth at once."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = per_second
        self._seen_at = clock()
        self._missed = 0

    def take(self) -> bool:
        """Whether there may be one more now."""
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._seen_at) * self._per_second)
        self._seen_at = now
        if self._left < 1:
            self._missed += 1
            return False
        self._left -= 1
        return True

    def missed(self) -> int:
        """How many there could not be since the last time that this was asked."""
        missed, self._missed = self._missed, 0
        return missed


class AccessLog:
    """What one process tells of its calls. A line says who called what and what came of it; nothing of what was sent,
    and no address.
    """

    def __init__(self, sample: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Writes nothing yet.

        Args:
            sample: Share of the answered calls that get a line, 0 to 1.
            clock: In seconds.
        """
        self._sample = sample
        self._answered, self._failed = Rate(MOST_LINES_S, clock), Rate(MOST_LINES_S, clock)

    def wants_answered(self) -> bool:
        """Whether the next answered call gets a line."""
        return self._sample > 0 and random.random() < self._sample and self._answered.take()  # noqa: S311 - no secret

    def wants_failed(self) -> bool:
        """Whether the next other call gets a line."""
        return self._failed.take()

    def write(self, code: str, **facts: object) -> None:
        """Writes the line of a call that was wanted.

        Args:
            code: Name of the gRPC status.
            facts: Those that are empty are left out.
        """
        missed = (self._answered if code == "OK" else self._failed).missed()
        told = {name: fact for name, fact in {**facts, "lines_left_out": missed}.items() if fact}
        log.info("call", code=code, **told)
