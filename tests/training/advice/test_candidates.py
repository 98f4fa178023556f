from pathlib import Path

import pytest
import torch

from taxon.training.advice import candidates
from taxon.training.advice.candidates import default_words, open_candidate
from taxon.training.dataset.data import scan
from taxon.training.errors import TrainingError
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint
from tests.training.folders import write_folder


@pytest.fixture
def samples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return scan(write_folder(tmp_path / "pictures", 3)).samples


def opened(word, samples, **changes):
    return open_candidate(word, 2, samples, changes.get("color", "rgb"), changes.get("image_size"))


def test_random_weights_are_a_floor(samples):
    found = opened("small_cnn=none", samples)
    assert (found.name, found.kind) == ("small_cnn", "random")
    assert found.preprocessing.pixels.crop == (8, 8)


def test_a_candidate_says_how_to_train_it_as_it_was_judged(samples):
    found = opened("small_cnn=none", samples, image_size=16, color="grayscale")
    assert found.preprocessing.pixels.shape == (16, 16, 1)
    assert found.train_options == (
        *("--model", "small_cnn", "--weights", "none", "--image-size", "16", "--color", "grayscale"),
    )


def test_pictures_that_a_network_does_not_take_are_refused_at_once(samples):
    with pytest.raises(TrainingError, match="does not take pictures of 8x8"):
        opened("alexnet=none", samples, image_size=8)


def test_a_file_is_of_the_model_that_it_is_called_after(samples, tmp_path):
    network = model.build("small_cnn", 5)
    torch.save(network.state_dict(), tmp_path / "small_cnn-1a2b.pth")
    found = opened("small_cnn-1a2b.pth", samples)
    assert (found.name, found.weights, found.kind) == ("small_cnn", "small_cnn-1a2b.pth", "file")
    named = opened("small_cnn=small_cnn-1a2b.pth", samples)
    for one in (found, named):
        key = next(key for key in network.state_dict() if not key.startswith(one.head))
        assert torch.equal(one.network.state_dict()[key], network.state_dict()[key])


def test_a_run_keeps_its_weights_and_pixels_under_a_new_head(samples, tmp_path, monkeypatch):
    own = model.build("small_cnn", 7, channels=1)
    pixels = model.preprocessing("small_cnn", image_size=12, color="grayscale").pixels
    labels = tuple("abcdefg")
    checkpoint = Checkpoint("small_cnn", labels, "single_label", pixels, (0.5,), (0.25,), own.state_dict(), {}, 1, "r1")
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "best.pt")
    monkeypatch.setattr(candidates, "_check_unseen", lambda *_: None)  # it is no whole run
    (tmp_path / "run" / "run.json").write_text("{}")
    for word in ("run", "run/best.pt"):
        found = opened(word, samples)
        assert (found.kind, found.preprocessing.pixels) == ("run", pixels)
        weights = str(Path("run", "best.pt"))
        assert found.train_options[:4] == ("--model", "small_cnn", "--weights", weights)
        assert found.train_options[4:] == ("--image-size", "12", "--color", "grayscale")
        assert found.network.get_submodule(found.head).out_features == 2
        for key, value in own.state_dict().items():
            if not key.startswith(found.head):
                assert torch.equal(found.network.state_dict()[key], value)


def test_what_is_in_torchvisions_cache_is_at_hand(samples, tmp_path):
    assert default_words() == [candidates.FLOOR]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert default_words() == ["resnet18", candidates.FLOOR]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("resnet18", "the weights DEFAULT of resnet18 are not on this machine"),
        ("resnet81", "there is no model, run or weights file 'resnet81': did you mean 'resnet18'"),
        ("small_cnn", "small_cnn has no published weights"),
        ("small_cnn=best", "small_cnn has no published weights"),
        ("mlp=none", "mlp takes numbers"),
        ("pictures", "is not the folder of a run"),
        ("odd.txt", "is no weights file"),
        ("weights.pth", "the file name weights.pth says no model"),
        ("resnet18=nowhere.pth", "are not on this machine"),
    ],
)
def test_what_cannot_be_judged_says_why(samples, tmp_path, word, message):
    (tmp_path / "odd.txt").touch()
    (tmp_path / "weights.pth").touch()
    with pytest.raises(TrainingError, match=message):
        opened(word, samples)
