"""What can fail without a picture being decoded fails before one is; a plan decodes nothing."""

import contextlib
import io
import sys
import threading
import time

import pytest
import torch
from PIL import Image

from taxon.training.commands.train import main
from taxon.training.dataset import pictures
from taxon.training.errors import TrainingError
from taxon.training.loop import prepare
from taxon.training.network import model, published
from tests.training.folders import write_folder, write_picture


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 26, side=32)


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def refuse(*_):
        pytest.fail("a picture was decoded")

    monkeypatch.setattr(pictures, "decode", refuse)


def refused(capfd, *words: str) -> str:
    assert main(["--data", "pictures", "--no-report", "--epochs", "2", "--out", "run", *words]) == 2
    error = capfd.readouterr().err
    assert error.startswith("taxon train: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


@pytest.mark.usefixtures("nothing_is_decoded")
class TestBeforeDecoding:
    def test_without_a_network_published_weights_fail_within_seconds(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        started = time.monotonic()
        assert "--weights FILE" in refused(capfd, "--model", "resnet18")
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize("weights", ["w.pth", "DEFAULT"])
    def test_weights_are_looked_for_before_the_data_is_read(self, capfd, tmp_path, monkeypatch, weights):
        """A data set in its published files is written as tens of thousands of pictures first."""
        monkeypatch.setattr(prepare, "open_source", lambda *_, **__: pytest.fail("the data was opened"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        error = refused(capfd, "--model", "resnet18", "--weights", weights)
        assert ("could not be downloaded" if weights == "DEFAULT" else "w.pth does not exist") in error

    def test_a_network_that_never_answers_is_given_up(self, capfd, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(published, "ANSWERS_WITHIN_S", 0.05)
        monkeypatch.setattr(published, "urlopen", lambda *_, **__: threading.Event().wait(1) or io.BytesIO())
        assert "no answer within 0.05 s" in refused(capfd, "--model", "resnet18")

    def test_weights_that_are_not_there(self, capfd):
        assert "does not exist" in refused(capfd, "--model", "resnet18", "--weights", "none.pth")

    def test_weights_of_another_architecture(self, capfd):
        torch.save(model.build("resnet34", 2).state_dict(), "w.pth")
        assert "not of the architecture" in refused(capfd, "--model", "resnet18", "--weights", "w.pth")

    @pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
    def test_packages_of_those_who_are_told_of_epochs(self, capfd, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)
        assert f"pip install -e '.[{name}]'" in refused(capfd, "--model", "small_cnn", f"--{name}")

    def test_pictures_too_small_for_the_network(self, capfd):
        assert "another --image-size" in refused(capfd, "--model", "alexnet", "--weights", "none", "--image-size", "16")

    def test_no_room_for_the_decoded_pictures(self, capfd, monkeypatch):
        usage = pictures.shutil.disk_usage("/")._replace(free=1000)
        monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: usage)
        assert "are free: choose another --cache-folder" in refused(capfd, "--model", "small_cnn")

    def test_no_room_for_both_splits_together(self, capfd, monkeypatch):
        """24 samples of 8 x 8 x 3 bytes: room for each, not for both."""
        usage = pictures.shutil.disk_usage("/")._replace(free=52 * 8 * 8 * 3 - 1)
        monkeypatch.setattr(pictures.shutil, "disk_usage", lambda _: usage)
        assert "are free" in refused(capfd, "--model", "small_cnn", "--image-size", "8")

    @pytest.mark.parametrize("option", ["--out", "--cache-folder"])
    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_a_folder_that_cannot_be_made(self, capfd, tmp_path, option, place):
        (tmp_path / "file").touch()
        error = refused(capfd, "--model", "small_cnn", option, place)
        assert f"{place}" in error
        assert "file: Not a directory" in error

    def test_several_labels_and_a_loss_for_one(self, capfd, tmp_path):
        names = [f"{label}/{number:03}.png" for label in ("dark", "light") for number in range(26)]
        rows = "".join(f"{name},{name.partition('/')[0]}\n" for name in names)
        (tmp_path / "pictures" / "list.csv").write_text(f"path,label\n{rows}".replace(",dark\n", ",dark|dim\n", 3))
        words = ["--data", "pictures/list.csv", "--model", "small_cnn", "--loss", "mse"]
        for more in ([], ["--dry-run"]):
            assert "--loss mse is for one label" in refused(capfd, *words, *more)

    def test_a_device_that_torch_alone_knows(self, capfd):
        assert "must be auto, cpu, cuda" in refused(capfd, "--model", "small_cnn", "--device", "meta")

    @pytest.mark.parametrize("more", [["--batch-size", "1"], ["--batch-size", "4", "--accumulate", "4"]])
    def test_parts_of_one_sample_for_batch_normalisation(self, capfd, more):
        words = ["--model", "resnet18", "--weights", "none", "--image-size", "32", *more]
        assert "raise --batch-size, or lower --accumulate" in refused(capfd, *words)
        assert "raise --batch-size, or lower --accumulate" in refused(capfd, *words, "--dry-run")

    def test_a_plan(self, capfd):
        Image.new("RGB", (8, 8)).save("pictures/dark/another.png")
        assert main(["--data", "pictures", "--model", "resnet18", "--dry-run", "--batch-size", "8"]) == 0
        assert "5 epochs of 5 steps" in capfd.readouterr().out

    def test_a_plan_knows_whether_a_weights_file_fits(self, capfd):
        words = ["--model", "resnet18", "--weights", "w.pth", "--dry-run"]
        assert "does not exist" in refused(capfd, *words)
        torch.save(model.build("resnet34", 2).state_dict(), "w.pth")
        assert "not of the architecture" in refused(capfd, *words)


def test_parts_of_one_sample_that_decoding_leaves(capfd, tmp_path):
    """What is damaged is known only then."""
    for number in range(25):
        for label in ("dark", "light"):
            (tmp_path / "pictures" / label / f"{number:03}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([number]))
    for label, level in (("dark", 60), ("light", 190)):
        write_picture(tmp_path / "val" / label / "0.png", level, 99, 32)
    (tmp_path / "pictures").rename(tmp_path / "train")
    (tmp_path / "pictures").mkdir()
    for split in ("train", "val"):
        (tmp_path / split).rename(tmp_path / "pictures" / split)
    words = ["--model", "resnet18", "--weights", "none", "--image-size", "32", "--accumulate", "2"]
    assert "raise --batch-size, or lower --accumulate" in refused(capfd, *words)


def test_another_recipe_in_the_folder_is_told_before_the_data_is_read(capfd, tmp_path):
    words = ["--data", "pictures", "--model", "small_cnn", "--no-report", "--epochs", "1", "--out", "run"]
    assert main(words) == 0
    (tmp_path / "pictures").rename(tmp_path / "moved")
    (tmp_path / "pictures").mkdir()
    assert main([*words, "--lr", "0.5"]) == 2
    assert "optim.lr" in capfd.readouterr().err


@pytest.mark.parametrize(
    "more", [["--batch-size", "25", "--accumulate", "8"], ["--batch-size", "3", "--accumulate", "5"]]
)
def test_parts_of_a_batch_are_equal(more):
    """Of 25 in parts of 4, the last would be one sample."""
    words = ["--data", "pictures", "--model", "small_cnn", "--no-report", "--epochs", "1", "--out", "run", *more]
    assert main(words) == 0


@pytest.mark.parametrize(("side", "trains"), [(64, True), (32, False)])
def test_one_sample_is_enough_where_every_channel_has_several_values(side, trains):
    network = model.build("resnet18", 2).train()
    before = [buffer.clone() for buffer in network.buffers()]
    said = r"one sample, .* \(Expected more than 1 value per channel .*\): raise --batch-size"
    with contextlib.nullcontext() if trains else pytest.raises(TrainingError, match=said):
        model.check_trains_on_one(network, torch.randn(2, 3, side, side))
    assert all(torch.equal(one, other) for one, other in zip(before, network.buffers(), strict=True))


@pytest.mark.slow
def test_a_plan_for_70000_files_takes_seconds(tmp_path, capfd):
    content = (tmp_path / "pictures" / "dark" / "000.png").read_bytes()
    for label in range(10):
        (tmp_path / "many" / str(label)).mkdir(parents=True)
        for number in range(7000):
            (tmp_path / "many" / str(label) / f"{number}.png").write_bytes(content)
    started = time.monotonic()
    assert main(["--data", "many", "--model", "resnet18", "--dry-run"]) == 0
    assert time.monotonic() - started < 10
    assert "1750 steps" in capfd.readouterr().out
