"""The lane of explanations: a few at a time, and each of their runs only where a worker would be idle.

So classification goes before them, wherever both want a worker, and under load they are refused.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from taxon.service.errors import DeadlineTooShortError, QueueFullError
from taxon.service.models.model import Model
from taxon.service.scheduling.batching import Scored
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.executor import Executor, Payload

MOST_AT_ONCE = 2
"""Explanations of one front that run."""
MOST_WAITING = 8
"""That wait for those: each keeps its picture in memory."""
PATIENCE_S = 1.0
"""How long an explanation waits for its turn, and each run for an idle worker."""
LOOK_S, MOST_LOOK_S = 0.01, 0.1
"""Until it looks again, the first time and in the end: each look may cost a copy of the picture."""
RETRY_S = 2.0


class Lane:
    """Of one front. Lives on its event loop."""

    def __init__(self, executor: Executor, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._executor = executor
        self._metrics = metrics
        self._clock = clock
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting_count = 0

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """For one explanation.

        Args:
            deadline: Point of `time.monotonic()`.

        Raises:
            QueueFullError: Others have all turns, and no turn came in time.
        """
        if self._waiting_count >= MOST_WAITING:
            raise self._refusal(f"{self._waiting_count} explanations wait already")
        self._waiting_count += 1
        try:
            async with asyncio.timeout_at(min(deadline, self._clock() + PATIENCE_S)):
                await self._turns.acquire()
        except TimeoutError:
            raise self._refusal(f"{MOST_AT_ONCE} explanations are under way") from None
        finally:
            self._waiting_count -= 1
        try:
            yield
        finally:
            self._turns.release()

    async def run(self, model: Model, payload: Payload, deadline: float, *, explained: bool = False) -> Scored:
        """One run of a model.

        Args:
            model: Found.
            payload: An encoded picture, or the array that the graph takes.
            deadline: Point of `time.monotonic()`.
            explained: See `Input`.

        Raises:
            QueueFullError: No worker was idle for a while.
            ServiceError: As `Executor.submit`.
            PictureError: The same.
        """
        began = self._clock()
        patient_until, pause_s = began + PATIENCE_S, LOOK_S
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    scored = await self._executor.submit(
                        model.number, payload, deadline, 0, model.picture_bytes, background=True, explained=explained
                    )
            except QueueFullError:
                if self._clock() + pause_s >= deadline:
                    raise DeadlineTooShortError(0.0, self._clock() - began) from None
                if self._clock() >= patient_until:
                    raise self._refusal(
                        "the server is busy, and explanations run only where a worker is idle"
                    ) from None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_LOOK_S)
                continue
            except TimeoutError:
                raise DeadlineTooShortError(0.0, self._clock() - began) from None
            self._metrics.count_explanation_run(model.name, model.version)
            return scored

    def _refusal(self, reason: str) -> QueueFullError:
        return QueueFullError(reason, RETRY_S, queued_count=self._waiting_count, max_queued_count=MOST_WAITING)
