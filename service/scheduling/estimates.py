"""What a step takes: proven at load, refined by every run, and never able to lock callers out.

Only admitted work teaches an estimate that decides who is admitted. After one stall of the whole machine such an
estimate would refuse everybody for ever: so a sample counts for ten times the estimate at most, and an estimate that
nothing teaches goes back to what was proven.
"""

import math
import time
from collections.abc import Callable

# Weight of the newest sample.
NEWEST_WEIGHT = 0.1
# A sample counts for at most so many times the estimate, and at least for its inverse.
MOST_TIMES = 10.0
# Without samples, what was learnt fades with this time constant.
FADING_S = 10.0
# What is so young has not faded: asked for with every batch.
FRESH_S = 0.05


class Estimate:
    """Seconds of one step."""

    __slots__ = ("_clock", "_learnt_at", "_learnt_s", "_was_measured", "proven_s")

    def __init__(self, proven_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Believes what was proven.

        Args:
            proven_s: Measured at load; 0 where nothing was: then the first sample is believed, until a shorter one
                shows that it was a stall.
            clock: Seconds.
        """
        self.proven_s = proven_s
        self._was_measured = proven_s > 0
        self._learnt_s = proven_s
        self._clock = clock
        self._learnt_at = clock()

    def seconds(self) -> float:
        """The estimate now."""
        if not self.proven_s:
            return self._learnt_s
        age_s = self._clock() - self._learnt_at
        share = math.exp(-age_s / FADING_S) if age_s > FRESH_S else 1.0
        return self.proven_s + share * (self._learnt_s - self.proven_s)

    def learn(self, sample_s: float) -> None:
        """Refines the estimate with one measured step."""
        now_s = self.seconds()
        if not now_s:
            self.proven_s = self._learnt_s = sample_s
            return
        if not self._was_measured and 0 < sample_s < self.proven_s:
            self.proven_s = sample_s
        clamped_s = min(max(sample_s, now_s / MOST_TIMES), now_s * MOST_TIMES)
        self._learnt_s = now_s + NEWEST_WEIGHT * (clamped_s - now_s)
        self._learnt_at = self._clock()
