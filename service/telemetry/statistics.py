"""What each model has done since it was loaded: counts and times, as the Open Inference Protocol asks for them.

Plain numbers. Lives on the event loop.
"""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, fields

Key = int
"""Of a loaded model: one that is loaded again begins anew."""


@dataclass(slots=True)
class Figures:
    """Of one version of a model. Times are in seconds and summed."""

    success_count: int = 0
    """Requests; one may hold several inputs."""
    success_s: float = 0.0
    fail_count: int = 0
    fail_s: float = 0.0
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    inference_count: int = 0
    """Inputs."""
    last_ms: int = 0
    """When the last request was answered, in milliseconds since 1970 UTC."""
    run_counts: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Runs by batch size. An input of a batch of four counts for a quarter of a run."""
    run_s: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of those runs."""


SUMMED = [one.name for one in fields(Figures) if one.name not in ("last_ms", "run_counts", "run_s")]
ReadStatistics = Callable[[], Awaitable[Mapping[Key, Figures]]]
"""The figures of every model, of all fronts together."""


class Statistics:
    """The figures of every loaded model."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        self.all: dict[Key, Figures] = defaultdict(Figures)
        """The figures of every version that has any, zero at first."""

    def keep(self, keys: Container[Key]) -> None:
        """Drops the figures of all other models: they are served no more."""
        for key in [key for key in self.all if key not in keys]:
            del self.all[key]

    def answered(
        self,
        key: Key,
        inference_count: int,
        total_s: float,
        input_s: float,
        queue_s: float,
        infer_s: float,
        output_s: float = 0.0,
    ) -> None:
        """Counts one answered request. The parts of its time are those of its slowest input."""
        figures = self.all[key]
        figures.success_count += 1
        figures.inference_count += inference_count
        figures.success_s += total_s
        figures.input_s += input_s
        figures.queue_s += queue_s
        figures.infer_s += infer_s
        figures.output_s += output_s
        figures.last_ms = self._clock_ms()

    def failed(self, key: Key, total_s: float) -> None:
        """Counts one request that found its model and was not answered."""
        figures = self.all[key]
        figures.fail_count += 1
        figures.fail_s += total_s

    def ran(self, key: Key, batch_size: int, inference_s: float) -> None:
        """Counts the part that one input has in the run of its batch."""
        figures = self.all[key]
        figures.run_counts[batch_size] += 1 / batch_size
        figures.run_s[batch_size] += inference_s / batch_size


def added(parts: Iterable[Mapping[Key, Figures]]) -> dict[Key, Figures]:
    """The figures of several fronts as one."""
    whole: dict[Key, Figures] = defaultdict(Figures)
    for part in parts:
        for key, figures in part.items():
            sum_of = whole[key]
            for name in SUMMED:
                setattr(sum_of, name, getattr(sum_of, name) + getattr(figures, name))
            sum_of.last_ms = max(sum_of.last_ms, figures.last_ms)
            for size, count in figures.run_counts.items():
                sum_of.run_counts[size] += count
                sum_of.run_s[size] += figures.run_s[size]
    return whole
