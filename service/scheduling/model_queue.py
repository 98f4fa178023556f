"""One model's queue, and what is known of its speed. Pure."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from taxon.bundle.manifest import PixelSpec
from taxon.service.scheduling.batching import Job, Taken, insert, take
from taxon.service.scheduling.estimates import Estimate
from taxon.service.telemetry.metrics import OnBatch

# Between two batches a worker waits for the server to take its answer and send the next: measured, on two busy cores.
HAND_OVER_S = 0.0005
# Of decoding a large picture, before one has been seen.
LARGE_PICTURE_S = 0.1
# Costs fade: asked for several times a call, they are computed anew after so long or when a batch has taught.
COSTS_KEPT_S = 0.25


@dataclass(eq=False)
class ModelQueue:
    """What waits for one model."""

    model: int
    run_s: Mapping[int, Estimate]
    """Of one run by bucket, ascending."""
    on_batch: OnBatch
    """Told of each batch."""
    clock: Callable[[], float] = time.monotonic
    decoded_by: PixelSpec | None = None
    """How decoders make arrays of its pictures, where decoding has processes of its own."""
    undecoded: list[Job] = field(default_factory=list)
    """Pictures that wait for one of those."""
    ordinary: list[Job] = field(default_factory=list)
    """What waits for a worker."""
    alone: list[Job] = field(default_factory=list)
    """Large pictures, which wait for whoever decodes."""
    used_s: float = 0.0
    """Worker time that this model has had, for fairness between models."""
    probed_at: float = -1e9
    """When the last probe was let in."""
    closing: bool = False
    decode_s: Estimate = field(init=False)
    """Of one ordinary input, by a worker that runs it too."""
    apart_s: Estimate = field(init=False)
    """Of one ordinary picture, by a process that only decodes."""
    large_s: Estimate = field(init=False)
    """Of decoding one large picture, by whichever process."""
    _costs: dict[int, float] = field(default_factory=dict)
    _costs_until: float = -1e9

    def __post_init__(self) -> None:
        """Begins with what was proven."""
        self.decode_s = Estimate(0.0, self.clock)
        self.apart_s = Estimate(0.0, self.clock)
        self.large_s = Estimate(LARGE_PICTURE_S, self.clock)

    @property
    def waiting_count(self) -> int:
        """Inputs that wait."""
        return len(self.undecoded) + len(self.ordinary) + len(self.alone)

    @property
    def proven_s(self) -> float:
        """Of one input on an idle server, as measured at load: without decoding, which was not."""
        return HAND_OVER_S + self.run_s[1].proven_s

    def is_decoded_apart(self, job: Job) -> bool:
        """Whether a job must go to a decoder before it can be run."""
        return self.decoded_by is not None and job.input.dtype is None

    def insert(self, job: Job) -> None:
        """Queues a job."""
        insert(self._waiting_with(job), job)

    def discard(self, job: Job) -> bool:
        """Takes out a job whose caller has left. Returns whether it still waited here."""
        jobs = self._waiting_with(job)
        if job not in jobs:
            return False
        jobs.remove(job)
        return True

    def _waiting_with(self, job: Job) -> list[Job]:
        if job.alone:
            return self.alone
        return self.undecoded if self.is_decoded_apart(job) else self.ordinary

    def empty(self) -> list[Job]:
        """Takes out everything that waits."""
        jobs = [*self.undecoded, *self.ordinary, *self.alone]
        self.undecoded, self.ordinary, self.alone = [], [], []
        return jobs

    def has_work(self, large_room: float) -> bool:
        """Whether something waits that may run now.

        Args:
            large_room: Bytes that decoding a large picture may take; negative: none may run.
        """
        return bool(self.ordinary) or self._large_to_run(large_room) is not None

    def _large_to_run(self, room: float) -> Job | None:
        return None if self.decoded_by else self._oldest_large(room)

    def _oldest_large(self, room: float) -> Job | None:
        return self.alone[0] if self.alone and self.alone[0].decoding_bytes <= room else None

    def oldest_picture(self, large_room: float) -> Job | None:
        """What a decoder should do first; None if nothing waits that may be decoded now, see `has_work`."""
        large = self._oldest_large(large_room) if self.decoded_by else None
        waiting = self.undecoded[:1] if large is None else [*self.undecoded[:1], large]
        return min(waiting, key=lambda job: job.queued_at, default=None)

    def take_pictures(self, first: Job, most: int) -> Sequence[Job]:
        """Takes out the oldest picture, and if it is not large, others with it.

        Args:
            first: From `oldest_picture`.
            most: Pictures in all.
        """
        if first.alone:
            self.alone.remove(first)
            return [first]
        jobs, self.undecoded = self.undecoded[:most], self.undecoded[most:]
        return jobs

    def take(self, now: float, worker_count: int, large_room: float) -> Taken:
        """Takes out the next batch; the arguments are those of `has_work`."""
        oldest = self._large_to_run(large_room)
        if oldest and (not self.ordinary or oldest.queued_at < self.ordinary[0].queued_at):
            taken = take(self.alone, now, {1: self.large_cost_s()})
            self.alone = taken.rest
        else:
            taken = take(self.ordinary, now, self.costs(), worker_count)
            self.ordinary = taken.rest
        return taken

    def expected_s(self, jobs: Sequence[Job], bucket: int) -> float:
        """Seconds that a worker should need for a batch."""
        return self.large_cost_s() if jobs[0].alone else self.costs()[bucket]

    def large_cost_s(self) -> float:
        """Seconds that a large picture takes, decoded and run."""
        return HAND_OVER_S + self.run_s[1].seconds() + self.large_s.seconds()

    def costs(self) -> dict[int, float]:
        """Seconds that a worker needs for a batch, by bucket."""
        now = self.clock()
        if now >= self._costs_until:
            decode_s = self.decode_s.seconds()
            self._costs = {
                bucket: HAND_OVER_S + estimate.seconds() + bucket * decode_s for bucket, estimate in self.run_s.items()
            }
            self._costs_until = now + COSTS_KEPT_S
        return self._costs

    def backlog_s(self) -> float:
        """Worker seconds that wait here."""
        large_count = 0 if self.decoded_by else len(self.alone)
        if not (self.ordinary or large_count):
            return 0.0
        best_s = min(seconds / bucket for bucket, seconds in self.costs().items())
        return len(self.ordinary) * best_s + large_count * self.large_cost_s()

    def undecoded_s(self) -> float:
        """Decoder seconds that wait here."""
        if not self.decoded_by:
            return 0.0
        return len(self.undecoded) * self.apart_s.seconds() + len(self.alone) * self.large_s.seconds()

    def learn(self, jobs: Sequence[Job], bucket: int, preprocess_s: float, inference_s: float) -> None:
        """Refines the estimates with one finished batch.

        Args:
            jobs: The batch.
            bucket: The size that ran; 0 if its inputs had to be run one by one.
            preprocess_s: Of all inputs together.
            inference_s: Of the run.
        """
        self.used_s += preprocess_s + inference_s
        if jobs[0].alone:
            self.large_s.learn(preprocess_s)
            return
        if bucket:  # what ran teaches the size that ran
            self.run_s[bucket].learn(inference_s)
        self.decode_s.learn(preprocess_s / len(jobs))
        self._costs_until = -1e9
