"""Who may come in: permits, room, and whether the answer would come in time. One rule for every way in and device.

Pure bookkeeping over what waits and what steps take; knows nothing of processes or sockets, see `worker_pool`.
"""

import math
import random
import time
from collections.abc import Callable, Container, Sequence

from taxon.service.errors import DeadlineTooShortError, NotServingError, QueueFullError
from taxon.service.scheduling.batching import Job, Taken, best_bucket
from taxon.service.scheduling.board import Board
from taxon.service.scheduling.model_queue import ModelQueue

# Predictions are of a mean; callers are promised more than an even chance.
MARGIN = 1.15
# So long after the last ordinary picture, large ones may have every worker.
QUIET_S = 1.0
# Pictures that a decoder gets at once: few, so that none waits while another decoder is idle.
MOST_DECODED = 4
# One call a second is let in against the estimates, if an idle server would answer it by what was proven.
PROBE_S = 1.0
MIN_RETRY_S = 0.02
IDLE_RETRY_S = 1.0


class Permits:
    """The right to occupy the server, for a bounded number of inputs of all its fronts together. Lives on the event
    loop.
    """

    def __init__(self, max_count: int, board: Board, front: int, predicted_wait_s: Callable[[], float]) -> None:
        self.max_count = max_count
        self._board = board
        self._front = front
        self._predicted_wait_s = predicted_wait_s

    @property
    def free_count(self) -> int:
        """How many may be taken."""
        return self.max_count - self._board.held_count()

    def refusal(self) -> QueueFullError:
        """What a caller is told when none is free."""
        return QueueFullError(
            f"{self.max_count} requests are in the server already",
            retry_delay_s(self._predicted_wait_s()),
            queued_count=self._board.held_count(),
            max_queued_count=self.max_count,
        )

    def __enter__(self) -> None:
        """Takes one, until the end of the block.

        Raises:
            QueueFullError: None is free. Nobody waits for a permit: a longer queue helps no caller.
        """
        if self.free_count <= 0:
            raise self.refusal()
        self._board.hold(self._front, 1)

    def __exit__(self, *_: object) -> None:
        self._board.hold(self._front, -1)


class Queues:
    """The queues of all models."""

    def __init__(self, max_queued_count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_queued_count = max_queued_count  # only told to callers
        self._clock = clock
        self._queues: dict[int, ModelQueue] = {}
        self._ordinary_at = -QUIET_S
        self._turn_s = 0.0

    def add(self, queue: ModelQueue) -> None:
        """Adds a queue; it starts level with the others."""
        queue.used_s = self._turn_s
        self._queues[queue.model] = queue

    def get(self, model: int) -> ModelQueue | None:
        """The queue of a model, if there is one."""
        return self._queues.get(model)

    def remove(self, model: int) -> Sequence[Job]:
        """Takes a model's queue out. Returns what waited in it."""
        queue = self._queues.pop(model, None)
        return queue.empty() if queue else ()

    def empty(self) -> list[Job]:
        """Takes out everything that waits."""
        return [job for queue in self._queues.values() for job in queue.empty()]

    @property
    def waiting_count(self) -> int:
        """Inputs that wait."""
        return sum(queue.waiting_count for queue in self._queues.values())

    def predicted_s(self, worker_count: int, busy_s: float) -> float:
        """How long a new input waits before a worker takes it.

        Args:
            worker_count: Workers that serve.
            busy_s: Until the first of them is free.
        """
        return busy_s + sum(queue.backlog_s() for queue in self._queues.values()) / max(1, worker_count)

    def decoding_s(self, decoder_count: int) -> float:
        """How long a new picture waits before a decoder takes it."""
        return sum(queue.undecoded_s() for queue in self._queues.values()) / max(1, decoder_count)

    def admit(self, queue: ModelQueue, job: Job, worker_count: int, busy_s: float) -> None:
        """Lets a job in, or not; whoever asks queues it then.

        Raises:
            DeadlineTooShortError: Even an idle server would answer too late.
            NotServingError: No worker serves, or the model is being unloaded.
            QueueFullError: What is queued already would make it too late.
        """
        if queue.closing or not worker_count:
            raise NotServingError("the model is being unloaded" if queue.closing else "no worker is ready")
        now = self._clock()
        remaining_s = job.deadline - now
        costs = queue.costs()
        apart_s = queue.apart_s.seconds() if job.input.dtype is None else 0.0
        own_s = queue.large_cost_s() if job.alone else apart_s + costs[1]
        if own_s > remaining_s:
            if self._is_probe(queue, job, remaining_s):
                return
            raise DeadlineTooShortError(remaining_s, own_s)
        wait_s = self.predicted_s(worker_count, busy_s)
        if not job.alone:  # who waits is answered with others
            own_s = apart_s + costs[best_bucket(1 + len(queue.ordinary) // worker_count, costs, remaining_s)]
        answered_s = MARGIN * wait_s + own_s
        if answered_s > remaining_s:
            if self._is_probe(queue, job, remaining_s):
                return
            raise QueueFullError(
                f"{self.waiting_count} inputs wait already",
                retry_delay_s(answered_s - remaining_s),
                queued_count=self.waiting_count,
                max_queued_count=self._max_queued_count,
            )
        if not job.alone:
            self._ordinary_at = now

    def _is_probe(self, queue: ModelQueue, job: Job, remaining_s: float) -> bool:
        """Whether a job that the estimates refuse is let in to teach them."""
        now = self._clock()
        if job.alone or queue.proven_s > remaining_s or now - queue.probed_at < PROBE_S:
            return False
        queue.probed_at = now
        job.probe = True
        return True

    def next_batch(
        self, worker_count: int, models: Container[int], large_count: int, decoding_room: float = math.inf
    ) -> tuple[ModelQueue, Taken] | None:
        """What a free worker should do now; None if nothing. The model that has had the least worker time of late
        goes first.

        Args:
            worker_count: Workers that serve.
            models: What the free worker has.
            large_count: Large pictures that are being worked on.
            decoding_room: Bytes that are left for decoding large pictures.
        """
        large_room = self._large_room(worker_count, large_count, decoding_room)
        waiting = [queue for queue in self._queues.values() if queue.model in models and queue.has_work(large_room)]
        if not waiting:
            return None
        queue = min(waiting, key=lambda queue: queue.used_s)
        self._turn_s = max(self._turn_s, queue.used_s)
        for other in self._queues.values():
            if not other.waiting_count:
                other.used_s = max(other.used_s, self._turn_s)  # idleness earns no claim
        return queue, queue.take(self._clock(), worker_count, large_room)

    def next_pictures(
        self, decoder_count: int, large_count: int, decoding_room: float = math.inf
    ) -> tuple[ModelQueue, Sequence[Job]] | None:
        """What a free decoder should do now: the oldest picture, alone if it is large, else with its share of what
        waits for its model; None if nothing waits that may be decoded.

        Args:
            decoder_count: How many decoders there should be.
            large_count: Large pictures that are being worked on.
            decoding_room: Bytes that are left for decoding large pictures.
        """
        large_room = self._large_room(decoder_count, large_count, decoding_room)
        firsts = [(first, queue) for queue in self._queues.values() if (first := queue.oldest_picture(large_room))]
        if not firsts:
            return None
        first, queue = min(firsts, key=lambda pair: pair[0].queued_at)
        share = min(MOST_DECODED, -(-sum(len(queue.undecoded) for queue in self._queues.values()) // decoder_count))
        return queue, queue.take_pictures(first, share)

    def _large_room(self, process_count: int, large_count: int, decoding_room: float) -> float:
        """Bytes that the next large picture may take; negative: it must wait. Large pictures leave one process to the
        others, as long as there are others.
        """
        quiet = self._clock() - self._ordinary_at > QUIET_S
        return decoding_room if large_count < max(1, process_count - 1) or quiet else -1


def no_idle_worker(waiting_count: int) -> QueueFullError:
    """What copies and explanations are told where every worker has something to do."""
    return QueueFullError(
        "copies and explanations come in only where a worker is idle",
        IDLE_RETRY_S,
        queued_count=waiting_count,
        max_queued_count=0,
    )


def retry_delay_s(overhang_s: float) -> float:
    """When a refused caller should come back: once the queue has shrunk by what was too much, spread so that the
    refused do not come back together.
    """
    return max(MIN_RETRY_S, overhang_s) * random.uniform(0.75, 1.5)  # noqa: S311 - no secret
