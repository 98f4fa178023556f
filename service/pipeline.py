"""One input → its answer: permit, decode, submit, await, rank. Reads aloud; every stage is another module's.

Knows no protobuf.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from taxon.service.errors import DeadlineTooShortError, QueueFullError
from taxon.service.models.repository import Model, Repository, Served
from taxon.service.ranking import Ranked
from taxon.service.runtime.decoding import Array, Encoded, Payload
from taxon.service.scheduling.admission import retry_delay_s
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.executors import Placement
from taxon.service.telemetry.metrics import Metrics
from taxon.service.telemetry.statistics import Spent

# Inputs of one call that are worked on at once: enough to fill batches, few enough to leave permits to other callers.
CALL_CONCURRENCY = 32
STAGES = ("preprocess", "queue", "inference", "total")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caller wants, checked."""

    model_name: str = ""
    """Empty for the only model."""
    model_version: str = ""
    """Empty for the default version; else a decimal number or a label."""
    max_results: int = 0
    """Zero for the usual number."""
    min_score: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each stage."""

    preprocess_s: float
    queue_s: float
    inference_s: float
    total_s: float
    batch_size: int

    def spent(self, output_s: float = 0.0) -> Spent:
        """As the statistics of a request want it; `output_s` is the time since then."""
        return Spent(self.total_s + output_s, self.preprocess_s, self.queue_s, self.inference_s, output_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known about one input."""

    ranked: Ranked
    served: Served
    timing: Timing


class Permits:
    """The right to occupy the server, for a bounded number of inputs. Lives on the event loop."""

    def __init__(self, max_count: int, metrics: Metrics, predicted_wait_s: Callable[[], float]) -> None:
        self.max_count = max_count
        self._predicted_wait_s = predicted_wait_s
        self._held = 0
        metrics.in_flight.set_function(lambda: self._held)

    @property
    def free_count(self) -> int:
        """How many may be taken."""
        return self.max_count - self._held

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds one permit.

        Raises:
            QueueFullError: None is free. Nobody waits for a permit: a longer queue helps no caller.
        """
        if not self.free_count:
            raise QueueFullError(self.max_count, retry_delay_s(self._predicted_wait_s()))
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1


class Pipeline:
    """The way of every input through the server."""

    def __init__(
        self,
        repository: Repository[Served],
        permits: Permits,
        placement: Placement,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._permits = permits
        self._placement = placement
        self._metrics = metrics
        self._clock = clock

    def turns(self) -> asyncio.Semaphore:
        """For the inputs of one call, which take their turns: never more at once than there are permits, or a call
        would be refused because of itself.
        """
        return asyncio.Semaphore(min(CALL_CONCURRENCY, self._permits.max_count))

    async def classify(self, payload: Payload, choice: Choice, deadline: float) -> Answer:
        """Classifies one input.

        Args:
            payload: Encoded bytes or features, as the caller sent them.
            choice: Of the model and of what to return.
            deadline: Point of `time.monotonic()`.

        Raises:
            ServiceError: See `service.errors`.
            PictureError: See `taxon.bundle.pixels`.
        """
        arrived = self._clock()
        served = self._repository.find(choice.model_name, choice.model_version)
        key, statistics = (served.name, served.version), self._metrics.statistics
        try:
            scored, timing = await self.score(served, payload, deadline)
        except (Exception, asyncio.CancelledError):
            statistics.failed(key, self._clock() - arrived)
            raise
        statistics.answered(key, 1, timing.spent())
        ranked = served.ranking.rank(scored.scores, choice.max_results, choice.min_score)
        return Answer(ranked, served, timing)

    async def score(
        self, served: Served, payload: Payload, deadline: float, priority: int = 0
    ) -> tuple[Scored, Timing]:
        """As `classify`, for a model that has been found, and without ranking."""
        return await self._through(
            served, lambda: self._placement.decode(payload, served.manifest, deadline), deadline, priority
        )

    async def run(self, model: Model, array: Array, deadline: float, priority: int = 0) -> tuple[Scored, Timing]:
        """As `score`, for an input that is already what the graph takes.

        Args:
            model: Found.
            array: Without the batch axis.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.
        """

        async def ready() -> Array:
            return array

        return await self._through(model, ready, deadline, priority)

    async def _through(
        self, model: Model, prepare: Callable[[], Awaitable[Array | Encoded]], deadline: float, priority: int
    ) -> tuple[Scored, Timing]:
        arrived = self._clock()
        with self._permits.hold():
            try:
                async with asyncio.timeout_at(deadline):
                    payload = await prepare()
                    decoded = self._clock()
                    scored = await model.runs.submit(payload, deadline, priority)
            except TimeoutError:
                raise DeadlineTooShortError(0.0, self._clock() - arrived) from None
        timing = Timing(
            decoded - arrived + scored.preprocess_s,
            scored.queue_s,
            scored.inference_s,
            self._clock() - arrived,
            scored.batch_size,
        )
        spent = timing.preprocess_s, timing.queue_s, timing.inference_s, timing.total_s
        self._metrics.stage_seconds.observe(model.name, zip(STAGES, spent, strict=True))
        self._metrics.statistics.ran((model.name, model.version), scored.batch_size, scored.inference_s)
        return scored, timing
