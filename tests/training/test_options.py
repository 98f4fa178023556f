"""Every option of the recipe, once through the whole training."""

import shutil
import sys

import pytest
import torch

from taxon.training.commands.train import main
from taxon.training.config import PrivacyOptions
from taxon.training.errors import TrainingError
from taxon.training.loop.privacy import PrivateSteps
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 24, side=12)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def recipe_words() -> list[str]:
    base = ["--data", "pictures", "--model", "small_cnn", "--epochs", "6", "--batch-size", "8", "--no-report"]
    return [*base, "--out", "run"]


def train(here, *words: str) -> Run:
    assert main([*recipe_words(), *words]) == 0
    return Run.open(here / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "--optimizer sgd --lr 0.02",
        "--optimizer adam",
        "--schedule step --step-epochs 3",
        "--schedule constant --warmup-epochs 0",
        "--schedule linear",
        "--layer-decay 0.7",
        "--label-smoothing 0.1",
        "--loss bce",
        "--loss mse --lr 0.01",
        "--l1 1e-5",
        "--weight-decay 0.1",
        "--head mlp:8",
        "--dropout 0.3",
        "--balance weights",
        "--balance sampling",
        "--clip-norm 1",
        "--accumulate 3",
        "--ema 0.9",
        "--mixup 0.2 --lr 0.01",
        "--cutmix 0.5 --mixup 0.2 --lr 0.01",
        "--policy randaugment",
        "--policy trivialaugment",
        "--erase 0.3",
        "--pad 2 --flip 0.5",
        "--scale 0.5",
        "--precision bf16",
        "--precision fp16 --epochs 2 --lr 0.01",  # slow on a CPU
        "--channels-last off",
        "--channels-last on",
        "--image-size 16",
        "--color grayscale",
        "--threads 1",
    ],
)
def test_each_option_trains(here, words):
    assert train(here, *words.split()).checkpoint().metrics["accuracy"] >= 0.9


def test_scaled_decoding_is_kept_with_the_weights(here):
    assert train(here, "--scaled-decoding").checkpoint().pixels.scaled_decoding


def test_the_resampler_is_kept_with_the_weights(here):
    assert train(here).checkpoint().pixels.resampler == "simd"
    shutil.rmtree(here / "run")
    run = train(here, "--resampler", "pillow")
    assert run.checkpoint().pixels.resampler == "pillow"


def test_a_run_from_before_there_were_resamplers_goes_on_with_pillows(here):
    run = train(here, "--resampler", "pillow")
    recipe = run.folder / "recipe.toml"
    recipe.write_text("".join(line for line in recipe.read_text().splitlines(True) if "resampler" not in line))
    assert main(["--resume", "run"]) == 0
    assert main([*recipe_words(), "--resampler", "simd"]) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch.compile's own
def test_compiled_training_gives_an_ordinary_checkpoint(here):
    run = train(here, "--compile")
    run.checkpoint().build_model()


def test_early_stopping_ends_the_training(here):
    run = train(here, "--epochs", "40", "--early-stop", "2", "--lr", "0.01", "--schedule", "constant")
    assert len(run.metrics()) < 40
    assert main(["--resume", "run"]) == 0
    assert len(Run.open(here / "run").metrics()) == len(run.metrics())


def test_an_epoch_without_evaluation_changes_no_weight_and_is_not_the_best(here):
    run = train(here, "--epochs", "5", "--evaluate-every", "2", "--report", "--ema", "0.9")
    assert ["accuracy" in line for line in run.metrics()] == [False, True, False, True, True]
    assert run.checkpoint().epoch in (2, 4, 5)
    assert (run.folder / "report" / "learning_curves.png").exists()
    last = Checkpoint.load(run.last_path).state
    shutil.rmtree(run.folder)
    expected = Checkpoint.load(train(here, "--epochs", "5", "--ema", "0.9").last_path).state
    assert all(torch.equal(last[name], expected[name]) for name in expected)


def test_early_stopping_waits_for_an_evaluation(here):
    words = ["--epochs", "40", "--early-stop", "2", "--lr", "0.01", "--schedule", "constant", "--evaluate-every", "5"]
    count = len(train(here, *words).metrics())
    assert count < 40
    assert count % 5 == 0


def test_a_dry_run_prints_the_plan_and_trains_nothing(here, capfd):
    words = ["--data", "pictures", "--model", "small_cnn", "--epochs", "6", "--batch-size", "8", "--dry-run"]
    assert main([*words, "--out", "run"]) == 0
    printed = capfd.readouterr().out
    assert "scratch" in printed
    assert "steps" in printed
    assert "fc" in printed
    assert not (here / "run").exists()
    assert 'optimizer = "adamw"' in printed


def test_noise_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(TrainingError, match=r"pip install -e '.\[privacy\]'"):
        PrivateSteps(PrivacyOptions(noise=1.0), count=64, batch_size=32, epochs=1)
