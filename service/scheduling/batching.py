"""Inputs of one model → batches → scores of each input: a pure rule, and the thread around it.

Batches while busy, never on a timer: while one batch runs the next one queues, so an idle server adds no wait
and a busy one fills its batches. Knows arrays and deadlines; not pictures, labels or the wire.
"""

import asyncio
import bisect
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.service.errors import DeadlineTooShortError, NotServingError
from taxon.service.runtime.batch_run import answer_batch
from taxon.service.runtime.decoding import Array, Encoded

# A larger batch must answer this much more per second to be worth the longer wait of its first inputs.
WORTHWHILE_GAIN = 1.02
# Weight of the newest run in the measured time per bucket.
NEWEST_WEIGHT = 0.1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """What came back for one input."""

    scores: NDArray[np.float32]
    """float32 `[classes]`, finite."""
    queue_s: float
    inference_s: float
    batch_size: int
    preprocess_s: float = 0.0
    """Of decoding in a worker."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One input that waits."""

    payload: Array | Encoded
    """What the graph takes, without the batch axis; or an encoded picture, where workers decode."""
    deadline: float
    """Point of the batcher's clock."""
    queued_at: float
    future: "asyncio.Future[Scored]"
    priority: int = 0
    """1 is the most urgent, 0 less urgent than any other."""
    alone: bool = False
    """Whether it must not make others of its batch wait: a picture of many megapixels."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` decides."""

    batch: Sequence[Entry]
    bucket: int
    """The size that the batch is padded to."""
    expired: Sequence[Entry]
    """Not worth a run any more: the answer would come after the deadline."""
    gone_count: int
    """Entries whose callers have left."""
    rest: list[Entry]


def insert(entries: list[Entry], entry: Entry) -> None:
    """Queues an entry behind all that are as urgent or more."""
    if not entry.priority and (not entries or not entries[-1].priority):
        entries.append(entry)  # the usual case, without a search
    else:
        bisect.insort_right(entries, entry, key=_urgency)


def _urgency(entry: Entry) -> float:
    return entry.priority or math.inf


def take(entries: Sequence[Entry], now: float, run_s: Mapping[int, float], runner_count: int = 1) -> Taken:
    """Picks the next batch: the first entries that somebody still waits for, as many as answers the most inputs
    per second and none of them too late. Only entries of the first one's type and shape can share its batch.

    Args:
        entries: Most urgent first, then oldest first.
        now: Point of the clock that deadlines are measured on.
        run_s: Seconds of one run by bucket, ascending in the bucket; the first is bucket 1.
        runner_count: How many runners there are: each takes its share of a short queue, since the next will be free
            before a larger batch would end.
    """
    fastest_s = next(iter(run_s.values()))
    waiting: list[Entry] = []
    expired: list[Entry] = []
    gone_count = 0
    for entry in entries:
        if entry.future.cancelled():
            gone_count += 1
        elif entry.deadline < now + fastest_s:
            expired.append(entry)
        else:
            waiting.append(entry)
    alike = _like_the_first(waiting)
    slack_s = min((entry.deadline for entry in alike[: max(run_s)]), default=math.inf) - now
    bucket = best_bucket(-(-len(alike) // runner_count), run_s, slack_s)
    batch = alike[:bucket]
    if len(alike) == len(waiting):
        return Taken(batch, bucket, expired, gone_count, waiting[bucket:])
    in_batch = set(map(id, batch))
    return Taken(batch, bucket, expired, gone_count, [entry for entry in waiting if id(entry) not in in_batch])


def _like_the_first(waiting: list[Entry]) -> list[Entry]:
    """The entries that can be stacked with the first one. Bundles' inputs all can; tensors may have free axes."""
    if not waiting:
        return waiting
    if waiting[0].alone:
        return waiting[:1]
    kind = _kind(waiting[0])
    return [entry for entry in waiting if not entry.alone and _kind(entry) == kind]


def _kind(entry: Entry) -> object:
    payload = entry.payload
    return (payload.dtype, payload.shape) if isinstance(payload, np.ndarray) else None


def best_bucket(waiting_count: int, run_s: Mapping[int, float], limit_s: float = math.inf) -> int:
    """The bucket that answers the most of `waiting_count` inputs per second, of those that take no longer than
    `limit_s` (1 if none does); of nearly equal ones the smaller.
    """
    best, best_rate = 1, 0.0
    for bucket, seconds in run_s.items():
        if seconds > limit_s:
            break
        rate = min(bucket, waiting_count) / max(seconds, 1e-9)
        if rate > best_rate * WORTHWHILE_GAIN:
            best, best_rate = bucket, rate
        if bucket >= waiting_count:
            break
    return best


class Batcher:
    """The thread that runs one model, and the queue before it."""

    def __init__(
        self,
        name: str,
        run: Callable[[Array], NDArray[np.float32]],
        run_s: Mapping[int, float],
        on_batch: Callable[[int, int], None],
        clock: Callable[[], float] = time.monotonic,
        max_run_s: float = math.inf,
        on_hang: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Starts the thread. Must be called on the event loop that submits.

        Args:
            name: Of the thread.
            run: `[bucket, …]` → float32 `[bucket, classes]`.
            run_s: Measured seconds of one run by bucket, ascending; refined from every run.
            on_batch: Told the batch size and the number of dropped entries, on the thread.
            clock: Monotonic, in seconds.
            max_run_s: A batch that takes longer is taken to hang; the next caller is told at once.
            on_hang: Told on the event loop that a batch hangs, or that it has ended after all. A thread cannot be
                killed, so that is all that can be done.
        """
        self._name = name
        self._run = run
        self._run_s = dict(run_s)
        self._on_batch = on_batch
        self._clock = clock
        self._max_run_s = max_run_s
        self._on_hang = on_hang
        self._began_at = math.inf
        self._hangs = False
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"batch-{name}")
        self._thread.start()

    async def submit(self, payload: Array | Encoded, deadline: float, priority: int = 0) -> Scored:
        """Waits for the scores of one input. Cancelling the call takes the input out of the queue.

        Args:
            payload: What the graph takes, without the batch axis.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.

        Raises:
            DeadlineTooShortError: The deadline came too near while the input waited.
            InferenceFailedError: The model raised on this input, or its scores are not finite.
            NotServingError: The model is being unloaded, or hangs.
        """
        self._look_at_run()
        if self._hangs:
            raise NotServingError("the model hangs")
        entry = Entry(payload, deadline, self._clock(), self._loop.create_future(), priority)
        with self._changed:
            if self._closing:
                raise NotServingError("the model is being unloaded")
            insert(self._entries, entry)
            self._changed.notify()
        return await entry.future

    def _look_at_run(self) -> None:
        hangs = self._clock() - self._began_at > self._max_run_s
        if hangs != self._hangs:
            self._hangs = hangs
            log.error("model hangs" if hangs else "model runs again", model=self._name, max_run_s=self._max_run_s)
            self._on_hang(hangs)

    def predicted_wait_s(self) -> float:
        """How long a new input would wait for the model, by the best measured rate."""
        return len(self._entries) * min(seconds / bucket for bucket, seconds in self._run_s.items())

    def close(self) -> None:
        """Runs what still waits, then joins the thread. Must not be called on the event loop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._entries and not self._closing:
                    self._changed.wait()
                if not self._entries:
                    return
                now = self._clock()
                taken = take(self._entries, now, self._run_s)
                self._entries = taken.rest
            outcomes = late(taken.expired, now, self._run_s)
            if taken.batch:
                outcomes += self._answer(taken)
            self._on_batch(len(taken.batch), len(taken.expired) + taken.gone_count)
            self._loop.call_soon_threadsafe(settle, outcomes)
            if self._hangs:
                self._loop.call_soon_threadsafe(self._look_at_run)

    def _answer(self, taken: Taken) -> list[tuple[Entry, Scored | Exception]]:
        arrays = [entry.payload for entry in taken.batch if isinstance(entry.payload, np.ndarray)]
        started = self._began_at = self._clock()
        answers = answer_batch(self._run, arrays, taken.bucket)
        self._began_at = math.inf
        inference_s = self._clock() - started
        self._run_s[taken.bucket] += NEWEST_WEIGHT * (inference_s - self._run_s[taken.bucket])
        return [
            (
                entry,
                answer
                if isinstance(answer, Exception)
                else Scored(answer, started - entry.queued_at, inference_s, len(taken.batch)),
            )
            for entry, answer in zip(taken.batch, answers, strict=True)
        ]


def late(expired: Sequence[Entry], now: float, run_s: Mapping[int, float]) -> list[tuple[Entry, Scored | Exception]]:
    """What the entries are told that `take` found to be too late."""
    fastest_s = next(iter(run_s.values()))
    return [(entry, DeadlineTooShortError(entry.deadline - now, fastest_s)) for entry in expired]


def settle(outcomes: Sequence[tuple[Entry, Scored | Exception]]) -> None:
    """Wakes the callers, on their event loop."""
    for entry, outcome in outcomes:
        if entry.future.done():
            continue
        if isinstance(outcome, Exception):
            entry.future.set_exception(outcome)
        else:
            entry.future.set_result(outcome)
