"""The queues of a server whose models run in worker processes: who is next, who waits too long, who may come in.

A lane is one model's queue. Pure bookkeeping over entries and measured times; knows nothing of processes or
sockets, see `crew`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from taxon.service.errors import DeadlineTooShortError, NotServingError, QueueFullError
from taxon.service.runtime.decoding import Array, Encoded
from taxon.service.scheduling.batching import NEWEST_WEIGHT, Entry, Scored, Taken, best_bucket, insert, take

# Predictions are of a mean; callers are promised more than an even chance.
MARGIN = 1.15
# So long after the last ordinary picture, large ones may have every worker.
QUIET_S = 1.0
# Between two batches a worker waits for the front to take its answer and send the next: measured, on two busy cores.
HAND_OVER_S = 0.0005
MIN_RETRY_S = 0.02


@dataclass(eq=False)
class Lane:
    """One model's queue, and what is known of its speed."""

    name: str
    version: int
    run_s: dict[int, float]
    """Seconds of one run by bucket, ascending."""
    on_batch: Callable[[int, int], None]
    """Told the size of each batch, and of inputs dropped before their run."""
    decode_s: float = 0.0
    """Of one ordinary input, in a worker."""
    alone_s: float = 0.1
    """Of one large picture, decoded and run."""
    light: list[Entry] = field(default_factory=list)
    alone: list[Entry] = field(default_factory=list)
    used_s: float = 0.0
    """Worker time that this lane has had, for fairness between models."""
    closing: bool = False
    _costs: dict[int, float] = field(default_factory=dict)
    _costs_decode_s: float = -1.0
    """The `decode_s` that `_costs` were computed with."""

    def empty(self) -> list[Entry]:
        """Takes out everything that waits."""
        entries, self.light, self.alone = [*self.light, *self.alone], [], []
        return entries

    def expected_s(self, taken: Taken) -> float:
        """Seconds that a worker should need for a batch."""
        return self.alone_s if taken.batch[0].alone else self.costs()[taken.bucket]

    def costs(self) -> dict[int, float]:
        """Seconds that a worker needs for a batch, by bucket."""
        if self._costs_decode_s != self.decode_s:  # asked for several times a call, learnt once a batch
            self._costs = {
                bucket: HAND_OVER_S + seconds + bucket * self.decode_s for bucket, seconds in self.run_s.items()
            }
            self._costs_decode_s = self.decode_s
        return self._costs

    def backlog_s(self) -> float:
        """Worker seconds that wait here."""
        costs = self.costs()
        best_s = min(seconds / bucket for bucket, seconds in costs.items())
        return len(self.light) * best_s + len(self.alone) * self.alone_s

    def learn(self, taken: Taken, preprocess_s: float, inference_s: float) -> None:
        """Refines the measured times with one finished batch."""
        self.used_s += preprocess_s + inference_s
        if taken.batch[0].alone:
            self.alone_s += NEWEST_WEIGHT * (preprocess_s + inference_s - self.alone_s)
        else:
            self.run_s[taken.bucket] += NEWEST_WEIGHT * (inference_s - self.run_s[taken.bucket])
            self.decode_s += NEWEST_WEIGHT * (preprocess_s / len(taken.batch) - self.decode_s)
            self._costs_decode_s = -1.0


class Lanes:
    """Every lane of a server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: list[Lane] = []
        self._light_at = -QUIET_S
        self._turn_s = 0.0

    def add(self, lane: Lane) -> None:
        """Adds a lane; it starts level with the others."""
        lane.used_s = self._turn_s
        self._lanes.append(lane)

    def remove(self, lane: Lane) -> None:
        """Takes a lane out."""
        self._lanes.remove(lane)

    def empty(self) -> list[Entry]:
        """Takes out everything that waits."""
        return [entry for lane in self._lanes for entry in lane.empty()]

    def predicted_s(self, worker_count: int, busy_s: float) -> float:
        """How long a new input waits before a worker takes it.

        Args:
            worker_count: Workers that serve.
            busy_s: Until the first of them is free.
        """
        return busy_s + sum(lane.backlog_s() for lane in self._lanes) / max(1, worker_count)

    def admit(self, lane: Lane, entry: Entry, worker_count: int, busy_s: float) -> None:
        """Queues an entry.

        Raises:
            DeadlineTooShortError: Even an idle server would answer too late.
            NotServingError: No worker serves, or the model is being unloaded.
            QueueFullError: What is queued already would make it too late.
        """
        if lane.closing or not worker_count:
            raise NotServingError("the model is being unloaded" if lane.closing else "no worker is ready")
        now = self._clock()
        remaining_s = entry.deadline - now
        costs = lane.costs()
        own_s = lane.alone_s if entry.alone else costs[1]
        if own_s > remaining_s:
            raise DeadlineTooShortError(remaining_s, own_s)
        wait_s = self.predicted_s(worker_count, busy_s)
        if not entry.alone:  # who waits is answered with others
            own_s = costs[best_bucket(1 + len(lane.light) // worker_count, costs, remaining_s)]
        answered_s = MARGIN * wait_s + own_s
        if answered_s > remaining_s:
            raise QueueFullError(
                sum(len(other.light) + len(other.alone) for other in self._lanes),
                retry_delay_s(answered_s - remaining_s),
            )
        if entry.alone:
            insert(lane.alone, entry)
        else:
            self._light_at = now
            insert(lane.light, entry)

    def next_batch(
        self, worker_count: int, large_count: int, models: Container[tuple[str, int]]
    ) -> tuple[Lane, Taken] | None:
        """What a free worker should do now; None if nothing. The lane that has had the least worker time of late
        goes first. Large pictures leave one worker to the others, as long as there are others.

        Args:
            worker_count: Workers that serve.
            large_count: Large pictures that are being worked on.
            models: What the free worker has.
        """
        quiet = self._clock() - self._light_at > QUIET_S
        large_may_run = large_count < max(1, worker_count - 1) or quiet
        waiting = [
            lane
            for lane in self._lanes
            if (lane.light or (lane.alone and large_may_run)) and (lane.name, lane.version) in models
        ]
        if not waiting:
            return None
        lane = min(waiting, key=lambda lane: lane.used_s)
        self._turn_s = max(self._turn_s, lane.used_s)
        for other in self._lanes:
            if not (other.light or other.alone):
                other.used_s = max(other.used_s, self._turn_s)  # idleness earns no claim
        large = lane.alone and large_may_run and (not lane.light or lane.alone[0].queued_at < lane.light[0].queued_at)
        if large:
            taken = take(lane.alone, self._clock(), {1: lane.alone_s})
            lane.alone = taken.rest
        else:
            taken = take(lane.light, self._clock(), lane.costs(), worker_count)
            lane.light = taken.rest
        return lane, taken


def retry_delay_s(overhang_s: float) -> float:
    """When a refused caller should come back: once the queue has shrunk by what was too much, spread so that the
    refused do not come back together.
    """
    return max(MIN_RETRY_S, overhang_s) * random.uniform(0.75, 1.5)  # noqa: S311 - no secret


def new_entry(payload: Array | Encoded, deadline: float, priority: int, alone: bool, now: float) -> Entry:
    """An entry whose future belongs to the running event loop."""
    future: asyncio.Future[Scored] = asyncio.get_running_loop().create_future()
    return Entry(payload, deadline, now, future, priority, alone)
