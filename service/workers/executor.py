"""Where models run, as the line sees it: an input goes in, scores come out.

`LocalExecutor` is in the process that owns the workers; a front beside others has a `RemoteExecutor`, see `fronts`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taxon.service.errors import QueueFullError
from taxon.service.scheduling.admission import retry_delay_s
from taxon.service.scheduling.arena import Arena, Input
from taxon.service.scheduling.batching import Job, Outcome, Scored
from taxon.service.scheduling.picture_size import Encoded, is_large
from taxon.service.workers.worker_pool import WorkerPool

Payload = Encoded | NDArray[Any]
"""An encoded picture, or what the graph takes without the batch axis."""


class Executor(Protocol):
    """Runs inputs."""

    async def submit(
        self, model: int, payload: Payload, deadline: float, priority: int = 0, room_bytes: int = 0
    ) -> Scored:
        """Waits for the scores of one input. Cancelling the call keeps it from being run.

        Args:
            model: Of a loaded model.
            payload: Of the input.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.
            room_bytes: Of the array that an encoded picture becomes.

        Raises:
            ServiceError: See `service.errors`.
            PictureError: See `taxon.bundle.picture_limits`.
        """
        ...

    def predicted_wait_s(self) -> float:
        """How long a new input would wait."""
        ...


class LocalExecutor:
    """The workers of this process."""

    def __init__(self, pool: WorkerPool, arena: Arena, *, decodes_apart: bool) -> None:
        """Submits nothing yet.

        Args:
            pool: Of the workers.
            arena: Of this process.
            decodes_apart: Whether pictures are decoded in place by one process for another.
        """
        self._pool = pool
        self._decodes_apart = decodes_apart
        self._arena = arena
        self._loop = asyncio.get_running_loop()

    async def submit(
        self, model: int, payload: Payload, deadline: float, priority: int = 0, room_bytes: int = 0
    ) -> Scored:
        """See `Executor`."""
        room_bytes = room_bytes if self._decodes_apart else 0
        given = place(self._arena, 0, payload, room_bytes, self.predicted_wait_s)
        future: asyncio.Future[Scored] = self._loop.create_future()
        delivered = False

        def deliver(outcome: Outcome) -> None:
            nonlocal delivered
            delivered = True
            self._arena.free(given.offset)
            settle(future, outcome)

        alone = not isinstance(payload, np.ndarray) and is_large(payload)
        job = Job(model, given, deadline, time.monotonic(), deliver, priority, alone)
        try:
            self._pool.submit(job)
        except Exception:
            self._arena.free(given.offset)
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if not delivered:
                self._arena.abandon(given.offset)
                self._pool.leave(job)
            raise

    def predicted_wait_s(self) -> float:
        """See `Executor`."""
        return self._pool.predicted_wait_s()


def place(arena: Arena, number: int, payload: Payload, room_bytes: int, predicted_wait_s: Callable[[], float]) -> Input:
    """Writes an input into an arena: the one copy on its way to a worker.

    Raises:
        QueueFullError: There is no room for it.
    """
    if isinstance(payload, np.ndarray):
        byte_count, dtype, shape = payload.nbytes, payload.dtype, payload.shape
    else:
        byte_count, dtype, shape = len(payload), None, ()
    offset = arena.allocate(max(byte_count, room_bytes))
    if offset is None:
        raise QueueFullError(
            "the inputs in the server fill its memory",
            retry_delay_s(predicted_wait_s()),
            queued_count=arena.held_count,
            max_queued_count=arena.held_count,
        )
    arena.write(offset, payload)
    return Input(number, offset, byte_count, dtype, shape)


def settle(future: "asyncio.Future[Scored]", outcome: Outcome) -> None:
    """Wakes a caller, if it still waits."""
    if future.done() or outcome is None:
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
