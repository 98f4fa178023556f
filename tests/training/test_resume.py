"""A killed run, started again, ends with the same bits; and nothing depends on the number of loader processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from taxon.training import flags
from taxon.training.commands.train import main
from taxon.training.finetune import finetune
from taxon.training.plan import resolved
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

OPTIONS = ["--model", "small_cnn", "--epochs", "4", "--batch-size", "8", "--no-report", "--ema", "0.9"]
OPTIONS += ["--pad", "2", "--policy", "trivialaugment", "--mixup", "0.2", "--clip-norm", "1", "--save-seconds", "0"]
OPTIONS += ["--threads", "1"]  # sums over several threads depend on their number, which other tests may have set


def same_state(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal bit by bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "pictures", per_class=60)


def train(pictures: Path, out: str, *more: str) -> Run:
    assert main(["--data", str(pictures), *OPTIONS, "--out", out, *more]) == 0
    return Run.open(pictures.parent / out)


def last_state(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.last_path, weights_only=True)["state"]


def start(pictures: Path, out: str) -> subprocess.Popen:
    words = ["--data", str(pictures), *OPTIONS, "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    code = "import sys; from taxon.training.commands.train import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *words], cwd=pictures.parent, env=environment)


def kill_at(process: subprocess.Popen, run: Path, checkpoints: int) -> None:
    """Kills when `last.pt` has been written so many times."""
    seen: set[int] = set()
    until = time.monotonic() + 60
    while len(seen) < checkpoints:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        if (run / "last.pt").exists():
            seen.add((run / "last.pt").stat().st_mtime_ns)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.faults
@pytest.mark.parametrize("times", [1, 3])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(pictures, times):
    whole = train(pictures, "whole")
    moments = random.Random()
    for _ in range(times):
        process = start(pictures, "killed")
        kill_at(process, pictures.parent / "killed", moments.randint(1, 10))
    again = train(pictures, "killed")
    assert same_state(last_state(whole), last_state(again))
    assert same_state(dict(whole.checkpoint().state), dict(again.checkpoint().state))
    lines = [[{**line, "seconds": 0, "train_seconds": 0} for line in run.metrics()] for run in (whole, again)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["16", "0"])
def test_loader_processes_change_nothing(pictures, cache):
    states = [
        last_state(train(pictures, f"workers-{count}", "--workers", str(count), "--cache-gib", cache, "--epochs", "2"))
        for count in (0, 1, 2)
    ]
    assert same_state(states[0], states[1])
    assert same_state(states[0], states[2])


@pytest.mark.slow
def test_pictures_decoded_each_time_train_the_same_as_cached_ones(pictures):
    assert same_state(last_state(train(pictures, "cached")), last_state(train(pictures, "decoded", "--cache-gib", "0")))


def test_a_training_that_was_told_to_stop_goes_on_with_the_same_bits(pictures):
    whole = train(pictures, "whole")
    recipe = resolved(flags.checked(flags.read_toml("whole/recipe.toml")))
    asked = []

    def goes_on(line):
        asked.append(line["epoch"])
        return line["epoch"] != 2

    stopped = finetune(recipe, pictures.parent / "stopped", goes_on)
    assert asked == [1, 2]
    assert [line["epoch"] for line in stopped.metrics()] == [1, 2]
    finetune(recipe, pictures.parent / "stopped", goes_on)
    assert asked == [1, 2, 3, 4]
    assert same_state(last_state(stopped), last_state(whole))
