import gzip
import hashlib
import pickle
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from taxon.training.commands.train import main
from taxon.training.dataset import published
from taxon.training.dataset.data import scan, with_digests
from taxon.training.dataset.sources import split_source
from taxon.training.errors import TrainingError
from taxon.training.runs.folder import Run
from tests.training.folders import write_folder

TRAIN = ["--epochs", "2", "--batch-size", "8", "--no-report", "--out", "run"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def level_pictures(count: int, side: int, channels: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of two brightnesses in turn, and 0 or 1."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 2
    shape = (count, side, side, channels) if channels else (count, side, side)
    noise = random.integers(0, 60, shape)
    return (noise + 150 * labels.reshape(-1, *[1] * (len(shape) - 1))).astype(np.uint8), labels


def write_idx(folder, prefix: str, pictures: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, *pictures.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pictures.tobytes())
    header = struct.pack(">BBBBI", 0, 0, 8, 1, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("kind", "folder"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_idx_files_train(tmp_path, kind, folder):
    """Small files in the format of MNIST; its ten classes exist by name, so all ten need pictures."""
    pictures, _ = level_pictures(60, 8)
    labels = np.arange(60) % 10
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "root" / folder / "raw", prefix, pictures, labels)
    words = ["--data", f"{kind}:root", "--model", "small_cnn", "--color", "grayscale", "--validate-on", "test", *TRAIN]
    assert main(words) == 0
    run = Run.open(tmp_path / "run")
    assert len(run.labels) == 10
    first = run.samples("train")[0]
    np.testing.assert_array_equal(np.asarray(Image.open(first.path)), pictures[int(first.path.stem)])
    assert (len(run.samples("train")), len(run.samples("val"))) == (60, 60)


def test_without_the_files_the_message_says_how_to_get_them(capfd):
    assert main(["--data", "mnist:nowhere", "--model", "small_cnn", *TRAIN]) == 2
    error = capfd.readouterr().err
    assert "Dataset not found; put its official files there, or pass --download" in error
    assert "download=True" not in error


def small_cifar(root, kind: str = "cifar10") -> type[datasets.CIFAR10]:
    """CIFAR's python version with two pictures per file and its own checksums."""
    source = published.FORMATS[kind]
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    digests = {}

    def write(name: str, content: object) -> None:
        (folder / name).write_bytes(pickle.dumps(content))
        digests[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    pictures, labels = level_pictures(2, 32, 3)
    flat = pictures.transpose(0, 3, 1, 2).reshape(2, -1)
    train, test, meta = source.train_list[0][0], source.test_list[0][0], source.meta["filename"]
    for name in (train, test):
        write(name, {"data": flat, "labels" if kind == "cifar10" else "fine_labels": labels.tolist()})
    write(meta, {source.meta["key"]: ["airplane", "automobile"]})
    lists = {"train_list": [[train, digests[train]]], "test_list": [[test, digests[test]]]}
    return type("SmallCifar", (source,), {**lists, "meta": {**source.meta, "md5": digests[meta]}})


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_files_become_the_same_pictures(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(published.FORMATS, kind, small_cifar(tmp_path / "root", kind))
    parts = published.read_published(kind, tmp_path / "root", download=False)
    folder = published.write_parts(parts, tmp_path / "prepared", kind)
    expected, _ = level_pictures(2, 32, 3)
    for number, label in enumerate(["airplane", "automobile"]):
        written = np.asarray(Image.open(folder / "test" / label / f"{number:06}.png"))
        np.testing.assert_array_equal(written, expected[number])


def test_only_download_fetches_and_what_fails_is_one_sentence(tmp_path, monkeypatch, capfd):
    asked = []

    def offline(root: str, *, train: bool, download: bool) -> None:
        asked.append(download)
        raise URLError("no route to host")

    monkeypatch.setitem(published.FORMATS, "mnist", offline)
    assert main(["--data", "mnist:root", "--model", "small_cnn", *TRAIN]) == 2
    assert main(["--data", "mnist:root", "--download", "--model", "small_cnn", *TRAIN]) == 2
    assert asked == [False, True]
    error = capfd.readouterr().err
    assert "no route to host" in error
    assert error.count("\n") == 2


def test_downloaded_files_train(tmp_path, monkeypatch):
    """What a download leaves behind is what is read: a data set that appears when it is asked for."""
    pictures, _ = level_pictures(60, 8)

    class Fetched(datasets.MNIST):
        def download(self) -> None:
            for prefix in ("train", "t10k"):
                write_idx(tmp_path / "root" / "Fetched" / "raw", prefix, pictures, np.arange(60) % 10)

    monkeypatch.setitem(published.FORMATS, "mnist", Fetched)
    words = ["--data", "mnist:root", "--model", "small_cnn", "--color", "grayscale", *TRAIN]
    assert main(words) == 2
    assert main([*words, "--download"]) == 0


def test_damaged_cifar_files_are_refused_before_they_are_unpickled(tmp_path, monkeypatch):
    monkeypatch.setitem(published.FORMATS, "cifar10", small_cifar(tmp_path / "root"))
    with (tmp_path / "root" / "cifar-10-batches-py" / "data_batch_1").open("ab") as file:
        file.write(b"x")
    with pytest.raises(TrainingError, match="official files"):
        published.read_published("cifar10", tmp_path / "root", download=False)


def test_pixel_columns_train(tmp_path):
    pictures, labels = level_pictures(40, 8)
    header = ",".join(["label", *[f"pixel{number}" for number in range(64)]])
    rows = [",".join(map(str, [label, *picture.flatten()])) for picture, label in zip(pictures, labels, strict=True)]
    (tmp_path / "pixels.csv").write_text("\n".join([header, *rows]))
    assert main(["--data", "pixels.csv", "--model", "small_cnn", "--color", "grayscale", *TRAIN]) == 0
    assert Run.open(tmp_path / "run").labels == ("0", "1")


def test_a_compressed_csv_is_no_csv(tmp_path, capfd):
    (tmp_path / "pixels.csv").write_bytes(gzip.compress(b"label,pixel0\n1,2\n"))
    assert main(["--data", "pixels.csv", "--model", "small_cnn", *TRAIN]) == 2
    assert "cannot be read as CSV" in capfd.readouterr().err


def test_numbers_train_and_carry_their_statistics(tmp_path):
    random = np.random.default_rng(0)
    labels = np.arange(80) % 2
    values = random.normal(size=(80, 3)) * [1, 100, 0] + [0, 5000, 7] + labels[:, None] * [3, 0, 0]
    rows = [f"{a},{b},{c},{'yes' if label else 'no'}" for (a, b, c), label in zip(values.tolist(), labels, strict=True)]
    (tmp_path / "numbers.csv").write_text("\n".join(["a,b,c,answer", *rows]))
    assert main(["--data", "numbers.csv", "--model", "mlp", *TRAIN, "--epochs", "10", "--lr", "0.01"]) == 0
    run = Run.open(tmp_path / "run")
    best = run.checkpoint()
    assert best.pixels is None
    assert best.metrics["accuracy"] >= 0.8
    train_rows = [sample.row for sample in run.samples("train")]
    np.testing.assert_allclose(best.mean, values[train_rows].mean(axis=0), rtol=1e-5)
    assert best.std[2] == 1.0
    assert best.build_model()(torch.zeros(1, 3)).shape == (1, 2)


def test_numbers_need_a_model_for_numbers(tmp_path, capfd):
    (tmp_path / "numbers.csv").write_text("a,answer\n1,x\n2,y\n3,x\n4,y\n")
    assert main(["--data", "numbers.csv", "--model", "small_cnn", *TRAIN]) == 2
    assert "--model mlp" in capfd.readouterr().err


def test_several_labels_per_picture_train(tmp_path):
    write_folder(tmp_path, 20, {"dark": 60, "light": 190})
    lines = ["path,label"]
    for number in range(20):
        lines += [f"dark/{number:03}.png,dark|even" if number % 2 else f"dark/{number:03}.png,dark"]
        lines += [f"light/{number:03}.png,light" if number % 5 else f"light/{number:03}.png,light|even"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert main(["--data", "list.csv", "--model", "small_cnn", *TRAIN, "--balance", "weights"]) == 0
    run = Run.open(tmp_path / "run")
    assert run.checkpoint().task == "multi_label"
    assert run.labels == ("dark", "even", "light")
    assert {sample.labels for sample in run.samples("train")} <= {(0,), (0, 1), (2,), (1, 2)}


@pytest.mark.parametrize("words", [["--loss", "mse"], ["--balance", "sampling"], ["--mixup", "0.2"]])
def test_options_for_one_label_are_refused_for_several(tmp_path, capfd, words):
    write_folder(tmp_path, 4)
    lines = [f"{kind}/{n:03}.png,{kind}|both" for kind in ("dark", "light") for n in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    assert main(["--data", "list.csv", "--model", "small_cnn", *TRAIN, *words]) == 2
    assert "one label per picture" in capfd.readouterr().err


def test_files_of_one_name_in_two_classes_stay_two_samples(tmp_path):
    write_folder(tmp_path / "pictures", 6)
    assert main(["--data", "pictures", "--model", "small_cnn", *TRAIN]) == 0
    run = Run.open(tmp_path / "run")
    assert len({sample.path for split in ("train", "val") for sample in run.samples(split)}) == 12


@pytest.mark.parametrize("with_val", [False, True])
def test_a_search_validates_on_a_share_of_the_training_split_and_leaves_the_others_alone(tmp_path, with_val):
    write_folder(tmp_path / "pictures" / "train", 20)
    write_folder(tmp_path / "pictures" / "test", 3)
    if with_val:
        write_folder(tmp_path / "pictures" / "val", 4)
    found = with_digests(scan(tmp_path / "pictures"))
    usual = split_source(found, fraction=0.25, seed=0, validate_on="val")
    inside = split_source(found, fraction=0.25, seed=0, validate_on="train")
    paths = {split: {sample.path for sample in usual.split(split)} for split in ("train", "val", "test")}
    within = {split: {sample.path for sample in inside.split(split)} for split in ("train", "val", "test")}
    assert within["train"] | within["val"] == paths["train"]
    assert within["test"] == paths["val"] | paths["test"]
    assert len(within["val"]) == round(0.25 * len(paths["train"]))
    assert not within["train"] & within["val"]
