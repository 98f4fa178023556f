"""Every option of the recipe, once through the whole training."""

import argparse
import shutil

import pytest
import torch

from taxon.training import flags
from taxon.training.commands.train import main
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.plan import resolved
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


def train(here, *words: str) -> Run:
    base = ["--data", "pictures", "--model", "small_cnn", "--epochs", "6", "--batch-size", "8", "--no-report"]
    assert main([*base, "--out", "run", *words]) == 0
    return Run.open(here / "run")


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
        "--precision fp16",
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


def parse(*words: str) -> Recipe:
    return flags.parse(list(words), argparse.ArgumentParser()).recipe


def test_every_option_has_a_help_text():
    parser = argparse.ArgumentParser()
    flags.parse([], parser)
    assert [action.dest for action in parser._actions if not action.help] == []
    assert all(field.description for _, _, field in flags.options())


def test_no_two_options_have_one_flag():
    """argparse would refuse; this names the reason."""
    names = [key for section, key, _ in flags.options() if f"{section}.{key}" not in flags.SHORT]
    assert len(set(names)) == len(names)


def test_flags_go_over_set_over_the_recipe_over_defaults(tmp_path):
    (tmp_path / "r.toml").write_text("[optim]\nlr = 0.1\nepochs = 7\nmomentum = 0.5\n")
    words = ["--recipe", str(tmp_path / "r.toml"), "--set", "optim.lr=0.2", "--set", "optim.epochs=8", "--lr", "0.3"]
    found = parse(*words).optim
    assert (found.lr, found.epochs, found.momentum, found.batch_size) == (0.3, 8, 0.5, 32)


def test_set_takes_words_and_lists():
    found = parse("--set", "model.mode=head", "--set", 'model.frozen=["a","b"]').model
    assert (found.mode, found.frozen) == ("head", ("a", "b"))


def test_toml_gives_the_same_recipe_back(tmp_path):
    recipe = resolved(parse("--data", "x", "--weights", "none", "--reset", "a", "b", "--image-size", "9"))
    (tmp_path / "r.toml").write_text(flags.to_toml(recipe))
    assert flags.checked(flags.read_toml(str(tmp_path / "r.toml"))) == recipe


@pytest.mark.parametrize("text", ["[optim\n", "lr = 1\n", "[optim]\nlr = 'fast'\n", "[optim]\nepochz = 1\n"])
def test_recipes_with_faults_are_refused(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(TrainingError):
        parse("--recipe", str(tmp_path / "r.toml"))


@pytest.mark.parametrize("name", flags.recipe_names())
def test_recipes_of_the_package_are_valid_and_say_what_they_give(name):
    resolved(parse("--recipe", name))
    header = (flags.RECIPES / f"{name}.toml").read_text().splitlines()
    assert header[0].startswith("# ")
    for word in ("# command ", "# hardware ", "# expected "):
        assert any(line.startswith(word) for line in header), word


def test_a_dry_run_prints_the_plan_and_trains_nothing(here, capfd):
    words = ["--data", "pictures", "--model", "small_cnn", "--epochs", "6", "--batch-size", "8", "--dry-run"]
    assert main([*words, "--out", "run"]) == 0
    printed = capfd.readouterr().out
    assert "scratch" in printed
    assert "steps" in printed
    assert "fc" in printed
    assert not (here / "run").exists()
    assert 'optimizer = "adamw"' in printed
