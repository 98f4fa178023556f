"""Inputs of one model → the next batch. A pure rule over what waits and what runs take.

Batches while busy, never on a timer: while one batch runs the next one queues, so an idle server adds no wait
and a busy one fills its batches. Knows deadlines and sizes; not pictures, processes or the wire.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from taxon.service.errors import ServiceError
from taxon.service.scheduling.arena import Input
from taxon.service.telemetry.tracing import Place

# A larger batch must answer this much more per second to be worth the longer wait of its first inputs.
WORTHWHILE_GAIN = 1.02


class Scored(NamedTuple):
    """What came back for one input, and how long each stage took."""

    scores: NDArray[Any]
    """The row of a bundle's `answers`, float32, finite; of a model that takes tensors, a structured array of its
    outputs.
    """
    preprocess_s: float
    queue_s: float
    inference_s: float
    batch_size: int
    """Of the run."""
    traced: Sequence[Place] = ()
    """The sampled calls of the run."""
    brightness: float | None = None
    """Of a picture, see `taxon.bundle.distributions`."""
    total_s: float = 0.0
    """From its arrival, where the pipeline has seen it."""


Outcome = Scored | Exception | None
"""None: nobody waited for it any more, and it was not run."""


@dataclass(slots=True, eq=False)
class Job:
    """One input that waits."""

    model: int
    input: Input
    """Where it lies, and what it is."""
    deadline: float
    """Point of `time.monotonic()`."""
    queued_at: float
    deliver: Callable[[Outcome], None]
    """Told what became of it, once; from then on nobody reads its block."""
    priority: int = 0
    """1 is the most urgent, 0 less urgent than any other."""
    decoding_bytes: int = 0
    """Memory that decoding it takes, if that is much."""
    suspect: bool = False
    """Whether a worker has ended that had it, so that it must not take others along."""
    probe: bool = False
    """Whether it is let in against the estimates, to teach them."""
    decode_s: float = 0.0
    """What a decoder has spent on it."""
    background: bool = False
    """Whether it gives way to all others, as copies for a shadow and explanations do: it comes in only where a worker
    would be idle.
    """
    span: Place | None = None
    """Of its call, if that is sampled."""
    bring: Callable[["Job"], None] | None = None
    """Writes it into its block, once a worker is to have it; None: it is there. May raise a `ServiceError`."""

    @property
    def alone(self) -> bool:
        """Whether it must not make others of its batch wait: a picture of many megapixels."""
        return self.decoding_bytes > 0


class Taken(NamedTuple):
    """What `take` decides."""

    batch: Sequence[Job]
    bucket: int
    """The size that the batch is padded to."""
    expired: Sequence[Job]
    """Not worth a run any more: the answer would come after the deadline."""
    rest: list[Job]


def insert(jobs: list[Job], job: Job) -> None:
    """Queues a job behind all that are as urgent or more."""
    if not job.priority and (not jobs or not jobs[-1].priority):
        jobs.append(job)  # the usual case, without a search
    else:
        bisect.insort_right(jobs, job, key=_urgency)


def _urgency(job: Job) -> float:
    return job.priority or math.inf


def take(jobs: Sequence[Job], now: float, run_s: Mapping[int, float], runner_count: int = 1) -> Taken:
    """Picks the next batch: the first jobs, as many as answers the most inputs per second and none of them too late.
    Only jobs of the first one's type and shape can share its batch.

    Args:
        jobs: Most urgent first, then oldest first.
        now: Point of the clock that deadlines are measured on.
        run_s: Seconds of one run by bucket, ascending in the bucket; the first is bucket 1.
        runner_count: How many runners there are: each takes its share of a short queue, since the next will be free
            before a larger batch would end.
    """
    fastest_s = next(iter(run_s.values()))
    waiting: list[Job] = []
    expired: list[Job] = []
    for job in jobs:
        soonest = now if job.probe else now + fastest_s
        (expired if job.deadline < soonest else waiting).append(job)
    alike = _like_the_first(waiting)
    slack_s = min((job.deadline for job in alike[: max(run_s)]), default=math.inf) - now
    bucket = best_bucket(-(-len(alike) // runner_count), run_s, slack_s)
    batch = alike[:bucket]
    if len(alike) == len(waiting):
        return Taken(batch, bucket, expired, waiting[bucket:])
    in_batch = set(map(id, batch))
    return Taken(batch, bucket, expired, [job for job in waiting if id(job) not in in_batch])


def _like_the_first(waiting: list[Job]) -> list[Job]:
    """The jobs that can be stacked with the first one. Pictures all can; tensors may have free axes."""
    if not waiting:
        return waiting
    if waiting[0].alone or waiting[0].suspect:
        return waiting[:1]
    kind = waiting[0].input.kind
    return [job for job in waiting if not job.alone and not job.suspect and job.input.kind == kind]


def best_bucket(waiting_count: int, run_s: Mapping[int, float], limit_s: float = math.inf) -> int:
    """The bucket that answers the most of `waiting_count` inputs per second, of those that take no longer than
    `limit_s` (1 if none does); of nearly equal ones the smaller.
    """
    best, best_rate = 1, 0.0
    for bucket, seconds in run_s.items():
        if seconds > limit_s:
            break
        rate = min(bucket, waiting_count) / max(seconds, 1e-9)
        if rate > best_rate * WORTHWHILE_GAIN:
            best, best_rate = bucket, rate
        if bucket >= waiting_count:
            break
    return best


def brought(jobs: Sequence[Job]) -> Sequence[Job]:
    """The jobs whose inputs are where workers see them; the others are told why theirs is not."""
    ready = []
    for job in jobs:
        try:
            if job.bring:
                job.bring(job)
            ready.append(job)
        except ServiceError as error:
            job.deliver(error)
    return ready
