"""One input → its answer: permit, submit, await, rank. Reads aloud; every stage is another module's.

Knows no protobuf.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from taxon.bundle.answers import parted
from taxon.bundle.distributions import side
from taxon.bundle.manifest import Measure
from taxon.choice import Choice
from taxon.service.errors import FieldInvalidError
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.models.routing import Outcome, Routed, Routing, outcome_of
from taxon.service.models.shadowing import Shadowing
from taxon.service.ranking import Ranked
from taxon.service.scheduling.admission import Permits
from taxon.service.scheduling.batching import Scored
from taxon.service.scheduling.picture_size import Encoded, header_pixels
from taxon.service.telemetry import calls
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.executor import Executor, Payload

# Inputs of one call that are worked on at once: enough to fill batches, few enough to leave permits to other callers.
CALL_CONCURRENCY = 32
# A deadline travels in whole milliseconds, and its clock is another one.
LATE_S = 0.02
STAGES = ("preprocess", "queue", "inference", "total")

Ran = tuple[Payload, Scored]
"""An input and its answer."""


class Answer(NamedTuple):
    """What is known about one input."""

    ranked: Ranked
    model: Model
    scored: Scored


class Pipeline:
    """The way of every input through the server."""

    def __init__(
        self,
        repository: Repository,
        permits: Permits,
        executor: Executor,
        routing: Routing,
        shadowing: Shadowing,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._permits = permits
        self._executor = executor
        self._routing = routing
        self._shadowing = shadowing
        self._metrics = metrics
        self._clock = clock

    def turns(self) -> asyncio.Semaphore:
        """For the inputs of one call, which take their turns: never more at once than there are permits, or a call
        would be refused because of itself.
        """
        return asyncio.Semaphore(min(CALL_CONCURRENCY, self._permits.max_count))

    async def classify(self, given: Encoded | Sequence[float], choice: Choice, deadline: float) -> Answer:
        """Classifies one input.

        Args:
            given: Encoded bytes or features, as the caller sent them.
            choice: Of the model and of what to return.
            deadline: Point of `time.monotonic()`.

        Raises:
            ServiceError: See `service.errors`.
            PictureError: See `taxon.bundle.picture_limits`.
        """
        arrived = self._clock()
        found = self._repository.find_classifier(choice.model_name, choice.model_version)
        routed = self.route(found, choice.model_version, choice.routing_key)
        model = routed.model
        try:
            payload = checked(given, model)
            scored = await self.run(model, payload, deadline)
        except (Exception, asyncio.CancelledError) as error:
            self.failed(routed, error, self._clock() - arrived, deadline)
            raise
        self.answered(routed, [(payload, scored)], scored.total_s)
        if model.ranking is None:
            raise TypeError("a classifier has a ranking")
        return Answer(model.ranking.rank(scored.scores, choice.max_results, choice.min_score), model, scored)

    def route(self, found: Model, version: str, key: str, *, tensors: bool = False) -> Routed:
        """See `Routing.route`."""
        routed = self._routing.route(found, version, key, tensors=tensors)
        calls.found(routed.model.name, routed.model.version)
        return routed

    def answered(self, routed: Routed, ran: Sequence[Ran], total_s: float, output_s: float = 0.0) -> None:
        """Counts an answered call, and has the shadow run on copies of its inputs.

        Args:
            routed: Where it went.
            ran: Its inputs.
            total_s: From its arrival to its answer.
            output_s: Of that, for writing the answer.
        """
        slowest = ran[0][1] if len(ran) == 1 else max((scored for _, scored in ran), key=lambda scored: scored.total_s)
        self._metrics.statistics.answered(
            routed.model.number,
            len(ran),
            total_s,
            slowest.preprocess_s,
            slowest.queue_s,
            slowest.inference_s,
            output_s,
        )
        self._ended(routed, "answer", total_s)
        for payload, scored in ran:
            self._shadowing.copy(routed, payload, scored)

    def failed(self, routed: Routed, error: BaseException, total_s: float, deadline: float) -> None:
        """Counts a call that found its model and was not answered."""
        self._metrics.statistics.failed(routed.model.number, total_s)
        # gRPC ends a call at its deadline by cancelling it, mostly before it is told so here.
        self._ended(routed, outcome_of(error, late=self._clock() > deadline - LATE_S), total_s)

    def _ended(self, routed: Routed, outcome: Outcome, total_s: float) -> None:
        self._metrics.count_version(routed.model.name, routed.model.version, routed.part, outcome)
        self._routing.ended(routed, outcome, total_s)

    async def run(self, model: Model, payload: Payload, deadline: float, priority: int = 0) -> Scored:
        """As `classify`, for a model that has been found, and without ranking.

        Args:
            model: Found.
            payload: An encoded picture, or what the graph takes without the batch axis.
            deadline: Point of `time.monotonic()`.
            priority: 1 is the most urgent, 0 less urgent than any other.
        """
        arrived, span = self._clock(), calls.span()
        with self._permits:
            place = span.place if span else None
            scored = await self._executor.submit(
                model.number, payload, deadline, priority, model.picture_bytes, span=place
            )
        total_s = self._clock() - arrived
        spent = scored.preprocess_s, scored.queue_s, scored.inference_s, total_s
        observe = self._metrics.stage_seconds.observe
        for stage, seconds in zip(STAGES, spent, strict=True):
            observe(seconds, model.name, model.version, stage)
        self._metrics.deadline_slack.observe(deadline - arrived - total_s, model.name, model.version)
        if span:
            waited = ("queue", scored.queue_s), ("preprocess", scored.preprocess_s), ("inference", scored.inference_s)
            span.stages(waited, scored.batch_size, scored.traced)
        self._metrics.statistics.ran(model.number, scored.batch_size, scored.inference_s)
        if model.manifest and (distributions := model.manifest.distributions):
            self._metrics.observed.observe(model.name, model.version, distributions, measures(model, payload, scored))
        return scored._replace(total_s=total_s)


def measures(model: Model, payload: Payload, scored: Scored) -> dict[Measure, float]:
    """What is known of an answered input, see `taxon.bundle.distributions`.

    Args:
        model: A bundle.
        payload: An encoded picture, or what the graph took.
        scored: The answer.
    """
    if model.ranking is None:
        raise TypeError("a classifier has a ranking")
    scores, familiarity = parted(scored.scores, model.ranking.label_count)
    found: dict[Measure, float] = {"score": float(scores.max())}
    if familiarity is not None:
        found["familiarity"] = float(familiarity)
    if scored.brightness is not None:
        found["brightness"] = scored.brightness
    if not isinstance(payload, np.ndarray) and (pixel_count := header_pixels(payload)):
        found["side"] = side(pixel_count)
    return found


def checked(given: Encoded | Sequence[float], model: Model) -> Payload:
    """What the executor takes for a caller's input: pictures as they are, features as an array.

    Raises:
        FieldInvalidError: The input is of the other kind; the model takes another number of features, or one is not
            finite.
    """
    manifest = model.manifest
    if manifest is None:
        raise TypeError("a classifier has a manifest")
    if isinstance(given, bytes | memoryview):
        if manifest.pixels is None:
            raise FieldInvalidError("image", f"model {manifest.name!r} takes features")
        return given
    if manifest.pixels is not None:
        raise FieldInvalidError("features", f"model {manifest.name!r} takes an image")
    array = np.asarray(given, dtype=np.float32)
    if array.shape != manifest.input.shape:
        raise FieldInvalidError("features.values", f"{manifest.input.shape[0]} values are needed, not {array.size}")
    if (wrong := np.flatnonzero(~np.isfinite(array))).size:
        raise FieldInvalidError("features.values", f"every value must be finite, number {wrong[0]} (from 0) is not")
    return array
