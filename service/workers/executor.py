"""Where models run, as the line sees it: an input goes in, scores come out."""

import asyncio
import time
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from taxon.service.errors import DeadlineTooShortError, QueueFullError
from taxon.service.scheduling.admission import retry_delay_s
from taxon.service.scheduling.arena import Arena, Input
from taxon.service.scheduling.batching import Job, Outcome, Scored
from taxon.service.scheduling.memory import Memory
from taxon.service.scheduling.picture_size import Encoded
from taxon.service.telemetry.tracing import Place

Payload = Encoded | NDArray[Any]
"""An encoded picture, or what the graph takes without the batch axis."""


class Line(Protocol):
    """Who takes jobs on: the pool of this process, or what stands for it in a front of its own."""

    def submit(self, job: Job) -> None:
        """Takes an input in; `job.deliver` is told the outcome, once.

        Raises:
            ServiceError: It may not come in.
        """
        ...

    def leave(self, job: Job) -> None:
        """The caller of a job has left; it is still delivered."""
        ...

    def predicted_wait_s(self) -> float:
        """How long a new input would wait."""
        ...


class Executor:
    """Runs inputs, each by way of a block of shared memory."""

    def __init__(self, line: Line, arena: Arena, memory: Memory, number: int = 0, *, decodes_apart: bool) -> None:
        """Submits nothing yet.

        Args:
            line: Who takes jobs on.
            arena: Of this process.
            memory: Of the server.
            number: Of the arena, among those that workers know.
            decodes_apart: Whether pictures are decoded in place by one process for another.
        """
        self._line = line
        self._arena = arena
        self._memory = memory
        self._number = number
        self._decodes_apart = decodes_apart
        self._loop = asyncio.get_running_loop()

    async def submit(
        self,
        model: int,
        payload: Payload,
        deadline: float,
        priority: int = 0,
        room_bytes: int = 0,
        *,
        background: bool = False,
        explained: bool = False,
        span: Place | None = None,
    ) -> Scored:
        """Waits for the scores of one input. Cancelling the call keeps it from being run.

        Args:
            model: Of a loaded model.
            payload: Of the input.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.
            room_bytes: Of the array that an encoded picture becomes.
            background: See `Job`.
            explained: See `Input`.
            span: The same.

        Raises:
            ServiceError: See `service.errors`.
            PictureError: See `taxon.bundle.picture_limits`.
        """
        arena, number, decoding_bytes = self._arena, self._number, 0
        if isinstance(payload, np.ndarray):
            given = Input(number, -1, payload.nbytes, payload.dtype, payload.shape, explained=explained)
        else:
            given = Input(number, -1, len(payload), explained=explained)
            decoding_bytes = self._memory.to_decode(payload)
        byte_count = max(given.byte_count, room_bytes if self._decodes_apart else 0)
        if not arena.reserve(byte_count):
            raise self._no_room()
        # Neither closure knows the job, and the future is let go of at the end: in a circle of references the picture
        # would stay until a collection.
        future: asyncio.Future[Scored] | None = self._loop.create_future()
        offset: int | None = None
        delivered, queued_at = False, time.monotonic()

        def bring(job: Job) -> None:
            # As late as can be: what waits is in the caller's message, and a block of its own would be a second copy.
            nonlocal offset
            offset = arena.allocate(byte_count)
            if offset is None:
                raise self._no_room()
            arena.write(offset, payload)
            job.input, job.bring = given._replace(offset=offset), None

        def expire() -> None:
            if future is not None and not future.done():
                future.set_exception(DeadlineTooShortError(0.0, time.monotonic() - queued_at))

        def deliver(outcome: Outcome) -> None:
            nonlocal delivered
            delivered = True
            if offset is not None:
                arena.free(offset)
            arena.release(byte_count)
            if future is None or future.done() or outcome is None:
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        job = Job(
            model,
            given,
            deadline,
            queued_at,
            deliver,
            priority,
            decoding_bytes=decoding_bytes,
            background=background,
            span=span,
            bring=bring,
        )
        try:
            self._line.submit(job)
        except Exception:
            arena.release(byte_count)
            raise
        timer = self._loop.call_at(deadline, expire)
        try:
            return await cast("asyncio.Future[Scored]", future)
        finally:
            timer.cancel()
            if not delivered:
                if offset is not None:
                    arena.abandon(offset)
                self._line.leave(job)
            future = None

    def predicted_wait_s(self) -> float:
        """How long a new input would wait."""
        return self._line.predicted_wait_s()

    def _no_room(self) -> QueueFullError:
        count = self._arena.reserved_count
        return QueueFullError(
            "the inputs in the server fill its memory",
            retry_delay_s(self.predicted_wait_s()),
            queued_count=count,
            max_queued_count=count,
        )
