"""A fixed number of worker processes, whatever happens to each: given work, watched, replaced.

Every model runs here, on CPUs and GPUs. Lives on one event loop. Who may come in is `admission`'s decision, which model
a worker proves is `loads`'; what a worker does with it is `worker_main`'s.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from taxon.bundle.manifest import Manifest
from taxon.service.errors import DeadlineTooShortError, InferenceFailedError, NotServingError
from taxon.service.runtime.description import GraphConfig
from taxon.service.scheduling.admission import Queues
from taxon.service.scheduling.batching import Job, Outcome, Scored, brought
from taxon.service.scheduling.estimates import Estimate
from taxon.service.scheduling.model_queue import ModelQueue
from taxon.service.workers.layout import Layout
from taxon.service.workers.loads import Known, Loads
from taxon.service.workers.undecoded import Undecoded
from taxon.service.workers.worker_process import StartWorker
from taxon.service.workers.worker_protocol import (
    Decoded,
    Done,
    Load,
    Loaded,
    Run,
    Unload,
)
from taxon.service.workers.worker_slot import Batch, WorkerSlot
from taxon.service.workers.worker_slots import Events, Patience, WorkerSlots

log = structlog.get_logger(__name__)


class WorkerPool:
    """The workers and the queues that they serve."""

    def __init__(
        self,
        start: StartWorker,
        layout: Layout,
        patience: Patience,
        max_queued_count: int,
        on_change: Callable[[], None],
        on_lost: Callable[[int, str], None],
        max_decoding_bytes: float = math.inf,
    ) -> None:
        """Starts the processes. Must be called on the event loop.

        Args:
            start: Starts one.
            layout: How many of which kind.
            patience: With a worker, before it is taken to hang, killed and replaced.
            max_queued_count: Permits of the server; only told to callers.
            on_change: Told when it may have changed what can run.
            on_lost: Told of a model that no worker can run any more, and why.
            max_decoding_bytes: Of large pictures that are being decoded, in all workers together.
        """
        self._layout = layout
        self._on_change = on_change
        self._on_lost = on_lost
        self._max_decoding_bytes = max_decoding_bytes
        self._queues = Queues(max_queued_count)
        self._by_model: dict[int, tuple[ModelQueue, Manifest | None]] = {}
        self._undecoded = Undecoded(layout.decoders)
        self._slots = WorkerSlots(start, layout, patience, Events(self._give_orders, self._receive, self._count_death))
        self._loads = Loads(self._slots.start_extra, self._lose)
        self._next_model = 1
        self._emptied = asyncio.Event()
        self._slots.start_all()

    @property
    def serving_count(self) -> int:
        """Workers that have a model to run, with decoders beside them if those are apart."""
        if self._layout.decoders and not any(slot.role == "decode" for slot in self._slots):
            return 0
        return sum(slot.serves for slot in self._slots)

    @property
    def restart_count(self) -> int:
        """Workers that had to be replaced."""
        return self._slots.restart_count

    @property
    def waiting_count(self) -> int:
        """Inputs that wait."""
        return self._queues.waiting_count + len(self._undecoded)

    @property
    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [slot.handle.pid for slot in self._slots]

    async def load(
        self, name: str, version: int, config: GraphConfig | None, on_batch: Callable[[int, int], None]
    ) -> Loaded:
        """Has a model proved by one worker, then by the others; returns once it may be asked, or is refused.

        Args:
            name: Of the model.
            version: Of the model.
            config: Of a graph without a manifest; None: it is a bundle.
            on_batch: Told the size of each of its batches, and of inputs dropped before their run.
        """
        model = self._next_model
        self._next_model += 1
        answer = self._loads.add(Load(model, name, version, config))
        self._give_loads()
        try:
            loaded = await answer
        except asyncio.CancelledError:
            self._forget(model)
            raise
        if not loaded.refused:
            run_s = {bucket: Estimate(seconds) for bucket, seconds in loaded.run_s.items()}
            queue = ModelQueue(model, run_s, on_batch)
            self._queues.add(queue)
            self._by_model[model] = queue, loaded.manifest
        return loaded

    async def unload(self, model: int) -> None:
        """Takes nothing more for a model, waits until what has come in is answered, has every worker forget it."""
        found = self._by_model.get(model)
        if found is None:
            return
        queue, _ = found
        queue.closing = True
        while not self._slots.closing and self._is_asked(queue):
            self._emptied.clear()
            await self._emptied.wait()
        self._forget(model)

    def _is_asked(self, queue: ModelQueue) -> bool:
        waits = queue.waiting_count or self._undecoded.has(queue)
        works = any(
            any(batch.queue is queue for batch in slot.batches)
            or any(job.model == queue.model for job in slot.decoding)
            for slot in self._slots
        )
        return bool(waits or works)

    def _forget(self, model: int) -> None:
        self._loads.remove(model)
        found = self._by_model.pop(model, None)
        if found:
            self._queues.remove(found[0])
            self._tell(found[0].empty(), NotServingError("the model is being unloaded"))
        for slot in self._slots:
            slot.models.discard(model)
            slot.refused.pop(model, None)
            if slot.role != "decode":
                slot.handle.send(Unload(model))
        self._on_change()

    def submit(self, job: Job) -> None:
        """Takes an input in; `job.deliver` is told the outcome, once.

        Raises:
            ServiceError: It may not come in, see `admission`.
        """
        found = self._by_model.get(job.model)
        if found is None:
            raise NotServingError("the model is being unloaded")
        queue, manifest = found
        decoded_as = manifest if self._layout.decoders and job.input.dtype is None else None
        busy_s = self._busy_s() + (0.0 if decoded_as is None else self._undecoded.wait_s())
        self._queues.admit(queue, job, self.serving_count, busy_s)
        if decoded_as is not None:
            self._undecoded.add(queue, decoded_as, job)
            self._give_pictures()
        else:
            queue.insert(job)
            self._give_batches()

    def leave(self, job: Job) -> None:
        """The caller of a job has left. One that waits leaves its queue at once; whoever works on one looks at its
        block in the arena.
        """
        found = self._by_model.get(job.model)
        if found is None:
            return
        queue, _ = found
        waited = queue.discard(job) or self._undecoded.discard(job)
        if waited:
            queue.on_batch(0, 1)
            job.deliver(None)
            self._emptied.set()

    def predicted_wait_s(self) -> float:
        """How long a new input would wait for a worker."""
        return self._queues.predicted_s(self.serving_count, self._busy_s() + self._undecoded.wait_s())

    def kill(self) -> None:
        """Ends every process at once."""
        self._slots.kill()

    async def close(self) -> None:
        """Ends every process: idle ones leave by themselves, what hangs or loads is killed."""
        self._emptied.set()
        await self._slots.close()

    def _busy_s(self) -> float:
        """Until the first worker could run what comes now, by what its batches should take."""
        now = time.monotonic()
        left = [
            max(0.0, slot.batches[-1].ends_at - now) if slot.batches else 0.0
            for slot in self._slots
            if slot.serves and slot.loading is None
        ]
        return min(left, default=0.0)

    def _give_batches(self) -> None:
        depth, now = self._layout.depth, time.monotonic()
        free = [slot for slot in self._slots if slot.has_room(depth, now)]
        free.sort(key=lambda slot: len(slot.batches), reverse=True)  # the emptiest is last, and first served
        while free:
            large_count = sum(slot.has_large_picture for slot in self._slots)
            room = self._max_decoding_bytes - sum(slot.decoding_bytes for slot in self._slots)
            chosen = self._queues.next_batch(self.serving_count, large_count, free[-1].models, room)
            if chosen is None:
                free.pop()
                continue
            queue, taken = chosen
            if taken.expired:
                queue.on_batch(0, len(taken.expired))
                fastest_s, now = next(iter(queue.costs().values())), time.monotonic()
                for job in taken.expired:
                    job.deliver(DeadlineTooShortError(job.deadline - now, fastest_s))
            taken = replace(taken, batch=brought(taken.batch))
            if taken.batch:
                slot = free[-1]
                began_at = max([time.monotonic(), *(batch.ends_at for batch in slot.batches)])
                self._run(slot, Batch(queue, taken, began_at, began_at + queue.expected_s(taken)))
                if not slot.has_room(depth, now):
                    free.pop()

    def _run(self, slot: WorkerSlot, batch: Batch) -> None:
        if not slot.batches:
            self._slots.watch_run(slot)
        slot.batches.append(batch)
        jobs = batch.taken.batch
        inputs, deadlines = [job.input for job in jobs], [job.deadline for job in jobs]
        slot.handle.send(Run(batch.queue.model, batch.taken.bucket, inputs, deadlines))

    def _give_pictures(self) -> None:
        for slot, order in self._undecoded.orders(self._slots, self._max_decoding_bytes):
            self._slots.watch_run(slot)
            slot.handle.send(order)

    def _take_decoded(self, slot: WorkerSlot, decoded: Decoded) -> None:
        jobs, slot.decoding = slot.decoding, []
        slot.watch(None)
        self._slots.works(slot)
        for job, outcome, seconds in zip(jobs, decoded.outcomes, decoded.seconds, strict=True):
            found = self._by_model.get(job.model)
            if isinstance(outcome, Exception):
                job.deliver(outcome)
            elif found is None:
                job.deliver(NotServingError("the model is being unloaded"))
            else:
                job.input, job.decode_s = outcome, seconds
                if not job.alone:
                    found[0].apart_s.learn(seconds)
                found[0].insert(job)
        self._give_pictures()

    def _finish(self, slot: WorkerSlot, done: Done) -> None:
        batch = slot.batches.popleft()
        now = time.monotonic()
        self._slots.watch_next(slot)
        if slot.batches:
            late_s = now - slot.batches[0].began_at
            slot.batches[0].began_at, slot.batches[0].ends_at = now, slot.batches[0].ends_at + late_s
        self._slots.works(slot)
        jobs = batch.taken.batch
        batch.queue.on_batch(done.run_count, len(jobs) - done.run_count)
        if done.run_count:
            batch.queue.learn(batch.taken, done.bucket, done.preprocess_s, done.inference_s)
        for job, outcome in zip(jobs, done.outcomes, strict=True):
            if isinstance(outcome, Exception):
                job.deliver(outcome)
                continue
            queue_s = max(0.0, batch.began_at - job.queued_at - job.decode_s)
            preprocess_s = done.preprocess_s + job.decode_s
            job.deliver(Scored(outcome, preprocess_s, queue_s, done.inference_s, done.run_count))

    def _give_orders(self) -> None:
        self._give_loads()
        self._give_pictures()

    def _give_loads(self) -> None:
        if self._slots.closing:
            return
        for slot, load in self._loads.orders(self._slots):
            slot.handle.send(load)
            if not slot.batches:
                self._slots.watch_next(slot)

    def _receive(self, slot: WorkerSlot, message: Any) -> None:
        if self._slots.closing:
            return
        if isinstance(message, Done):
            self._finish(slot, message)
        elif isinstance(message, Decoded):
            self._take_decoded(slot, message)
        elif isinstance(message, Loaded):
            self._take_loaded(slot, message)
        self._give_batches()
        self._emptied.set()

    def _take_loaded(self, slot: WorkerSlot, message: Loaded) -> None:
        self._loads.loaded(slot, message)
        self._slots.watch_next(slot)
        self._loads.find_lost(self._slots, self._layout.workers)
        if slot.extra:
            self._slots.dismiss(slot)
        self._give_loads()
        self._on_change()

    def _count_death(self, slot: WorkerSlot, status: int, of_its_work: bool) -> None:
        """Gives the inputs that a worker had when it ended to others, or tells their callers; so for models to load."""
        for index, batch in enumerate(slot.batches):
            jobs = batch.taken.batch
            for job in jobs:
                if index:  # it only lay ready
                    self._run_elsewhere(job)
                else:
                    self._run_again(job, fatal=(of_its_work and len(jobs) == 1) or (slot.hangs and job.suspect))
        fatal = of_its_work and len(slot.decoding) == 1
        for job in slot.decoding:  # its array may lie where it was: it cannot be decoded again
            job.deliver(_fatal() if fatal else _died())
        self._loads.died(slot, status, was_killed=not of_its_work and not slot.hangs)
        self._loads.find_lost(self._slots, self._layout.workers)
        if not self.serving_count:
            self._tell([*self._queues.empty(), *self._undecoded.empty()], NotServingError("no worker is ready"))
        if slot.extra:  # of others, a successor will be started
            self._give_loads()
        self._give_batches()
        self._emptied.set()
        self._on_change()

    def _run_again(self, job: Job, *, fatal: bool) -> None:
        """What may have ended a worker is run once more, alone; what has is given to no other."""
        if fatal:
            job.deliver(_fatal())
        elif job.suspect:
            job.deliver(_died())
        else:
            job.suspect = True
            self._run_elsewhere(job)

    def _run_elsewhere(self, job: Job) -> None:
        found = self._by_model.get(job.model)
        if found and any(slot.serves and job.model in slot.models for slot in self._slots):
            found[0].insert(job)
        else:
            job.deliver(_died())

    def _lose(self, known: Known, reason: str) -> None:
        log.error("no worker can run this model any more", **known.label, reason=reason)
        model = known.order.model
        found = self._by_model.pop(model, None)
        if found:
            self._queues.remove(found[0])
            self._tell(found[0].empty(), NotServingError(reason))
        self._on_lost(model, reason)

    def _tell(self, jobs: Sequence[Job], outcome: Outcome) -> None:
        for job in jobs:
            job.deliver(outcome)


def _died() -> NotServingError:
    return NotServingError("the worker that held this call died")


def _fatal() -> InferenceFailedError:
    return InferenceFailedError("a worker ended over this input")
