"""Parquet as the Hugging Face Hub shares data sets: bytes of pictures, classes by number, names in the metadata."""

import errno
import json
import os
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from taxon.bundle.picture_limits import Limits
from taxon.training.commands.train import main
from taxon.training.dataset import parquet
from taxon.training.dataset.data import with_digests, with_splits
from taxon.training.dataset.doctor import diagnose
from taxon.training.dataset.sources import open_source
from taxon.training.errors import TrainingError
from taxon.training.runs.folder import Run

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["zebra", "ape"]
CLASSES = {"_type": "ClassLabel", "names": NAMES}


def encoded(red, form="PNG"):
    file = BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 200 - red)).save(file, form)
    return file.getvalue()


def write(file, reds, labels, *, label=CLASSES, column="label", image="image", struct=True, form="PNG", **others):
    pictures = [encoded(red, form) if isinstance(red, int) else red for red in reds]
    rows = [{"bytes": content, "path": None} for content in pictures] if struct else pictures
    features = {image: {"_type": "Image"}} | ({column: label} if label else {})
    table = pa.table({image: rows, column: labels, **others})
    if label:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


def opened(source, tmp_path, task="auto"):
    found, numbers = open_source(
        str(source), digits_folder=tmp_path, prepared_folder=tmp_path / "prepared", download=False, task=task
    )
    assert numbers is None
    return found


def test_the_classes_and_bytes_are_those_of_the_data_set(tmp_path):
    file = write(tmp_path / "pets.parquet", [1, 2, 3], [1, 0, 1])
    found = opened(file, tmp_path)
    assert found.labels == ("zebra", "ape")  # by number, not by the alphabet
    assert [sample.label for sample in found.samples] == [1, 0, 1]
    assert [sample.path.read_bytes() for sample in found.samples] == [encoded(red) for red in (1, 2, 3)]
    assert {sample.path.suffix for sample in found.samples} == {".png"}
    before = [sample.path.stat().st_mtime_ns for sample in found.samples]
    again = opened(file, tmp_path)
    assert again == found
    assert [sample.path.stat().st_mtime_ns for sample in again.samples] == before  # written once
    write(file, [1, 2, 4], [1, 0, 1])
    assert opened(file, tmp_path).root != found.root


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet", "test"),
        ("train.parquet", "validation.parquet", "val"),
        ("train/0000.parquet", "valid/0000.parquet", "val"),
        ("train_0.parquet", "dev_0.parquet", "val"),
    ],
)
def test_files_and_folders_name_splits(tmp_path, train, other, split):
    write(tmp_path / "set" / train, [1, 2], [1, 0])
    write(tmp_path / "set" / other, [3], [0], form="JPEG")
    found = opened(tmp_path / "set", tmp_path)
    assert sorted((sample.split, sample.label) for sample in found.samples) == sorted(
        [("train", 1), ("train", 0), (split, 0)]
    )
    assert {sample.path.suffix for sample in found.split(split)} == {".jpg"}


def test_a_file_without_a_split_beside_others_is_refused(tmp_path):
    write(tmp_path / "set" / "train.parquet", [1, 2], [1, 0])
    write(tmp_path / "set" / "extra.parquet", [3], [0])
    with pytest.raises(TrainingError, match=r"extra\.parquet is not"):
        opened(tmp_path / "set", tmp_path)


def test_words_are_classes_and_bytes_need_no_struct(tmp_path):
    labels = pa.array(["dog", " cat ", "dog"]).dictionary_encode()
    file = write(tmp_path / "x.parquet", [1, 2, 3], labels, label=None, struct=False, image="pixels")
    found = opened(file, tmp_path)
    assert (found.labels, [sample.label for sample in found.samples]) == (("cat", "dog"), [1, 0, 1])
    file = write(tmp_path / "y.parquet", [1, 2, 3], [10, 9, 10], label=None)
    assert opened(file, tmp_path).labels == ("9", "10")


@pytest.mark.parametrize("kind", [{"_type": "Sequence", "feature": CLASSES}, [CLASSES]])
def test_lists_are_several_labels(tmp_path, kind):
    labels = pa.array([[1], [], [1, 0, 1]], pa.list_(pa.int64()))
    file = write(tmp_path / "x.parquet", [1, 2, 3], labels, label=kind, column="tags")
    found = opened(file, tmp_path)
    assert found.task == "multi_label"
    assert [sample.labels for sample in found.samples] == [(1,), (), (0, 1)]
    with pytest.raises(TrainingError, match=r"2 rows of .* multi_label"):
        opened(file, tmp_path, task="single_label")


def test_which_labels_may_be_said(tmp_path):
    coarse = pa.array([5, 6, 7])
    file = write(tmp_path / "x.parquet", [1, 2, 3], [1, 0, 1], column="fine", coarse=coarse)
    found = opened(f"{file}#coarse", tmp_path)
    assert found.labels == ("5", "6", "7")
    with pytest.raises(TrainingError, match="no column of labels called 'other', only image, fine, coarse"):
        opened(f"{file}#other", tmp_path)
    features = dict.fromkeys(("fine", "coarse"), CLASSES)
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file)
    with pytest.raises(TrainingError, match=r"several columns of labels: fine, coarse; say which, as in PATH#fine"):
        opened(file, tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, None, 0], "row 2 has no label"),
        ([1, 0, -1], "row 3 has no label"),
        ([1, 0, 2], "row 3 has the label 2, but there are 2 classes"),
        ([0.5, 0.1, 0.2], "holds double, not labels"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    file = write(tmp_path / "x.parquet", [1, 2, 3], labels)
    with pytest.raises(TrainingError, match=message):
        opened(file, tmp_path)
    assert not list((tmp_path / "prepared").glob("*")) if (tmp_path / "prepared").exists() else True


def test_what_is_no_data_says_so(tmp_path, monkeypatch):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(TrainingError, match="cannot be read as Parquet"):
        opened(tmp_path / "broken.parquet", tmp_path)
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "words.parquet")
    with pytest.raises(TrainingError, match="no column of pictures"):
        opened(tmp_path / "words.parquet", tmp_path)
    half = write(tmp_path / "half.parquet", range(200), [0, 1] * 100)
    content = half.read_bytes()
    half.write_bytes(content[:100] + bytes(2000) + content[2100:])
    with pytest.raises(TrainingError, match="cannot be read as Parquet"):
        opened(half, tmp_path)
    assert not list((tmp_path / "prepared").glob("*"))  # nothing half written
    write(tmp_path / "set" / "train.parquet", [1, 2], [1, 0])
    write(tmp_path / "set" / "test.parquet", [1, 2], [1, 0], label=CLASSES | {"names": ["ape", "zebra"]})
    with pytest.raises(TrainingError, match="differ in their columns or classes"):
        opened(tmp_path / "set", tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TrainingError, match=r"pip install -e '\.\[parquet\]'"):
        opened(tmp_path / "words.parquet", tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"info": None},
        {"info": {"features": None}},
        {"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}, "image": 7}}},
    ],
)
def test_odd_metadata_says_nothing(tmp_path, said):
    file = write(tmp_path / "x.parquet", [1, 2, 3], [1, 0, 1])
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": json.dumps(said)}), file)
    assert opened(file, tmp_path).labels == ("0", "1")


def test_metadata_without_end_is_told(tmp_path):
    file = write(tmp_path / "x.parquet", [1, 2, 3], [1, 0, 1])
    for depth in (3_000, 100_000):
        features = f'{{"info": {{"features": {{"label": {depth * "["}{depth * "]"}}}}}}}'
        pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": features}), file)
        with pytest.raises(TrainingError, match="cannot be read as Parquet"):
            opened(file, tmp_path)


def test_what_arrow_cannot_do_is_told(tmp_path, monkeypatch):
    file = write(tmp_path / "x.parquet", [1, 2, 3], [1, 0, 1])

    def fail(*words, **options):
        raise pa.ArrowNotImplementedError("nested data, chunked")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(TrainingError, match=r"cannot be read as Parquet: nested data"):
        opened(file, tmp_path)


def test_too_large_a_picture_is_refused_by_row(tmp_path, monkeypatch):
    file = write(tmp_path / "x.parquet", [1, None, bytes(1001)], [1, 0, 1])
    monkeypatch.setattr(parquet, "LIMITS", Limits(max_bytes=1000))
    with pytest.raises(TrainingError, match=r"x\.parquet, row 3 has a picture of 1,001 bytes: at most 1,000"):
        opened(file, tmp_path)
    assert not list((tmp_path / "prepared").glob("*"))


def test_equal_pictures_take_room_once(tmp_path, monkeypatch):
    file = write(tmp_path / "x.parquet", [1, 2, 1, 1], [1, 0, 1, 1])
    samples = opened(file, tmp_path / "links").samples
    assert len({sample.path for sample in samples}) == 4
    assert [sample.path.read_bytes() for sample in samples] == [encoded(red) for red in (1, 2, 1, 1)]
    assert len({sample.path.stat().st_ino for sample in samples}) == 2

    def refuse(*words):
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", refuse)
    again = opened(file, tmp_path / "none").samples
    assert [sample.path.read_bytes() for sample in again] == [sample.path.read_bytes() for sample in samples]


def test_the_doctor_sees_what_is_missing_or_twice(tmp_path):
    file = write(tmp_path / "x.parquet", [1, 1, None, b"no picture", 90], [1, 0, 0, 1, 1])
    diagnosis = diagnose(opened(file, tmp_path))
    assert {kind: len(found) for kind, found in diagnosis.by_kind.items() if kind != "few_samples"} == {
        "unreadable": 2,
        "exact_duplicate_across_labels": 1,
        "flat": 1,
    }
    found = with_digests(opened(file, tmp_path))
    assert [fault.reason for fault in found.faults] == ["is empty"]


def test_it_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("set/train.parquet"), [10 * n for n in range(16)], [int(n < 8) for n in range(16)])
    words = [
        "--data",
        "set",
        "--model",
        "small_cnn",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--no-report",
        "--out",
        "run",
    ]
    assert main(words) == 0
    run = Run.open(tmp_path / "run")
    assert run.labels == ("zebra", "ape")
    assert len(run.samples("train")) + len(run.samples("val")) == 16
    splits = [with_splits(with_digests(opened("set", tmp_path / str(n))), 0.2) for n in range(2)]
    assert len({tuple((sample.sha256, sample.split) for sample in each.samples) for each in splits}) == 1
