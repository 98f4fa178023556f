"""How much a caller has under way, and how fast its calls come, at all fronts of a server together. Pure rules: the
time is given.

Fronts ask nobody: each reads what the others have counted. Two that let the last call in at the same moment are one
over the limit, once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from taxon.service.access.callers import Caller
from taxon.service.errors import CallerLimitError
from taxon.service.scheduling.board import Board

# When one of a caller's calls ends is not known: it may ask again so soon.
CALLS_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """Of callers for whom the file says nothing else. None: as much as they like."""

    max_concurrent_calls: int | None = None
    max_calls_per_second: float | None = None


class Usage:
    """What one caller does now."""

    __slots__ = (
        "_at",
        "_board",
        "_front",
        "_made",
        "_place",
        "_tokens",
        "caller",
        "max_concurrent_calls",
        "max_per_second",
    )

    def __init__(self, caller: Caller, limits: CallerLimits, board: Board, front: int, place: int, now: float) -> None:
        """Nothing is under way.

        Args:
            caller: As in the file.
            limits: Where the file says nothing.
            board: What all fronts count on.
            front: Number of this one.
            place: Of the caller on the board.
            now: As for `take`.
        """
        self._board = board
        self._front = front
        self._place = place
        self._made = board.made_count(place)
        self._at = now
        self.allow(caller, limits)
        self._tokens = max(1.0, self.max_per_second or 0.0)

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
        burst, made = max(1.0, rate), self._board.made_count(self._place)
        self._tokens = min(burst, self._tokens + (now - self._at) * rate - (made - self._made))
        self._at, self._made = now, made
        if self._tokens < 1.0:
            raise CallerLimitError(
                f"{self.caller.name} may make {rate:g} calls a second",
                (1.0 - self._tokens) / rate,
                {"maxCallsPerSecond": f"{rate:g}"},
            )
        self._tokens -= 1.0
        self._board.make(self._front, self._place)
        self._made += 1

    @contextmanager
    def call(self) -> Iterator[None]:
        """One is under way."""
        self._board.begin(self._front, self._place, 1)
        try:
            yield
        finally:
            self._board.begin(self._front, self._place, -1)

    def check_room(self) -> None:
        """Whether another call may be under way.

        Raises:
            CallerLimitError: It may not.
        """
        most = self.max_concurrent_calls
        if most is not None and self._board.under_way_count(self._place) >= most:
            raise CallerLimitError(
                f"{self.caller.name} may have {most} calls under way at once",
                CALLS_RETRY_S,
                {"maxConcurrentCalls": str(most)},
            )
