"""A fixed number of places for processes: each is filled again when its process has ended, for ever."""

import asyncio
from collections.abc import Callable

import structlog

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0

log = structlog.get_logger(__name__)


class Places:
    """When the processes of one kind are started. Lives on one event loop."""

    def __init__(self, kind: str, count: int, start: Callable[[int], None]) -> None:
        """Fills nothing yet.

        Args:
            kind: Of the processes, for the log.
            count: Of the places.
            start: Starts the process of a place. May raise an OSError: then it is tried again.
        """
        self._kind = kind
        self._start = start
        self._pauses = dict.fromkeys(range(count), FIRST_PAUSE_S)
        self.closing = False
        """Whether nothing is to be started any more."""
        self.restart_count = 0
        """Processes that had to be replaced."""

    def fill(self) -> None:
        """Starts a process for each place."""
        for number in self._pauses:
            self._fill(number)

    def works(self, number: int) -> None:
        """A process has done something useful: its next successor need not wait long."""
        self._pauses[number] = FIRST_PAUSE_S

    def replace(self, number: int, status: int) -> None:
        """Starts another process in the place of one that has ended, after a pause that doubles until one works."""
        self.restart_count += 1
        self._fill_later(number, "died", status=status)

    def _fill_later(self, number: int, event: str, **facts: object) -> None:
        pause_s = self._pauses[number]
        self._pauses[number] = min(LONGEST_PAUSE_S, pause_s * 2)
        log.error(f"{self._kind} {event}, starting another", **{self._kind: number}, pause_s=pause_s, **facts)
        asyncio.get_running_loop().call_later(pause_s, self._fill, number)

    def _fill(self, number: int) -> None:
        if self.closing:
            return
        try:
            self._start(number)
        except OSError as error:
            self._fill_later(number, "cannot be started", reason=str(error))
