import csv
import errno
import json
import os
import re
import shutil
from collections import Counter

import pytest

from taxon.bundle import atomic_files
from taxon.training.commands.data import main
from taxon.training.commands.train import main as train
from taxon.training.dataset import scan_pictures
from taxon.training.reporting.inspect_page import MEANINGS
from tests.training.drawings import drawing, write_faulty
from tests.training.folders import write_folder


@pytest.fixture
def faulty(tmp_path):
    return write_faulty(tmp_path / "pictures")


def inspect(*words: object) -> int:
    return main(["inspect", *[str(word) for word in words]])


def findings(root, tmp_path) -> dict[str, list[list[str]]]:
    inspect(root, "--json", tmp_path / "found.json")
    found: dict[str, list[list[str]]] = {}
    for finding in json.loads((tmp_path / "found.json").read_text())["findings"]:
        names = sorted(path.rpartition("/")[2] for path in finding["paths"])
        found.setdefault(finding["kind"], []).append(names)
    return {kind: sorted(groups) for kind, groups in found.items()}


def test_every_planted_fault_is_found_and_nothing_else(faulty, tmp_path):
    assert findings(faulty, tmp_path) == {
        "unreadable": [["cut.jpg"], ["empty.jpg"], ["text.png"]],
        "exact_duplicate_across_splits": [["00.png", "same-in-val.png"]],
        "exact_duplicate_across_labels": [["01.png", "same-as-dog.png"]],
        "exact_duplicate": [["02.png", "same-twice.png"]],
        "near_duplicate_across_splits": [["03.png", "near-in-val.jpg"]],
        "near_duplicate_across_labels": [["04.png", "near-as-dog.jpg"]],
        "near_duplicate": [["05.png", "brighter.png"]],
        "orientation": [["turned.jpg"]],
        "mode": [["ink.jpg"]],
        "tiny": [["tiny.png"]],
        "flat": [["black.png", "white.png"]],
    }


def test_errors_make_the_exit_code_one_and_a_sound_folder_zero(faulty, tmp_path, capsys):
    assert inspect(faulty) == 1
    assert "exact duplicate across splits: 1" in capsys.readouterr().out
    sound = tmp_path / "sound"
    for index, label in enumerate(("cat", "dog")):
        (sound / label).mkdir(parents=True)
        for number in range(12):
            drawing(1000 * index + number).save(sound / label / f"{number}.png")
    assert inspect(sound) == 0
    assert "no errors" in capsys.readouterr().out


def test_rare_classes_are_named(tmp_path):
    root = tmp_path / "pictures"
    for label, count in (("many", 40), ("few", 3)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            drawing(count * 100 + number).save(root / label / f"{number}.png")
    assert {"few_samples", "imbalance"} <= set(findings(root, tmp_path))
    inspect(root, "--html", tmp_path / "found.html")
    assert "Classes with few pictures" in (tmp_path / "found.html").read_text()


def test_the_page_shows_the_pictures(faulty, tmp_path):
    (faulty / "train" / "cat" / "00.png").rename(faulty / "train" / "cat" / "<i>.png")
    inspect(faulty, "--html", tmp_path / "found.html")
    page = (tmp_path / "found.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') > 10
    assert page.count("<h2>") == 1 + len(MEANINGS) - len({"few_samples", "imbalance"})
    assert "labelled cat and dog" in page
    assert "http" not in page
    assert "&lt;i&gt;.png" in page


def test_a_source_that_cannot_be_used_is_exit_code_two(tmp_path, capsys):
    assert inspect(tmp_path / "nowhere") == 2
    assert "there is no data" in capsys.readouterr().err


def test_a_written_split_keeps_what_looks_alike_together_and_trains(faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(faulty / "val")
    assert main(["split", str(faulty / "train"), "--out", str(tmp_path / "list.csv"), "--val-fraction", "0.3"]) == 0
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = {row["path"].removeprefix("pictures/train/"): row for row in csv.DictReader(file)}
    group_splits: dict[str, set[str]] = {}
    for row in rows.values():
        group_splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in group_splits.values())
    assert rows["cat/05.png"]["group"] == rows["cat/brighter.png"]["group"]
    assert rows["dog/same-as-dog.png"]["group"] == rows["cat/01.png"]["group"]
    assert {row["split"] for row in rows.values()} == {"train", "val"}
    counts = Counter((path.partition("/")[0], row["split"]) for path, row in rows.items())
    said = capsys.readouterr().out
    for label in ("cat", "dog"):
        assert re.search(rf"^ *{label} +{counts[label, 'train']} +{counts[label, 'val']} *$", said, flags=re.MULTILINE)
    assert "left out, see `taxon data inspect`: 3" in said
    words = ["--data", "list.csv", "--model", "small_cnn", "--image-size", "16", "--epochs", "1", "--no-report"]
    assert train([*words, "--out", "run"]) == 0


def test_a_split_leaves_the_test_pictures_and_what_looks_like_them(faulty, tmp_path):
    """Else they would be trained on, and a later comparison on the test folder would be too good."""
    (faulty / "val").rename(faulty / "test")
    assert main(["split", str(faulty), "--out", str(tmp_path / "list.csv")]) == 0
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = {row["path"].removeprefix("pictures/"): row["split"] for row in csv.DictReader(file)}
    assert {split for path, split in rows.items() if path.startswith("test/")} == {"test"}
    assert rows["train/cat/00.png"] == rows["train/cat/03.png"] == "test"  # in both splits, and alike
    assert set(rows.values()) == {"train", "val", "test"}


def test_a_split_outside_the_pictures_is_refused(tmp_path, capsys):
    write_folder(tmp_path / "pictures", 6)
    (tmp_path / "elsewhere").mkdir()
    assert main(["split", str(tmp_path / "pictures"), "--out", str(tmp_path / "elsewhere" / "list.csv")]) == 2
    assert "in or above" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["split", "pictures", "--out", "elsewhere/list.csv"], "in or above"),
        (["split", "bars", "--out", "list.csv"], "rename it without |"),
        (["split", "pictures", "--out", "nowhere/list.csv"], "taxon data: nowhere: No such file"),
        (["split", "pictures", "--out", "pictures"], "taxon data: pictures: Is a directory"),
        (["inspect", "pictures", "--json", "nowhere/found.json"], "taxon data: nowhere: No such file"),
        (["inspect", "pictures", "--html", "file/found.html"], "file: Not a directory"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_decoded(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scan_pictures, "open_picture", lambda _: pytest.fail("a picture was decoded"))
    write_folder(tmp_path / "pictures", 3)
    write_folder(tmp_path / "bars", 3, {"a|b": 60, "c": 190})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "file").touch()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [(["split", "--out", "list.csv"], "list.csv"), (["inspect", "--json", "found.json"], "found.json")],
)
def test_a_disk_that_fills_is_said_by_the_files_name(tmp_path, monkeypatch, capsys, words, name):
    """The system does not say it where it is a matter of bytes."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "pictures", 6)
    monkeypatch.setattr(atomic_files.os, "fsync", full)
    assert main([*words, "pictures"]) == 2
    assert capsys.readouterr().err == f"taxon data: {name}: No space left on device\n"


def test_a_split_of_links_names_the_links(tmp_path, monkeypatch):
    """What they lead to is a store's business: git-annex, DVC."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "store", 6)
    for label in ("dark", "light"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "pictures" / label / f"{number}.png").symlink_to(tmp_path / "store" / label / f"00{number}.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "pictures")
    for source, out in (("pictures", "pictures"), ("elsewhere", "pictures"), ("pictures", "elsewhere")):
        assert main(["split", source, "--out", f"{out}/list.csv"]) == 0
        listed = (tmp_path / "pictures" / "list.csv").read_text()
        assert "dark/0.png,dark" in listed
        assert "store" not in listed
    words = ["--data", "pictures/list.csv", "--model", "small_cnn", "--epochs", "1", "--no-report", "--out", "run"]
    assert train(words) == 0
    assert "\ndark/0.png,dark" in (tmp_path / "run" / "samples.csv").read_text()


@pytest.mark.slow
def test_a_process_that_dies_is_said_in_one_sentence(faulty, monkeypatch, capsys):
    monkeypatch.setattr(scan_pictures, "PROCESSES_FROM", 1)
    monkeypatch.setattr(scan_pictures, "look", Deadly())
    assert inspect(faulty) == 2
    assert "a process that read pictures died" in capsys.readouterr().err


class Deadly:
    def __call__(self, sample):
        os._exit(1)
