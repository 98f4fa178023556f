"""A version in the shadow: run on copies of calls once these have been answered, and compared with what answered them.

Nobody waits for a copy. It comes in only where a worker is idle, so it is the first that an overloaded server sheds,
and a copy that ends its worker is not run again.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.bundle import answers
from taxon.bundle.manifest import GRAPH_OUTPUT
from taxon.service.errors import DeadlineTooShortError
from taxon.service.models.model import Model
from taxon.service.models.repository import Repository
from taxon.service.models.routing import MOST_DEATHS, NO_ROOM, Routed, outcome_of
from taxon.service.models.trials import stands_in
from taxon.service.scheduling.batching import Scored
from taxon.service.telemetry.metrics import Metrics
from taxon.service.workers.executor import Executor, Payload

MOST_AT_ONCE = 4
"""Copies of one front: more would only keep their pictures in memory."""
PATIENCE_S = 5.0
SUMMARY_S = 60.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Summary:
    """What the log says of a shadow from time to time."""

    number: int
    """Of the shadow's model."""
    since: float
    compared_count: int = 0
    same_count: int = 0
    failed_count: int = 0
    shed_count: int = 0
    distance_sum: float = 0.0
    """Of scores, see `distance`."""
    largest_distance: float = 0.0
    seconds: float = 0.0
    """That the shadow took, in all."""
    usual_seconds: float = 0.0
    """That the default took for the same inputs."""


class Shadowing:
    """The copies of one front. Lives on the event loop."""

    def __init__(
        self,
        repository: Repository,
        executor: Executor,
        metrics: Metrics,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Copies nothing yet.

        Args:
            repository: What is served.
            executor: Runs copies.
            metrics: Where comparisons are counted.
            draw: Gives numbers in `[0, 1)`.
            clock: In seconds.
        """
        self._repository = repository
        self._executor = executor
        self._metrics = metrics
        self._draw = draw
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._summaries: dict[str, Summary] = {}
        self._deaths: Counter[int] = Counter()

    def copy(self, routed: Routed, payload: Payload, scored: Scored) -> None:
        """Begins to run a copy of a call that the default has answered, if its share and the load allow.

        Args:
            routed: Where the call went.
            payload: Its input.
            scored: Its answer.
        """
        trial = self._repository.known.trials.get((routed.model.name, "shadow"))
        if trial is None or routed.part != "default" or trial.state != "RUNNING" or self._draw() >= trial.share:
            return
        shadow = self._repository.known.models[trial.name][trial.version]
        if self._deaths[shadow.number] >= MOST_DEATHS:
            return
        if not takes(shadow, routed.model, payload):
            self._count(shadow, "unfit")
        elif len(self._tasks) >= MOST_AT_ONCE:
            self._count(shadow, "shed")
        else:
            task = asyncio.create_task(self._run(shadow, routed.model, payload, scored))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, shadow: Model, default: Model, payload: Payload, answered: Scored) -> None:
        try:
            scored = await self._executor.submit(
                shadow.number, payload, self._clock() + PATIENCE_S, 0, shadow.picture_bytes, background=True
            )
        except (*NO_ROOM, DeadlineTooShortError):
            self._count(shadow, "shed")
            return
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            log.debug("shadow failed", model=shadow.name, version=shadow.version, reason=str(error))
            outcome = outcome_of(error)
            self._count(shadow, outcome)
            self._deaths[shadow.number] += outcome == "fatal"
            if outcome == "fatal" and self._deaths[shadow.number] == MOST_DEATHS:
                log.error("shadow ended workers, nothing more is copied", model=shadow.name, version=shadow.version)
            return
        same, apart = compared(shadow, scored, default, answered)
        if not np.isfinite(apart):
            self._count(shadow, "nan")
            return
        summary = self._count(shadow, "same" if same else "other")
        summary.compared_count += 1
        summary.same_count += same
        summary.distance_sum += apart
        summary.largest_distance = max(summary.largest_distance, apart)
        spent, usual_spent = (each.preprocess_s + each.inference_s for each in (scored, answered))
        summary.seconds += spent
        summary.usual_seconds += usual_spent
        self._metrics.show_shadow(shadow.name, shadow.version, apart, spent, usual_spent)

    def _count(self, shadow: Model, outcome: str) -> Summary:
        """Counts one copy; from time to time the log says what has come of them."""
        self._metrics.shadow_inputs.labels(shadow.name, shadow.version, outcome).inc()
        now = self._clock()
        summary = self._summaries.get(shadow.name)
        if summary is None or summary.number != shadow.number or now - summary.since > SUMMARY_S:
            if summary is not None and summary.number == shadow.number:
                _tell(shadow, summary)
            summary = self._summaries[shadow.name] = Summary(shadow.number, now)
        summary.shed_count += outcome == "shed"
        summary.failed_count += outcome in ("error", "nan", "fatal", "caller", "unfit")
        return summary


def takes(shadow: Model, default: Model, payload: Payload) -> bool:
    """Whether a version can run on an input of the default: a graph on tensors of the same names and kinds; a bundle on
    pictures, and on arrays of the shape that it takes.
    """
    if default.manifest is None:
        return shadow.manifest is None and stands_in(shadow, default, tensors=True)
    if shadow.manifest is None or not stands_in(shadow, default, tensors=False):
        return False
    return not isinstance(payload, np.ndarray) or payload.shape == shadow.manifest.input.shape


def compared(shadow: Model, scored: Scored, default: Model, answered: Scored) -> tuple[bool, float]:
    """Whether two versions' answers to one input agree, and how far apart they are.

    Args:
        shadow: The one, which takes what the other takes.
        scored: Its answer.
        default: The other.
        answered: Its answer.

    Returns:
        Of bundles, whether the top label is the same, and `distance`; of graphs, see `tensor_distance`.
    """
    if shadow.manifest is None:
        return tensor_distance(scored.scores, answered.scores)
    mine, theirs = _scores(shadow, scored), _scores(default, answered)
    labels, usual = shadow.description.labels[GRAPH_OUTPUT], default.description.labels[GRAPH_OUTPUT]
    return labels[int(mine.argmax())] == usual[int(theirs.argmax())], distance(mine, labels, theirs, usual)


def _scores(model: Model, scored: Scored) -> NDArray[np.float32]:
    if model.ranking is None:
        raise TypeError("a classifier has a ranking")
    scores, _ = answers.parted(scored.scores, model.ranking.label_count)
    return scores


def distance(
    mine: NDArray[np.float32], labels: Sequence[str], theirs: NDArray[np.float32], usual: Sequence[str]
) -> float:
    """The largest difference of any label's scores, in `[0, 1]`. A label that only one side has is 0 on the other.

    Args:
        mine: Scores `[K]`.
        labels: Of those.
        theirs: Scores `[L]`.
        usual: Of those.
    """
    if tuple(labels) == tuple(usual):
        return float(np.abs(mine - theirs).max())
    left: dict[str, float] = dict(zip(labels, mine.tolist(), strict=True))
    right: dict[str, float] = dict(zip(usual, theirs.tolist(), strict=True))
    return max(abs(left.get(label, 0.0) - right.get(label, 0.0)) for label in left.keys() | right.keys())


def tensor_distance(mine: NDArray[Any], theirs: NDArray[Any]) -> tuple[bool, float]:
    """Of all outputs of two graphs with the same outputs: whether each row's largest number is at the same place, and
    the largest difference of any number; NaN if one is NaN and the other is not. Outputs of other shapes do not agree.

    Args:
        mine: Structured, see `runtime.packing`.
        theirs: The same.
    """
    same, apart = True, 0.0
    for name in mine.dtype.names or ():
        left, right = (np.atleast_1d(row[name]).astype(np.float64) for row in (mine, theirs))
        if left.shape != right.shape:
            same = False
        elif left.size:
            same &= np.array_equal(left.argmax(axis=-1), right.argmax(axis=-1))
            equal = (left == right) | (np.isnan(left) & np.isnan(right))
            with np.errstate(invalid="ignore"):  # equal infinities
                apart = np.maximum(apart, np.where(equal, 0.0, np.abs(left - right)).max())
    return same, float(apart)


def _tell(shadow: Model, summary: Summary) -> None:
    facts: dict[str, float] = {"shed": summary.shed_count, "failed": summary.failed_count}
    if count := summary.compared_count:
        facts |= {
            "agreement": round(summary.same_count / count, 4),
            "mean_distance": round(summary.distance_sum / count, 4),
            "largest_distance": round(summary.largest_distance, 4),
            "mean_ms": round(summary.seconds / count * 1e3, 3),
            "default_mean_ms": round(summary.usual_seconds / count * 1e3, 3),
        }
    log.info("shadow compared", model=shadow.name, version=shadow.version, compared=summary.compared_count, **facts)
