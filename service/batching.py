"""Inputs of one model → batches → scores of each input: a pure rule, and the thread around it.

Batches while busy, never on a timer: while one batch runs the next one queues, so an idle server adds no wait
and a busy one fills its batches. Knows arrays and deadlines; not pictures, labels or the wire.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from service.decoding import Array
from service.errors import DeadlineTooShortError, InferenceFailedError, NotServingError

# A larger batch must answer this much more per second to be worth the longer wait of its first inputs.
WORTHWHILE_GAIN = 1.03
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


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One input that waits."""

    array: Array
    deadline: float
    """Point of the batcher's clock."""
    queued_at: float
    future: "asyncio.Future[Scored]"


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


def take(entries: Sequence[Entry], now: float, run_s: Mapping[int, float]) -> Taken:
    """Picks the next batch: the oldest entries that somebody still waits for, as many as answers the most inputs
    per second. Only entries of the oldest one's type and shape can share its batch.

    Args:
        entries: Oldest first.
        now: Point of the clock that deadlines are measured on.
        run_s: Seconds of one run by bucket, ascending in the bucket; the first is bucket 1.
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
    alike = _like_the_oldest(waiting)
    bucket = best_bucket(len(alike), run_s)
    batch = alike[:bucket]
    if len(alike) == len(waiting):
        return Taken(batch, bucket, expired, gone_count, waiting[bucket:])
    in_batch = set(map(id, batch))
    return Taken(batch, bucket, expired, gone_count, [entry for entry in waiting if id(entry) not in in_batch])


def _like_the_oldest(waiting: list[Entry]) -> list[Entry]:
    """The entries that can be stacked with the first one. Bundles' inputs all can; tensors may have free axes."""
    if not waiting:
        return waiting
    dtype, shape = waiting[0].array.dtype, waiting[0].array.shape
    return [entry for entry in waiting if entry.array.dtype == dtype and entry.array.shape == shape]


def best_bucket(waiting_count: int, run_s: Mapping[int, float]) -> int:
    """The bucket that answers the most of `waiting_count` inputs per second; of nearly equal ones the smaller."""
    best, best_rate = 1, 0.0
    for bucket, seconds in run_s.items():
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
    ) -> None:
        """Starts the thread. Must be called on the event loop that submits.

        Args:
            name: Of the thread.
            run: `[bucket, …]` → float32 `[bucket, classes]`.
            run_s: Measured seconds of one run by bucket, ascending; refined from every run.
            on_batch: Told the batch size and the number of dropped entries, on the thread.
            clock: Monotonic, in seconds.
        """
        self._run = run
        self._run_s = dict(run_s)
        self._on_batch = on_batch
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"batch-{name}")
        self._thread.start()

    async def submit(self, array: Array, deadline: float) -> Scored:
        """Waits for the scores of one input. Cancelling the call takes the input out of the queue.

        Raises:
            DeadlineTooShortError: The deadline came too near while the input waited.
            InferenceFailedError: The model raised on this input, or its scores are not finite.
            NotServingError: The model is being unloaded.
        """
        entry = Entry(array, deadline, self._clock(), self._loop.create_future())
        with self._changed:
            if self._closing:
                raise NotServingError("the model is being unloaded")
            self._entries.append(entry)
            self._changed.notify()
        return await entry.future

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
            fastest_s = next(iter(self._run_s.values()))
            late = [(entry, DeadlineTooShortError(entry.deadline - now, fastest_s)) for entry in taken.expired]
            outcomes = self._answer(taken) if taken.batch else []
            self._on_batch(len(taken.batch), len(taken.expired) + taken.gone_count)
            self._loop.call_soon_threadsafe(_settle, [*late, *outcomes])

    def _answer(self, taken: Taken) -> list[tuple[Entry, Scored | Exception]]:
        try:
            return self._run_batch(taken.batch, taken.bucket)
        except Exception as error:
            log.error("model run failed", batch_size=len(taken.batch), exc_info=error)
            if len(taken.batch) == 1:
                return [(taken.batch[0], InferenceFailedError("the model failed on this input"))]
        # Singly, once, so that one poisoned input fails alone.
        return [outcome for entry in taken.batch for outcome in self._answer(Taken([entry], 1, (), 0, []))]

    def _run_batch(self, batch: Sequence[Entry], bucket: int) -> list[tuple[Entry, Scored | Exception]]:
        first = batch[0].array
        stacked = np.zeros((bucket, *first.shape), first.dtype)
        np.stack([entry.array for entry in batch], out=stacked[: len(batch)])
        started = self._clock()
        scores = self._run(stacked)
        inference_s = self._clock() - started
        self._run_s[bucket] += NEWEST_WEIGHT * (inference_s - self._run_s[bucket])
        outcomes: list[tuple[Entry, Scored | Exception]] = []
        for entry, row in zip(batch, scores, strict=False):  # the rows of the padding are left over
            # Rows of named tensors are their callers' own business: a model may well answer with NaN there.
            if row.dtype.names is not None or np.isfinite(row).all():
                outcomes.append((entry, Scored(row, started - entry.queued_at, inference_s, len(batch))))
            else:
                outcomes.append((entry, InferenceFailedError("the model's scores for this input are not numbers")))
        return outcomes


def _settle(outcomes: Sequence[tuple[Entry, Scored | Exception]]) -> None:
    for entry, outcome in outcomes:
        if entry.future.done():
            continue
        if isinstance(outcome, Exception):
            entry.future.set_exception(outcome)
        else:
            entry.future.set_result(outcome)
