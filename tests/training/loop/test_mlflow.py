"""MLflow as its client sees it: a stand-in keeps what it is told."""

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import pytest

from taxon.training.commands.train import main
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

WORDS = ["--data", "p", "--model", "small_cnn", "--epochs", "2", "--batch-size", "8", "--no-report", "--out", "run"]


class MlflowException(Exception):  # noqa: N818 - MLflow's own name
    pass


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class Server:
    """What `MlflowClient` asks, answered from memory."""

    def __init__(self):
        self.runs, self.params, self.metrics, self.statuses = {}, {}, [], []
        self.is_away = False

    def get_experiment_by_name(self, name):
        self.answers()
        return SimpleNamespace(experiment_id="7") if name == "taxon" else None

    def search_runs(self, experiments, query):
        assert experiments == ["7"]
        return [run for run in self.runs.values() if query == f"tags.`taxon.run_id` = '{run.tags['taxon.run_id']}'"]

    def create_run(self, experiment, tags, run_name):
        run = SimpleNamespace(info=SimpleNamespace(run_id=f"m{len(self.runs)}"), tags=tags, name=run_name)
        self.runs[run.info.run_id] = run
        return run

    def log_batch(self, run_id, metrics=(), params=()):
        self.answers()
        assert len(params) <= 100
        self.params |= dict(params)
        self.metrics += metrics

    def get_metric_history(self, run_id, name):
        return [metric for metric in self.metrics if metric.key == name]

    def update_run(self, run_id, status):
        self.statuses.append(status)

    def set_terminated(self, run_id, status):
        self.answers()
        self.statuses.append(status)

    def answers(self):
        if self.is_away:
            raise MlflowException("no API at http://jane:secret@mlflow.example/2.0\nwith a long trace")


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "")
    server = Server()
    for name, content in {
        "mlflow": {"MlflowClient": lambda: server},
        "mlflow.entities": {"Metric": Metric, "Param": Param},
        "mlflow.exceptions": {"MlflowException": MlflowException},
    }.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    write_folder(tmp_path / "p", 10)
    return server


def test_each_epoch_is_told_once(server, tmp_path):
    assert main([*WORDS, "--mlflow"]) == 0
    run = Run.open(tmp_path / "run")
    (told,) = server.runs.values()
    assert (told.name, told.tags["taxon.run_id"]) == ("run", run.id)
    assert (server.params["model.name"], server.params["optim.epochs"]) == ("small_cnn", "2")
    assert not [name for name in server.params if name.startswith("machine.")]
    expected = {
        (name, value, line["epoch"])
        for line in run.metrics()
        for name, value in line.items()
        if isinstance(value, float)
    }
    assert {(metric.key, metric.value, metric.step) for metric in server.metrics} == expected
    assert len(server.metrics) == len(expected) > 4
    assert server.statuses == ["RUNNING", "FINISHED"]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == ""  # what the environment says stays


def test_a_server_that_goes_away_stops_nothing_and_misses_nothing(server, monkeypatch, capsys):
    real, asked = Server.log_batch, []

    def log_batch(self, run_id, metrics=(), params=()):
        asked.append(len(metrics))
        self.is_away = len([count for count in asked if count]) == 1
        real(self, run_id, metrics, params)

    monkeypatch.setattr(Server, "log_batch", log_batch)
    assert main([*WORDS, "--mlflow"]) == 0
    assert "MLflow has not got" in capsys.readouterr().out
    assert {metric.step for metric in server.metrics} == {1, 2}


def test_a_resumed_run_goes_on_in_its_own_and_sends_the_rest(server, tmp_path, monkeypatch):
    assert main([*WORDS, "--mlflow"]) == 0
    sent = [*server.metrics]
    server.metrics[:] = [metric for metric in sent if metric.step == 1]
    assert main(["--resume", "run"]) == 0
    assert len(server.runs) == 1
    assert [metric[:2] for metric in server.metrics] == [metric[:2] for metric in sent]
    assert {metric.step for metric in server.metrics} == {1, 2}
    assert server.statuses[-1] == "FINISHED"


def test_what_is_missing_is_named(server, monkeypatch, capfd):
    server.is_away = True
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://jane:secret@mlflow.example")
    assert main([*WORDS, "--mlflow"]) == 2
    told = capfd.readouterr().err
    assert "MLflow at http://mlflow.example: no API at http://mlflow.example/2.0\n" in told
    assert "secret" not in told
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["--resume", "run"]) == 2
    assert "MLFLOW_TRACKING_URI" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["--resume", "run"]) == 2
    assert "pip install -e '.[mlflow]'" in capfd.readouterr().err
