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
from taxon.service.scheduling.memory import Memory
from taxon.service.scheduling.picture_size import Encoded
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

    def __init__(self, pool: WorkerPool, arena: Arena, memory: Memory, *, decodes_apart: bool) -> None:
        """Submits nothing yet.

        Args:
            pool: Of the workers.
            arena: Of this process.
            memory: Of the server.
            decodes_apart: Whether pictures are decoded in place by one process for another.
        """
        self._pool = pool
        self._decodes_apart = decodes_apart
        self._arena = arena
        self._memory = memory
        self._loop = asyncio.get_running_loop()

    async def submit(
        self, model: int, payload: Payload, deadline: float, priority: int = 0, room_bytes: int = 0
    ) -> Scored:
        """See `Executor`."""
        arena = self._arena
        given = unplaced(payload, 0)
        decoding_bytes = 0 if isinstance(payload, np.ndarray) else self._memory.to_decode(payload)
        byte_count = max(given.byte_count, room_bytes if self._decodes_apart else 0)
        if not arena.reserve(byte_count):
            raise no_room(arena, self.predicted_wait_s())
        # Neither closure knows the job, and the future is let go of at the end: in a circle of references the picture
        # would stay until a collection.
        future: asyncio.Future[Scored] = self._loop.create_future()
        waiting: asyncio.Future[Scored] | None = future
        offset: int | None = None
        delivered = False

        def bring(job: Job) -> None:
            # As late as can be: what waits is in the caller's message, and a block of its own would be a second copy.
            nonlocal offset
            job.input = placed(arena, job.input, payload, byte_count, self.predicted_wait_s)
            offset, job.bring = job.input.offset, None

        def deliver(outcome: Outcome) -> None:
            nonlocal delivered
            delivered = True
            if offset is not None:
                arena.free(offset)
            arena.release(byte_count)
            settle(waiting, outcome)

        job = Job(
            model,
            given,
            deadline,
            time.monotonic(),
            deliver,
            priority,
            alone=decoding_bytes > 0,
            decoding_bytes=decoding_bytes,
            bring=bring,
        )
        try:
            self._pool.submit(job)
        except Exception:
            arena.release(byte_count)
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if not delivered:
                if offset is not None:
                    arena.abandon(offset)
                self._pool.leave(job)
            raise
        finally:
            waiting = None
            del future

    def predicted_wait_s(self) -> float:
        """See `Executor`."""
        return self._pool.predicted_wait_s()


def unplaced(payload: Payload, arena: int) -> Input:
    """What is known of an input before it has a block."""
    if isinstance(payload, np.ndarray):
        return Input(arena, -1, payload.nbytes, payload.dtype, payload.shape)
    return Input(arena, -1, len(payload))


def placed(
    arena: Arena, given: Input, payload: Payload, byte_count: int, predicted_wait_s: Callable[[], float]
) -> Input:
    """Writes an input into a block of so many bytes: the one copy on its way to a worker.

    Raises:
        QueueFullError: There is no room for it.
    """
    offset = arena.allocate(byte_count)
    if offset is None:
        raise no_room(arena, predicted_wait_s())
    arena.write(offset, payload)
    return given._replace(offset=offset)


def no_room(arena: Arena, wait_s: float) -> QueueFullError:
    """What a caller is told whose input the arena cannot hold."""
    count = arena.reserved_count
    return QueueFullError(
        "the inputs in the server fill its memory", retry_delay_s(wait_s), queued_count=count, max_queued_count=count
    )


def settle(future: "asyncio.Future[Scored] | None", outcome: Outcome) -> None:
    """Wakes a caller, if it still waits."""
    if future is None or future.done() or outcome is None:
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
