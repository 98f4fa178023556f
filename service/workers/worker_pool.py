"""A fixed number of worker processes, whatever happens to each, and the models that they have.

Every model runs here, on CPUs and GPUs. Lives on one event loop. Which model a worker proves is `loads`' decision, what
it works on `dispatcher`'s; processes are started, watched and replaced by `worker_slots`.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import structlog

from taxon.service.errors import NotServingError
from taxon.service.runtime.description import GraphConfig
from taxon.service.scheduling.estimates import Estimate
from taxon.service.scheduling.model_queue import ModelQueue
from taxon.service.telemetry.metrics import OnBatch
from taxon.service.workers.dispatcher import Dispatcher
from taxon.service.workers.layout import Layout
from taxon.service.workers.loads import Known, Loads
from taxon.service.workers.worker_process import StartWorker
from taxon.service.workers.worker_protocol import Decoded, Done, Load, Loaded, Trying, Unload
from taxon.service.workers.worker_slot import WorkerSlot
from taxon.service.workers.worker_slots import Patience, WorkerSlots

log = structlog.get_logger(__name__)


class WorkerPool:
    """The workers and what they have proved."""

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
        self._slots = WorkerSlots(start, layout, patience, self._give_orders, self._receive, self._count_death)
        self._loads = Loads(self._slots.start_extra, self._lose)
        self.dispatcher = Dispatcher(self._slots, layout, max_queued_count, max_decoding_bytes)
        """Who takes jobs on."""
        self._models = itertools.count(1)
        self._slots.places.fill()

    @property
    def serving_count(self) -> int:
        """Workers that can answer callers."""
        return self._slots.serving_count

    @property
    def restart_count(self) -> int:
        """Workers that had to be replaced."""
        return self._slots.places.restart_count

    @property
    def pids(self) -> list[int]:
        """Of the processes that live."""
        return [slot.handle.pid for slot in self._slots]

    async def load(
        self,
        name: str,
        version: int,
        config: GraphConfig | None,
        on_batch: OnBatch,
        takes_over: Callable[[], bool] = lambda: False,
    ) -> Loaded:
        """Has a model proved by one worker, then by the others; returns once it may be asked, or is refused.

        Args:
            name: Of the model.
            version: Of the model.
            config: Of a graph without a manifest; None: it is a bundle.
            on_batch: Told the size of each of its batches, and of inputs dropped before their run.
            takes_over: See `Known`.
        """
        model = next(self._models)
        answer = self._loads.add(Load(model, name, version, config), takes_over)
        self._give_loads()
        try:
            loaded = await answer
        except asyncio.CancelledError:
            self._forget(model)
            raise
        if not loaded.refused:
            run_s = {bucket: Estimate(seconds) for bucket, seconds in loaded.run_s.items()}
            decoded_by = loaded.manifest.pixels if loaded.manifest and self._layout.decoders else None
            self.dispatcher.open(ModelQueue(model, run_s, on_batch, decoded_by=decoded_by))
        return loaded

    async def unload(self, model: int) -> None:
        """Takes nothing more for a model, waits until what has come in is answered, has every worker forget it."""
        await self.dispatcher.finish(model)
        self._forget(model)

    def _forget(self, model: int) -> None:
        self._loads.remove(model)
        self.dispatcher.end(model, NotServingError("the model is being unloaded"))
        for slot in self._slots:
            slot.models.discard(model)
            slot.refused.pop(model, None)
            if slot.role != "decode":
                slot.handle.send(Unload(model))
        self._on_change()

    def kill(self) -> None:
        """Ends every process at once."""
        self._slots.kill()

    async def close(self) -> None:
        """Ends every process: idle ones leave by themselves, what hangs or loads is killed."""
        self.dispatcher.wake()
        await self._slots.close()

    def _give_orders(self) -> None:
        self._give_loads()
        self.dispatcher.give()

    def _give_loads(self) -> None:
        if self._slots.places.closing:
            return
        for slot, load in self._loads.orders(self._slots):
            slot.handle.send(load)
            slot.loading_since, slot.busy_s = time.monotonic(), 0.0
            self._slots.watch_load(slot)

    def _receive(self, slot: WorkerSlot, message: Any) -> None:
        if self._slots.places.closing:
            return
        if isinstance(message, Done | Decoded):
            self.dispatcher.take(slot, message)
        elif isinstance(message, Trying):
            slot.trying = message.variant
        elif isinstance(message, Loaded):
            self._take_loaded(slot, message)
        self.dispatcher.give()

    def _take_loaded(self, slot: WorkerSlot, message: Loaded) -> None:
        self.dispatcher.load_s = time.monotonic() - slot.loading_since
        self._loads.loaded(slot, message)
        slot.watch_load(None)
        self._loads.settle(self._slots, self._layout.workers)
        if slot.extra:
            self._slots.dismiss(slot)
        self._give_loads()
        self._on_change()

    def _count_death(self, slot: WorkerSlot, status: int, of_its_work: bool) -> None:
        self._loads.died(slot, status, of_its_work)
        self._loads.settle(self._slots, self._layout.workers)
        self.dispatcher.lose(slot, of_its_work)
        if slot.extra:  # of others, a successor will be started
            self._give_loads()
        self._on_change()

    def _lose(self, known: Known, reason: str) -> None:
        log.error("no worker can run this model any more", **known.label, reason=reason)
        model = known.order.model
        self.dispatcher.end(model, NotServingError(reason))
        self._on_lost(model, reason)
