"""Jobs without pictures."""

import numpy as np

from taxon.service.scheduling.arena import Input
from taxon.service.scheduling.batching import Job

LATE = 1e9


def job(deadline=LATE, *, model=1, queued_at=0.0, dtype=None, shape=(), **facts):
    """One input that waits; what is delivered is kept in `job.outcomes`."""
    return Told(
        model,
        Input(0, 0, 0, None if dtype is None else np.dtype(dtype), shape),
        deadline,
        queued_at,
        **{"deliver": None, **facts},
    )


class Told(Job):
    """Keeps what it is told."""

    def __init__(self, *facts, **named):
        super().__init__(*facts, **named)
        self.outcomes = []
        if self.deliver is None:
            self.deliver = self.outcomes.append

    @property
    def outcome(self):
        """What it was told, which must have been once."""
        (told,) = self.outcomes
        return told


def jobs(*deadlines):
    return [job(deadline) for deadline in deadlines]
