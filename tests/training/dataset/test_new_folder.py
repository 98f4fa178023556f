import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from taxon.training.dataset import digits, published
from taxon.training.dataset.new_folder import new_folder
from taxon.training.errors import TrainingError


def entries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_of_two_at_once_the_first_ones_folder_stays(tmp_path):
    with new_folder(tmp_path / "data") as late:
        (late / "a").write_text("late")
        with new_folder(tmp_path / "data") as early:
            (early / "a").write_text("early")
    assert (tmp_path / "data" / "a").read_text() == "early"
    assert entries(tmp_path) == ["data"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    rename = Path.rename
    before_rename = []

    def recorded(new, target):
        before_rename.extend(path.relative_to(new).as_posix() for path in synced)
        return rename(new, target)

    monkeypatch.setattr(Path, "rename", recorded)
    with new_folder(tmp_path / "data") as new:
        (new / "train").mkdir()
        (new / "train" / "a.png").write_text("a")
    assert sorted(before_rename) == [".", "train", "train/a.png"]
    assert synced[-1] == tmp_path


def test_what_stops_halfway_leaves_nothing(tmp_path):
    def stopped():
        with new_folder(tmp_path / "data") as new:
            (new / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert entries(tmp_path) == []


def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = "data cannot be written: No space left on device"
    with pytest.raises(TrainingError, match=said), new_folder(tmp_path / "data"):
        pass
    assert entries(tmp_path) == []


def test_a_file_in_the_way_is_no_other_training(tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"), new_folder(tmp_path / "data"):
        (tmp_path / "data").write_text("a file")


def test_two_trainings_prepare_the_digits_at_once(tmp_path, monkeypatch):
    """The second is done while the first still writes."""
    load = sklearn.datasets.load_digits

    def slow():
        monkeypatch.setattr(sklearn.datasets, "load_digits", load)
        digits.write_digits(tmp_path / "digits")
        return load()

    monkeypatch.setattr(sklearn.datasets, "load_digits", slow)
    assert digits.write_digits(tmp_path / "digits") == tmp_path / "digits"
    assert len(names(tmp_path / "digits")) == 1797 + 1
    assert entries(tmp_path) == ["digits"]


def test_two_trainings_prepare_one_table_at_once(tmp_path, monkeypatch):
    parts = [("", np.zeros((3, 4, 4), np.uint8), ["a", "b", "a"])]
    write = published._write

    def slow(*arguments):
        monkeypatch.setattr(published, "_write", write)
        published.write_parts(parts, tmp_path, "table")
        write(*arguments)

    monkeypatch.setattr(published, "_write", slow)
    folder = published.write_parts(parts, tmp_path, "table")
    assert names(folder) == ["a/000000.png", "a/000002.png", "b/000001.png"]
    assert entries(tmp_path) == [folder.name]
