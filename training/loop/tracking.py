"""Who is told of each epoch, beside `metrics.jsonl`."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from taxon.training.config import RunOptions
from taxon.training.loop.mlflow import MlflowRun
from taxon.training.loop.tensorboard import Events
from taxon.training.runs.folder import Run


class Tracker(Protocol):
    """Shows figures of a run elsewhere."""

    def write(self, line: Mapping[str, Any]) -> None:
        """One epoch's line of `metrics.jsonl`."""
        ...

    def end(self) -> None:
        """The training is done."""
        ...


def tracking(options: RunOptions, run: Run, epochs_done: int, say: Callable[[str], None]) -> list[Tracker]:
    """Those that were asked for.

    Raises:
        TrainingError: A package is missing, or a server cannot be used.
    """
    trackers: list[Tracker] = []
    if options.tensorboard:
        trackers.append(Events(run.folder, epochs_done))
    if options.mlflow:
        trackers.append(MlflowRun(run, say))
    return trackers
