"""How much a caller has under way, and how fast its calls come. Pure rules: the time is given."""

from dataclasses import dataclass

from taxon.service.access.callers import Caller
from taxon.service.errors import CallerLimitError

# When one of a caller's calls ends is not known: it may ask again so soon.
CALLS_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Of callers for whom the file says nothing else. None: as much as they like."""

    max_concurrent_calls: int | None = None
    max_calls_per_second: float | None = None


class Usage:
    """What one caller does now."""

    __slots__ = ("_at", "_tokens", "caller", "max_concurrent_calls", "max_per_second", "under_way_count")

    def __init__(self, caller: Caller, limits: CallerLimits) -> None:
        """Nothing is under way."""
        self.under_way_count = 0
        self._tokens = 1.0
        self._at = float("-inf")
        self.allow(caller, limits)

    def allow(self, caller: Caller, limits: CallerLimits) -> None:
        """Takes over what the file says now."""
        self.caller = caller
        self.max_concurrent_calls = caller.max_concurrent_calls or limits.max_concurrent_calls
        self.max_per_second = caller.max_calls_per_second or limits.max_calls_per_second

    def take(self, now: float) -> None:
        """Counts a call that comes.

        Raises:
            CallerLimitError: It is one too many.
        """
        self.check_room()
        rate = self.max_per_second
        if rate is None:
            return
        burst = max(1.0, rate)
        self._tokens = min(burst, self._tokens + (now - self._at) * rate)
        self._at = now
        if self._tokens < 1.0:
            raise CallerLimitError(
                f"{self.caller.name} may make {rate:g} calls a second",
                (1.0 - self._tokens) / rate,
                {"maxCallsPerSecond": f"{rate:g}"},
            )
        self._tokens -= 1.0

    def check_room(self) -> None:
        """Whether another call may be under way.

        Raises:
            CallerLimitError: It may not.
        """
        most = self.max_concurrent_calls
        if most is not None and self.under_way_count >= most:
            raise CallerLimitError(
                f"{self.caller.name} may have {most} calls under way at once",
                CALLS_RETRY_S,
                {"maxConcurrentCalls": str(most)},
            )
