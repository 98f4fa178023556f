import json
import math

import pytest
import torch

from taxon.training.commands.train import main
from taxon.training.loop import optim
from taxon.training.runs.folder import Run
from tests.training.folders import CLASSES, write_folder, write_picture

SMALL = ["--model", "small_cnn", "--epochs", "2", "--batch-size", "8", "--no-report"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "pictures")


def train(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_folder_becomes_a_run(pictures):
    assert train("--data", pictures, *SMALL, "--epochs", 6, "--out", "run") == 0
    run = Run.open(pictures.parent / "run")
    best = run.checkpoint()
    assert best.labels == ("dark", "light")
    assert best.metrics["accuracy"] == 1.0
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3, 4, 5, 6]
    assert set(run.metrics()[0]) >= {"train_loss", "val_loss", "accuracy", "macro_f1", "seconds"}
    assert len(run.samples("train")) == 32
    assert len(run.samples("val")) == 8
    assert all(sample.path.is_file() for sample in run.samples("val"))
    logits = best.build_model()(torch.zeros(2, 3, 8, 8))
    assert logits.shape == (2, 2)


@pytest.mark.slow
def test_the_bundled_digits_reach_their_accuracy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("--out", "run", "--digits-folder", "digits", "--epochs", 8, "--no-report") == 0
    run = Run.open(tmp_path / "run")
    assert run.checkpoint().metrics["accuracy"] >= 0.97
    assert len(list((tmp_path / "digits" / "val").rglob("*.png"))) == 360
    assert run.checkpoint().pixels.color == "grayscale"


def test_unreadable_files_are_named_counted_and_set_aside(pictures, capfd):
    (pictures / "dark" / "empty.png").touch()
    (pictures / "dark" / "text.jpg").write_text("not a picture")
    whole = (pictures / "light" / "000.png").read_bytes()
    (pictures / "light" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert train("--data", pictures, *SMALL, "--out", "run") == 0
    entries = json.loads((pictures.parent / "run" / "quarantine.json").read_text())
    assert sorted(entry["path"].rpartition("/")[2] for entry in entries) == ["cut.png", "empty.png", "text.jpg"]
    assert all(entry["reason"] for entry in entries)
    printed = capfd.readouterr().out
    assert "3 files cannot be used" in printed
    assert "empty.png" in printed
    used = [s.path.name for split in ("train", "val") for s in Run.open(pictures.parent / "run").samples(split)]
    assert not {"cut.png", "empty.png", "text.jpg"} & set(used)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "there is no data 'nowhere'"),
        (["--data", "pictures", "--model", "resnet81"], "did you mean 'resnet18'"),
        (["--data", "pictures", "--model", "resnet18", "--weights", "none", "--mode", "head"], "--weights"),
        (["--data", "pictures", "--set", "optim.lrr=1"], "did you mean 'optim.lr'"),
        (["--data", "pictures", "--set", "optm.lr=1"], "did you mean 'optim'"),
        (["--data", "pictures", "--set", "lr"], "section.key=value"),
        (["--data", "pictures", "--epochs", "0"], "optim.epochs = '0': input should be greater than or equal to 1"),
        (["--recipe", "digit"], "did you mean 'digits'"),
        (["--data", "pictures", "--model", "mlp"], "takes a CSV file"),
        (["--data", "pictures", "--model", "squeezenet1_1", "--weights", "none", "--image-size", "8"], "8x8"),
        (["--data", "pictures", "--model", "small_cnn", "--device", "tpu"], "--device tpu"),
        (["--data", "pictures", "--model", "small_cnn", "--validate-on", "test"], "no test split"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(pictures, capfd, words, message):
    assert train(*words) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.startswith("taxon train: ")
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_a_class_whose_pictures_are_all_damaged_is_refused(pictures, capfd):
    for number in range(3):
        (pictures / "broken").mkdir(exist_ok=True)
        (pictures / "broken" / f"{number}.png").write_bytes(b"%d" % number)
    assert train("--data", pictures, *SMALL, "--out", "run") == 2
    assert "['broken'] have no usable picture" in capfd.readouterr().err


def test_the_same_seed_gives_the_same_weights(pictures):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train("--data", pictures, *SMALL, "--seed", seed, "--out", out) == 0
    states = [Run.open(pictures.parent / out).checkpoint().state for out in ("a", "b", "c")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_a_loss_that_is_no_number_stops_and_names_step_and_files(pictures, capfd):
    words = ["--data", pictures, *SMALL, "--optimizer", "sgd", "--lr", "1e6", "--warmup-epochs", 0, "--out", "run"]
    assert train(*words) == 2
    error = capfd.readouterr().err
    assert "the loss became nan" in error or "the loss became inf" in error
    assert "step" in error
    assert ".png" in error


def test_after_a_loss_that_is_no_number_the_last_good_checkpoint_goes_on(pictures, monkeypatch):
    """The fourth loss is spoilt once, as by faulty hardware: the run, gone on with, ends as if nothing had been."""
    words = ["--data", pictures, *SMALL, "--save-seconds", 0, "--threads", 1]
    assert train(*words, "--out", "whole") == 0
    loss_function, calls = optim.loss_function, []

    def spoilt(*arguments, **options):
        loss = loss_function(*arguments, **options)
        return lambda logits, targets: loss(logits, targets) * (calls.append(0) or (math.nan if len(calls) == 4 else 1))

    monkeypatch.setattr(optim, "loss_function", spoilt)
    assert train(*words, "--out", "spoilt") == 2
    kept = torch.load("spoilt/last.pt", weights_only=True)
    assert kept["progress"]["position"]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in kept["state"].values())
    assert train("--resume", "spoilt") == 0
    states = [Run.open(pictures.parent / out).checkpoint().state for out in ("whole", "spoilt")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_run_with_another_recipe_or_data_is_not_gone_on_with(pictures, capfd):
    assert train("--data", pictures, *SMALL, "--out", "run") == 0
    assert train("--data", pictures, *SMALL, "--lr", 0.5, "--out", "run") == 2
    assert "optim.lr: 0.001 -> 0.5" in capfd.readouterr().err
    write_picture(pictures / "dark" / "new.png", CLASSES["dark"], 4711)
    assert train("--data", pictures, *SMALL, "--out", "run") == 2
    assert "gained 1 samples" in capfd.readouterr().err


def test_a_complete_run_is_left_as_it_is(pictures):
    assert train("--data", pictures, *SMALL, "--out", "run") == 0
    before = (pictures.parent / "run" / "best.pt").read_bytes()
    assert train("--resume", "run") == 0
    assert (pictures.parent / "run" / "best.pt").read_bytes() == before


def test_fixed_filters_are_of_the_training_pictures_unless_weights_bring_them(pictures):
    start = ["--model", "airbench", "--image-size", 16, "--epochs", 1, "--batch-size", 8, "--no-report"]
    assert train("--data", pictures, *start, "--out", "first") == 0
    first = Run.open(pictures.parent / "first").checkpoint().state["filters"]
    assert not torch.equal(first[:12].flatten(1), torch.eye(12))
    words = ["--weights", "first/best.pt", "--mode", "full", "--seed", 1]
    assert train("--data", pictures, *start, *words, "--out", "second") == 0
    assert torch.equal(Run.open(pictures.parent / "second").checkpoint().state["filters"], first)
