"""Who is told of each epoch, beside `metrics.jsonl`."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from taxon import extras
from taxon.training.config import RunOptions
from taxon.training.errors import TrainingError
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


def check_trackers(options: RunOptions) -> None:
    """Refuses those that cannot be, before any picture is decoded.

    Raises:
        TrainingError: A package is missing, or where MLflow is.
    """
    for name in ("tensorboard", "mlflow"):
        if getattr(options, name) and importlib.util.find_spec(name) is None:
            raise TrainingError(f"--{name} needs its package: {extras.install(name)}")
    if options.mlflow and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise TrainingError("--mlflow needs to know where: set MLFLOW_TRACKING_URI, such as http://localhost:5000")


def tracking(options: RunOptions, run: Run, epochs_done: int, say: Callable[[str], None]) -> list[Tracker]:
    """Those that were asked for, and are there.

    Raises:
        TrainingError: A server cannot be used.
    """
    trackers: list[Tracker] = []
    if options.tensorboard:
        trackers.append(Events(run.folder, epochs_done))
    if options.mlflow:
        trackers.append(MlflowRun(run, say))
    return trackers
