"""The places of all workers, and the processes in them: started, watched, killed if they hang, replaced."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from taxon.service.machine import oom_kill_count
from taxon.service.workers.child_process import KILLED
from taxon.service.workers.layout import Layout
from taxon.service.workers.places import Places
from taxon.service.workers.worker_process import StartWorker
from taxon.service.workers.worker_protocol import Role
from taxon.service.workers.worker_slot import BESIDE_S, BUSY_SHARE, WorkerSlot

# After which a worker for a proof is tried again, if it cannot be started.
EXTRA_PAUSE_S = 3.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may take."""

    run_s: float
    """Over one batch."""
    load_s: float
    """Over the proof of one model."""


class WorkerSlots:
    """Every worker that lives. Lives on one event loop."""

    def __init__(
        self,
        start: StartWorker,
        layout: Layout,
        patience: Patience,
        on_start: Callable[[], None],
        on_message: Callable[[WorkerSlot, Any], None],
        on_death: Callable[[WorkerSlot, int, bool], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            start: Starts a worker.
            layout: How many of which kind.
            patience: With a worker, before it is taken to hang and killed.
            on_start: Told that there is a worker more.
            on_message: Told what a worker says.
            on_death: Told that a worker has ended, with this status, and whether of what it did: not because somebody
                killed it. Its place is empty.
        """
        self._start_worker = start
        self._layout = layout
        self._patience = patience
        self._on_start = on_start
        self._on_message = on_message
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, WorkerSlot] = {}
        self.places = Places("worker", layout.workers + layout.decoders, self._start)
        """When workers are started; those for proofs have none."""
        self._retrying = False
        self._oom_kills = oom_kill_count()

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(list(self._slots.values()))

    @property
    def serving_count(self) -> int:
        """Workers that have a model to run, with decoders beside them if those are apart."""
        slots = self._slots.values()
        if self._layout.decoders and not any(slot.role == "decode" for slot in slots):
            return 0
        return sum(slot.serves for slot in slots)

    def start_extra(self) -> WorkerSlot | None:
        """Starts a worker for proofs alone; None if that is impossible now: `on_start` is told when to try again."""
        number = min([-1, *self._slots]) - 1
        try:
            slot = self._slots[number] = self._started(number, "run" if self._layout.decoders else "whole", extra=True)
        except OSError as error:
            log.error("worker for a proof cannot be started, trying again", reason=str(error))
            if not self._retrying:
                self._retrying = True
                self._loop.call_later(EXTRA_PAUSE_S, self._retry)
            return None
        return slot

    def dismiss(self, slot: WorkerSlot) -> None:
        """Ends a worker that is needed no more."""
        self._end(slot)
        self._loop.run_in_executor(None, slot.handle.wait)  # it has much memory to give back

    def _end(self, slot: WorkerSlot) -> None:
        del self._slots[slot.number]
        slot.watch(None)
        slot.watch_load(None)
        slot.handle.close()
        slot.handle.kill()

    def watch_run(self, slot: WorkerSlot) -> None:
        """Kills a worker that takes too long over a batch, from now on."""
        slot.watch(self._loop.call_later(self._patience.run_s, self._kill, slot, "a batch"))

    def watch_load(self, slot: WorkerSlot) -> None:
        """Kills a worker that takes too long over a load, from now on."""
        patience_s = self._patience.load_s
        if slot.extra and slot.takes_idle_time and patience_s > BESIDE_S:
            slot.watch_load(self._loop.call_later(BESIDE_S, self._watch_proof, slot))
        else:
            slot.watch_load(self._loop.call_later(patience_s, self._kill, slot, "a load"))

    def _watch_proof(self, slot: WorkerSlot) -> None:
        """Has a proof that found no idle time begin again; others get it by taking no batches, who proves has none."""
        if slot.handle.cpu_s() < BUSY_SHARE * BESIDE_S:
            self._kill(slot, "a wait for idle time")
        else:
            slot.watch_load(self._loop.call_later(self._patience.load_s - BESIDE_S, self._kill, slot, "a load"))

    def watch_next(self, slot: WorkerSlot) -> None:
        """Watches the batch that a worker does next, if any."""
        if slot.batches:
            self.watch_run(slot)
        else:
            slot.watch(None)

    def kill(self) -> None:
        """Ends every process at once."""
        self.places.closing = True
        for slot in self:
            slot.handle.kill()

    async def close(self) -> None:
        """Ends every process: idle ones leave by themselves, what hangs or loads is killed."""
        self.places.closing = True
        slots = list(self)
        self._slots.clear()
        for slot in slots:
            slot.watch(None)
            slot.watch_load(None)
            slot.handle.close()
            if slot.batches or slot.loading is not None:
                slot.handle.kill()
        await asyncio.gather(*(asyncio.to_thread(slot.handle.wait) for slot in slots))

    def _start(self, number: int) -> None:
        role: Role = "decode" if number >= self._layout.workers else "run" if self._layout.decoders else "whole"
        self._slots[number] = self._started(number, role)
        self._on_start()

    def _started(self, number: int, role: Role, *, extra: bool = False) -> WorkerSlot:
        slot: WorkerSlot
        handle = self._start_worker(
            number, role, lambda message: self._on_message(slot, message), lambda: self._bury(slot)
        )
        slot = WorkerSlot(number, role, handle, extra)
        return slot

    def _retry(self) -> None:
        self._retrying = False
        self._on_start()

    def _kill(self, slot: WorkerSlot, over: Literal["a batch", "a load", "a wait for idle time"]) -> None:
        log.error("worker hangs, killing it", worker=slot.number, over=over)
        slot.hangs = over
        slot.handle.kill()

    def _bury(self, slot: WorkerSlot) -> None:
        """Cleans up after a process that has ended, and starts the next."""
        if self._slots.get(slot.number) is not slot:
            return
        self._end(slot)
        status = slot.handle.wait()  # its socket is closed after its memory: this is short
        before, self._oom_kills = self._oom_kills, oom_kill_count()
        out_of_memory = self._oom_kills > before
        if out_of_memory:
            log.error("the container's memory was exceeded", worker=slot.number)
        self._on_death(slot, status, status != KILLED or out_of_memory)
        if slot.extra and not slot.hangs:
            log.error("worker died while proving a model", status=status)
        elif not slot.extra and not self.places.closing:
            self.places.replace(slot.number, status)
