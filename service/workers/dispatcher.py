"""Who gets what when: inputs come in, wait in their model's queue, and go to decoders and workers.

Lives on one event loop. Who may come in and what is next are `admission`'s decisions, what a worker does with it is
`worker_main`'s.
"""

import asyncio
import time
from collections.abc import Sequence

from taxon.service.errors import DeadlineTooShortError, NotServingError, WorkerEndedError
from taxon.service.scheduling.admission import Queues, no_idle_worker
from taxon.service.scheduling.arena import Input
from taxon.service.scheduling.batching import Job, Outcome, Scored, brought
from taxon.service.scheduling.model_queue import ModelQueue
from taxon.service.workers.layout import Layout
from taxon.service.workers.worker_protocol import Decode, Decoded, Done, Run
from taxon.service.workers.worker_slot import Batch, WorkerSlot
from taxon.service.workers.worker_slots import WorkerSlots


class Dispatcher:
    """What waits, and what workers have of it."""

    def __init__(self, slots: WorkerSlots, layout: Layout, max_queued_count: int, max_decoding_bytes: float) -> None:
        """Nothing waits.

        Args:
            slots: Of the workers.
            layout: How many of which kind.
            max_queued_count: Permits of the server; only told to callers.
            max_decoding_bytes: Of large pictures that are being decoded, in all workers together.
        """
        self._slots = slots
        self._layout = layout
        self._max_decoding_bytes = max_decoding_bytes
        self._queues = Queues(max_queued_count)
        self._changed = asyncio.Event()
        self.load_s = 0.0
        """What the last load of a model took."""

    @property
    def waiting_count(self) -> int:
        """Inputs that wait."""
        return self._queues.waiting_count

    def open(self, queue: ModelQueue) -> None:
        """Takes inputs for a model from now on."""
        self._queues.add(queue)

    async def finish(self, model: int) -> None:
        """Takes nothing more for a model, and waits until what has come in is answered, or the server ends."""
        queue = self._queues.get(model)
        while queue is not None and not self._slots.places.closing and self._is_asked(queue):
            queue.closing = True
            self._changed.clear()
            await self._changed.wait()

    def end(self, model: int, outcome: Outcome) -> None:
        """Gives up a model, and what waits for it with this outcome."""
        tell(self._queues.remove(model), outcome)

    def lose(self, slot: WorkerSlot, of_its_work: bool) -> None:
        """Gives the inputs that a worker had when it ended to others, or tells their callers; if it was the last one,
        those who wait too.
        """
        for index, batch in enumerate(slot.batches):
            jobs = batch.jobs
            for job in jobs:
                # Beside a load it may have been that.
                fatal = of_its_work and len(jobs) == 1 and (slot.loading is None or not slot.beside)
                if slot.role == "decode":  # its array may lie where it was: it cannot be decoded again
                    job.deliver(_fatal() if fatal else _died())
                elif index:  # it only lay ready
                    self._run_elsewhere(job)
                else:
                    self._run_again(job, fatal=fatal or (slot.hangs == "a batch" and job.suspect))
        if not self._slots.serving_count:
            tell(self._queues.empty(), NotServingError("no worker is ready"))
        self.give()

    def _run_again(self, job: Job, *, fatal: bool) -> None:
        """What may have ended a worker is run once more, alone; what has is given to no other."""
        if fatal:
            job.deliver(_fatal())
        elif job.suspect or job.background:
            job.deliver(_died())
        else:
            job.suspect = True
            self._run_elsewhere(job)

    def _run_elsewhere(self, job: Job) -> None:
        queue = self._queues.get(job.model)
        if queue and any(slot.serves and job.model in slot.models for slot in self._slots):
            queue.insert(job)
        else:
            job.deliver(_died())

    def wake(self) -> None:
        """Has whoever waits for a model's end look again."""
        self._changed.set()

    def take(self, slot: WorkerSlot, done: Done | Decoded) -> None:
        """A worker has done what it was given first."""
        batch = slot.batches.popleft()
        self._slots.places.works(slot.number)
        self._slots.watch_next(slot)
        now = time.monotonic()
        slot.busy_s += now - batch.began_at
        if slot.batches:
            following = slot.batches[0]
            following.began_at, following.ends_at = now, following.ends_at + now - following.began_at
        if isinstance(done, Done):
            self._deliver(batch, done)
        else:
            self._queue_decoded(batch, done)

    def submit(self, job: Job) -> None:
        """Takes an input in; `job.deliver` is told the outcome, once.

        Raises:
            ServiceError: It may not come in, see `admission`.
        """
        queue = self._queues.get(job.model)
        if queue is None:
            raise NotServingError("the model is being unloaded")
        is_large_copy = job.alone and not job.input.explained
        if job.background and (is_large_copy or not self._has_idle_worker(job.model)):
            raise no_idle_worker(self.waiting_count)
        decoding_s = self._queues.decoding_s(self._layout.decoders) if queue.is_decoded_apart(job) else 0.0
        self._queues.admit(queue, job, self._slots.serving_count, self._busy_s() + decoding_s)
        queue.insert(job)
        self.give()

    def _has_idle_worker(self, model: int) -> bool:
        """Whether one has nothing to do, and where there are several another one too, for whoever comes next."""
        serving = [slot for slot in self._slots if slot.serves]
        idle = [slot for slot in serving if not slot.batches and slot.loading is None]
        able = any(model in slot.models for slot in idle)
        return able and not self.waiting_count and len(idle) >= min(2, len(serving))

    def leave(self, job: Job) -> None:
        """The caller of a job has left. One that waits leaves its queue at once; whoever works on one looks at its
        block in the arena.
        """
        queue = self._queues.get(job.model)
        if queue is not None and queue.discard(job):
            queue.on_batch(0, 1)
            job.deliver(None)
            self.wake()

    def predicted_wait_s(self) -> float:
        """How long a new input would wait for a worker."""
        busy_s = self._busy_s() + self._queues.decoding_s(self._layout.decoders)
        return self._queues.predicted_s(self._slots.serving_count, busy_s)

    def _busy_s(self) -> float:
        """Until the first worker could run what comes now, by what its batches should take; if all of them load, by
        what the last load took. Who is late with that is thought to need as long again.
        """
        now = time.monotonic()
        serving = [slot for slot in self._slots if slot.serves]
        there = [slot for slot in serving if not slot.away(now)]
        left = [max(0.0, slot.batches[-1].ends_at - now) if slot.batches else 0.0 for slot in there]
        return min(left or [abs(slot.loading_since + self.load_s - now) for slot in serving], default=0.0)

    def give(self) -> None:
        """What waits, to whoever is free."""
        if self._layout.decoders:
            self._give_pictures()
        self._give_batches()
        self.wake()

    def _give_pictures(self) -> None:
        for slot in self._slots:
            while slot.role == "decode" and not slot.batches:
                chosen = self._queues.next_pictures(self._layout.decoders, *self._large())
                if chosen is None:
                    return
                queue, jobs = chosen[0], brought(chosen[1])
                if jobs and queue.decoded_by:
                    now = time.monotonic()
                    batch = Batch(queue, jobs, 0, now, now + len(jobs) * queue.apart_s.seconds())
                    self._give(slot, batch, Decode(queue.decoded_by, *_places(jobs)))

    def _give_batches(self) -> None:
        depth, now = self._layout.depth, time.monotonic()
        free = [slot for slot in self._slots if slot.has_room(depth, now)]
        free.sort(key=lambda slot: len(slot.batches), reverse=True)  # the emptiest is last, and first served
        while free:
            chosen = self._queues.next_batch(self._slots.serving_count, free[-1].models, *self._large())
            if chosen is None:
                free.pop()
                continue
            queue, taken = chosen
            if taken.expired:
                queue.on_batch(0, len(taken.expired))
                fastest_s, now = next(iter(queue.costs().values())), time.monotonic()
                for job in taken.expired:
                    job.deliver(DeadlineTooShortError(job.deadline - now, fastest_s))
            if jobs := brought(taken.batch):
                slot = free[-1]
                began_at = max([time.monotonic(), *(batch.ends_at for batch in slot.batches)])
                batch = Batch(queue, jobs, taken.bucket, began_at, began_at + queue.expected_s(jobs, taken.bucket))
                self._give(slot, batch, Run(queue.model, taken.bucket, *_places(jobs)))
                if not slot.has_room(depth, now):
                    free.pop()

    def _give(self, slot: WorkerSlot, batch: Batch, order: Run | Decode) -> None:
        if not slot.batches:
            self._slots.watch_run(slot)
        slot.batches.append(batch)
        slot.handle.send(order)

    def _queue_decoded(self, batch: Batch, decoded: Decoded) -> None:
        queue = batch.queue
        for job, outcome, seconds in zip(batch.jobs, decoded.outcomes, decoded.seconds, strict=True):
            if isinstance(outcome, Exception):
                job.deliver(outcome)
            elif self._queues.get(job.model) is None:
                job.deliver(NotServingError("the model is being unloaded"))
            else:
                (queue.large_s if job.alone else queue.apart_s).learn(seconds)
                job.input, job.decode_s, job.decoding_bytes = outcome, seconds, 0  # an array as any other
                queue.insert(job)

    def _deliver(self, batch: Batch, done: Done) -> None:
        dropped_count = sum(isinstance(outcome, DeadlineTooShortError) for outcome in done.outcomes)
        batch.queue.on_batch(done.run_count, dropped_count, done.bucket)
        if done.run_count and not all(job.background for job in batch.jobs):  # idle time is no measure of busy time
            batch.queue.learn(batch.jobs, done.bucket, done.preprocess_s, done.inference_s)
        traced = tuple({job.span for job in batch.jobs if job.span})
        for place, (job, outcome) in enumerate(zip(batch.jobs, done.outcomes, strict=True)):
            if isinstance(outcome, Exception):
                job.deliver(outcome)
                continue
            queue_s = max(0.0, batch.began_at - job.queued_at - job.decode_s)
            preprocess_s = done.preprocess_s + job.decode_s
            seconds = preprocess_s, queue_s, done.inference_s
            brightness = done.brightness.get(place)
            job.deliver(Scored(outcome, *seconds, done.run_count, traced=traced, brightness=brightness))

    def _large(self) -> tuple[int, float]:
        """How many large pictures are worked on, and the bytes that are left for decoding others."""
        left = self._max_decoding_bytes - sum(slot.decoding_bytes for slot in self._slots)
        return sum(slot.has_large_picture for slot in self._slots), left

    def _is_asked(self, queue: ModelQueue) -> bool:
        works = any(batch.queue is queue for slot in self._slots for batch in slot.batches)
        return works or queue.waiting_count > 0


def tell(jobs: Sequence[Job], outcome: Outcome) -> None:
    """Tells all of them the same."""
    for job in jobs:
        job.deliver(outcome)


def _died() -> NotServingError:
    return NotServingError("the worker that held this call died")


def _fatal() -> WorkerEndedError:
    return WorkerEndedError("a worker ended over this input")


def _places(jobs: Sequence[Job]) -> tuple[list[Input], list[float]]:
    return [job.input for job in jobs], [job.deadline for job in jobs]
