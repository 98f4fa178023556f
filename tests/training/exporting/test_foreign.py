import unicodedata

import numpy as np
import pytest
import torch

from taxon.bundle import store
from taxon.training.commands import export
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import ExportError
from taxon.training.exporting.foreign import read_labels
from taxon.training.network import model
from taxon.training.network.model import preprocessing
from tests.training.toy_classifier import write_pictures


@pytest.fixture
def parts(tmp_path):
    """A weights file of a resnet18, its labels, and pictures labelled by what it answers."""
    torch.manual_seed(0)
    network = model.build("resnet18", 2).eval()
    torch.save(network.state_dict(), tmp_path / "Pets v2.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    files = write_pictures(tmp_path / "files", 8)
    preset = preprocessing("resnet18", image_size=32)
    logits = parity.reference_logits(network, files, preset.pixels, preset.mean, preset.std)
    middle = np.median(logits[:, 0] - logits[:, 1])
    for file, row in zip(files, logits, strict=True):
        folder = tmp_path / "val" / ("cat" if row[0] - row[1] > middle else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    return tmp_path


def call(folder, *more, **changes):
    words = {"checkpoint": "Pets v2.pth", "labels": "labels.txt", "data": "val", **changes}
    options = [word for name, file in words.items() for word in (f"--{name}", str(folder / file))]
    return export.main([*options, "--model", "resnet18", "--image-size", "32", "--models", str(folder / "m"), *more])


@pytest.mark.slow
def test_anyones_weights_become_a_bundle(parts):
    assert call(parts) == 0
    manifest = store.read(parts / "m", "pets-v2", 1).manifest
    assert manifest.labels == ("cat", "dog")
    assert manifest.provenance.run_id == f"sha256-{store.sha256(parts / 'Pets v2.pth')[:16]}"
    assert manifest.pixels.crop == (32, 32)


def refuse(capsys, folder, *more, **changes):
    assert call(folder, *more, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith("taxon export: ")
    assert not (folder / "m").exists()
    return message


def test_another_architecture_is_refused(parts, capsys):
    torch.save(model.build("mobilenet_v3_small", 2).state_dict(), parts / "other.pth")
    assert "not of the architecture resnet18" in refuse(capsys, parts, checkpoint="other.pth")


def test_another_label_count_is_refused(parts, capsys):
    (parts / "three.txt").write_text("cat\ndog\nfish\n")
    assert "another number of classes than the 3 labels" in refuse(capsys, parts, labels="three.txt")


def test_pictures_of_unknown_labels_are_refused(parts, capsys):
    (parts / "val" / "cat").rename(parts / "val" / "lynx")
    assert "lynx" in refuse(capsys, parts)


@pytest.mark.slow
def test_swapped_labels_show_against_a_stated_accuracy(parts, capsys):
    (parts / "swapped.txt").write_text("dog\ncat\n")
    (parts / "m").mkdir()
    assert call(parts, labels="swapped.txt") == 0
    accuracy = store.read(parts / "m", "pets-v2", 1).manifest.metrics["accuracy"]
    assert call(parts, "--expected-accuracy", str(1 - accuracy + 0.05), labels="swapped.txt") == 2
    assert "is known to be" in capsys.readouterr().err


@pytest.mark.slow
def test_pixels_may_be_given_exactly(parts):
    (parts / "pixels.json").write_text('{"resize": [40, 40], "crop": [40, 40], "interpolation": "bicubic"}')
    assert call(parts, "--pixels", str(parts / "pixels.json"), "--mean", "0.5", "0.5", "0.5") == 0
    pixels = store.read(parts / "m", "pets-v2", 1).manifest.pixels
    assert (pixels.resize, pixels.interpolation) == ((40, 40), "bicubic")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("cat\n\ndog\n", "blank label on line 2"),
        ("cat\ncat\n", "more than once"),
        ("cat\n", "two or more"),
        ("", "empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("<!DOCTYPE html>\n<html>\n</html>\n", "a web page"),
        ("caf\u00e9\ncafe\u0301\n", "more than once"),
        ("a\nb\ac\n", "control characters"),
    ],
)
def test_bad_label_files_are_refused(tmp_path, content, reason):
    (tmp_path / "labels.txt").write_text(content)
    with pytest.raises(ExportError, match=reason):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_labels_are_those_of_folders_in_either_spelling(tmp_path, form):
    (tmp_path / "labels.txt").write_text(unicodedata.normalize(form, "caf\u00e9\r\nb\r\n"), encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("caf\u00e9", "b")


@pytest.mark.slow
def test_of_a_folder_with_splits_the_validation_pictures_prove(parts, capsys):
    """A temperature fitted on training pictures, and their accuracy, would be too good."""
    (parts / "all").mkdir()
    (parts / "val").rename(parts / "all" / "val")
    for label in ("cat", "dog"):
        write_pictures(parts / "all" / "train" / label, 9)
    (parts / "all" / "val" / "cat" / "notes.txt").touch()
    assert call(parts, data="all") == 0
    assert store.read(parts / "m", "pets-v2", 1).manifest.metrics["parity_file_count"] == 8
    told = " ".join(capsys.readouterr().out.split())
    assert "measured on the val split of" in told
    assert "left out 1 in" in told


def test_training_pictures_alone_prove_nothing(parts, capsys):
    (parts / "all" / "train").parent.mkdir()
    (parts / "val").rename(parts / "all" / "train")
    assert "has only a training split" in refuse(capsys, parts, data="all")


def test_a_repository_that_cannot_be_written_is_said_first(parts, capsys, monkeypatch):
    monkeypatch.setattr(parity, "reference_logits", lambda *_: pytest.fail("the pictures were decoded"))
    (parts / "m").touch()
    assert call(parts) == 2
    assert "Not a directory; nothing was published" in capsys.readouterr().err


def test_a_run_and_a_checkpoint_at_once_are_an_error(parts, capsys):
    with pytest.raises(SystemExit):
        export.main([str(parts), "--checkpoint", "x.pth", "--models", str(parts / "m")])
    with pytest.raises(SystemExit):
        export.main(["--checkpoint", "x.pth", "--models", str(parts / "m")])
