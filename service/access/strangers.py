"""Those whom nobody knows are refused one after the other, a little apart: a crowd of them leaves the event loop to
callers. Pure rules: the time is given.

A refusal takes as long as a good part of an answer, and gRPC hands calls over in the order in which they came: a
thousand that come at once would all be refused before a caller's call is looked at.
"""

APART_S = 0.001
MOST_WAIT_S = 1.0
"""More would keep calls, each some 22 kB, that are worth nothing: who comes then is refused at once."""


class Turns:
    """Of the strangers of one front."""

    def __init__(self) -> None:
        self._next = 0.0

    def take(self, now: float) -> float:
        """How many seconds the next one waits, mostly none.

        Args:
            now: In seconds.
        """
        wait = max(0.0, self._next - now)
        if wait > MOST_WAIT_S:
            return 0.0
        self._next = now + wait + APART_S
        return wait
