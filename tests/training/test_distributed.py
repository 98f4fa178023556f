"""Two processes train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

# Without normalisation and dropout: each process has its own batch statistics and its own dropout.
OPTIONS = ["--model", "cnn2", "--dropout", "0", "--image-size", "16", "--epochs", "3", "--batch-size", "16"]
OPTIONS += ["--pad", "2", "--lr", "0.003", "--balance", "weights", "--no-report"]


def train(root: Path, out: str, processes: int, *more: str) -> tuple[Run, str]:
    """The run, and what was printed."""
    words = ["-m", "taxon.cli", "train", "--data", "pictures", *OPTIONS, "--out", out, *more]
    if processes > 1:
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, check=True, timeout=120, capture_output=True, text=True
    )
    return Run.open(root / out), done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")
    write_folder(root / "pictures", 45, side=16)  # 72 train, 18 val: no multiple of anything
    return root


@pytest.mark.slow
def test_two_processes_reproduce_the_loss_curve_of_one(root):
    (one, printed_by_one), (two, printed_by_two) = train(root, "one", 1), train(root, "two", 2)
    assert len(printed_by_two.splitlines()) == len(printed_by_one.splitlines())  # only the first process speaks
    assert sorted(path.name for path in two.folder.iterdir()) == sorted(path.name for path in one.folder.iterdir())
    for before, after in zip(one.metrics(), two.metrics(), strict=True):
        for name in ("train_loss", "val_loss", "accuracy", "macro_f1"):
            assert after[name] == pytest.approx(before[name], rel=1e-3, abs=1e-4), name
    states = [torch.load(run.last_path, weights_only=True)["state"] for run in (one, two)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_each_validation_sample_counts_once_and_one_process_writes(root):
    run, _ = train(root, "report", 2, "--report", "--epochs", "1")
    figures = json.loads((run.folder / "report" / "metrics.json").read_text())
    assert figures["sample_count"] == len(run.samples("val")) == 18
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert not list(run.folder.glob(".*.tmp"))
