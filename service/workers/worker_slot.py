"""The place of one worker: its process, the models that it has, what it owes. Pure state."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from taxon.service.scheduling.batching import Job
from taxon.service.scheduling.model_queue import ModelQueue
from taxon.service.workers.child_process import ChildProcess
from taxon.service.workers.worker_protocol import Role

AHEAD_S = 0.003
"""Of a batch's end, by what it should take, its worker may be given the next."""

BESIDE_S = 30.0
"""Of a load that takes only idle time. On a machine that is asked for more than it can do, there is none."""

BUSY_SHARE = 0.5
"""Of that time, above which it is a worker's batches that leave none: else the load is a long one."""


@dataclass(eq=False)
class Batch:
    """What a worker has to run, or a decoder to decode."""

    queue: ModelQueue
    jobs: Sequence[Job]
    bucket: int
    """The size that they are padded to; 0: they are decoded."""
    began_at: float
    """When it was sent, or when the one before it was done."""
    ends_at: float
    """When it should be done, by what it should take."""


@dataclass(eq=False)
class WorkerSlot:
    """What a pool knows of one worker."""

    number: int
    role: Role
    handle: ChildProcess
    extra: bool = False
    """Whether it was started only to prove models that might end it."""
    models: set[int] = field(default_factory=set)
    """Which it has proved."""
    refused: dict[int, str] = field(default_factory=dict)
    """Which it would not take, though another worker did, and why."""
    loading: int | None = None
    """Which it proves now."""
    beside: bool = False
    """Whether it does so beside batches, its own or others'."""
    loading_since: float = 0.0
    """Point of `time.monotonic()`."""
    busy_s: float = 0.0
    """What its batches have taken since."""
    trying: str = ""
    """The variant of it that it tries."""
    batches: deque[Batch] = field(default_factory=deque)
    """What it has to do, the one that it does first."""
    watchdog: asyncio.TimerHandle | None = None
    """Kills it if the batch that it works on takes too long."""
    load_watchdog: asyncio.TimerHandle | None = None
    """Kills it if its load takes too long."""
    hangs: Literal["", "a batch", "a load", "a wait for idle time"] = ""
    """Over what it was killed by a watchdog."""

    @property
    def runs(self) -> bool:
        """Whether it runs models for callers."""
        return self.role != "decode" and not self.extra

    @property
    def serves(self) -> bool:
        """Whether it has a model to run for callers."""
        return self.runs and bool(self.models)

    def away(self, now: float) -> bool:
        """Whether it takes no batch before its load is done; on a CPU also if its batches leave no time for that."""
        if self.loading is None:
            return False
        took_s = now - self.loading_since
        starved = self.takes_idle_time and took_s >= BESIDE_S and self.busy_s >= BUSY_SHARE * took_s
        return starved or not self.beside

    @property
    def takes_idle_time(self) -> bool:
        """Whether its load takes only time that nobody else wants."""
        return self.beside and self.role == "whole"

    def has_room(self, depth: int, now: float) -> bool:
        """Whether it can be given another batch: it has fewer than `depth`, or the one that it has is nearly done. Then
        it need not wait for a busy server to take its answer and send the next.
        """
        if not self.serves or self.away(now):
            return False
        if len(self.batches) < depth:
            return True
        # One that is long overdue may hang, and would take the next along.
        return len(self.batches) == 1 and -AHEAD_S < self.batches[0].ends_at - now < AHEAD_S

    @property
    def has_large_picture(self) -> bool:
        """Whether it works on an input that runs alone."""
        return any(batch.jobs[0].alone for batch in self.batches)

    @property
    def decoding_bytes(self) -> int:
        """Memory for the large pictures that it has to decode."""
        return sum(job.decoding_bytes for batch in self.batches for job in batch.jobs)

    def watch(self, watchdog: asyncio.TimerHandle | None) -> None:
        """Replaces the watchdog over its batch."""
        if self.watchdog:
            self.watchdog.cancel()
        self.watchdog = watchdog

    def watch_load(self, watchdog: asyncio.TimerHandle | None) -> None:
        """Replaces the watchdog over its load."""
        if self.load_watchdog:
            self.load_watchdog.cancel()
        self.load_watchdog = watchdog
