"""The figures of a run in MLflow, for those who compare runs there. Imports MLflow only when asked.

Where, says MLflow's own environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, and what its client needs to log in.
"""

import atexit
import os
import time
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from taxon.mistaken import first_line, without_userinfo
from taxon.training.errors import TrainingError
from taxon.training.runs.folder import Run

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Unless the environment says otherwise: MLflow's own would hold up the training for minutes."""
EXPERIMENT = "taxon"
RUN_TAG = "taxon.run_id"
PARAMS_AT_ONCE = 100
"""That MLflow takes."""
PER_MACHINE = ("machine",)
"""Sections of the recipe that do not make it another one."""


class MlflowRun:
    """One run of MLflow for a run; a resumed one goes on in its own. A server that fails later stops nothing: what it
    has missed is sent after the next epoch, or when the run is resumed.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        """Finds or makes the run, and says there what the recipe is.

        Args:
            run: With its recipe.
            say: Tells a person.

        Raises:
            TrainingError: The server cannot be used.
        """
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException

        self._metric, self._error, self._say = Metric, MlflowException, say
        self._waiting: list[Any] = []
        try:
            self._client = MlflowClient()
            self._id = self._found(run) or self._made(run)
            recipe = tomllib.loads((run.folder / "recipe.toml").read_text(encoding="utf-8"))
            params = [Param(name, value) for name, value in _flat(recipe)]
            self._client.update_run(self._id, "RUNNING")
            known = {figure.step for figure in self._client.get_metric_history(self._id, "train_loss")}
            for start in range(0, len(params), PARAMS_AT_ONCE):
                self._client.log_batch(self._id, params=params[start : start + PARAMS_AT_ONCE])
        except MlflowException as error:
            where = without_userinfo(os.environ["MLFLOW_TRACKING_URI"])
            raise TrainingError(f"MLflow at {where}: {first_line(error)}") from error
        atexit.register(self._ended, "KILLED")
        for line in run.metrics():
            if line["epoch"] not in known:
                self.write(line)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if known := self._client.get_experiment_by_name(name):
            return str(known.experiment_id)
        return str(self._client.create_experiment(name))

    def _found(self, run: Run) -> str | None:
        found = self._client.search_runs([self._experiment()], f"tags.`{RUN_TAG}` = '{run.id}'")
        return str(found[0].info.run_id) if found else None

    def _made(self, run: Run) -> str:
        tags = {RUN_TAG: run.id, "taxon.data_digest": run.data_digest, "mlflow.source.name": "taxon train"}
        made = self._client.create_run(self._experiment(), tags=tags, run_name=run.folder.resolve().name)
        return str(made.info.run_id)

    def write(self, line: Mapping[str, Any]) -> None:
        """One epoch's line of `metrics.jsonl`."""
        now_ms, epoch = int(time.time() * 1000), int(line["epoch"])
        floats = ((name, value) for name, value in line.items() if isinstance(value, float))
        self._waiting += [self._metric(name, value, now_ms, epoch) for name, value in floats]
        self._send()

    def _send(self) -> None:
        try:
            self._client.log_batch(self._id, metrics=self._waiting)
            self._waiting = []
        except self._error as error:
            self._say(f"MLflow has not got {len(self._waiting)} figures yet: {first_line(error)}")

    def end(self) -> None:
        """The training is done."""
        if self._waiting:
            self._send()
        self._ended("FINISHED")

    def _ended(self, status: str) -> None:
        atexit.unregister(self._ended)
        try:
            self._client.set_terminated(self._id, status)
        except self._error as error:
            self._say(f"MLflow does not know that the run has ended: {first_line(error)}")


def _flat(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"{section}.{name}", str(value))
        for section, part in recipe.items()
        if section not in PER_MACHINE and isinstance(part, dict)
        for name, value in part.items()
    ]
