import dataclasses
from pathlib import Path

import pytest

from taxon.training.dataset import data
from taxon.training.errors import TrainingError
from tests.training.folders import write_folder, write_picture


def split_of(found: data.Labelled) -> dict[str, str]:
    return {sample.path.name + sample.path.parent.name: sample.split for sample in found.samples}


def test_classes_are_the_folders_in_alphabetical_order(tmp_path):
    write_folder(tmp_path, 2, {"zebra": 60, "ant": 120, "10": 180})
    found = data.scan(tmp_path)
    assert found.labels == ("10", "ant", "zebra")
    assert {sample.path.parent.name: sample.label for sample in found.samples} == {"10": 0, "ant": 1, "zebra": 2}


def test_train_and_val_folders_are_the_splits(tmp_path):
    write_folder(tmp_path / "train", 3)
    write_folder(tmp_path / "val", 2)
    found = data.scan(tmp_path)
    assert [len(found.split(split)) for split in data.SPLITS] == [6, 4, 0]


def test_pictures_in_nested_folders_count_and_hidden_files_do_not(tmp_path):
    write_folder(tmp_path, 1)
    write_picture(tmp_path / "dark" / "more" / "deep.PNG", 60, 7)
    (tmp_path / "dark" / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".cache").mkdir()
    assert sorted(sample.path.name for sample in data.scan(tmp_path).samples) == ["000.png", "000.png", "deep.PNG"]


def test_other_files_are_named_not_dropped(tmp_path):
    write_folder(tmp_path, 1)
    (tmp_path / "dark" / "notes.txt").write_text("hello")
    assert [fault.path.name for fault in data.scan(tmp_path).faults] == ["notes.txt"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: root.rmdir(), "is not a folder"),
        (lambda root: write_folder(root, 1, {"only": 60}), "only the class 'only'"),
        (lambda root: None, "holds no class"),
        (lambda root: (write_folder(root, 1), (root / "empty").mkdir()), "empty has no pictures"),
        (lambda root: write_folder(root, 1, {"a ": 60, "b": 120}), r"\['a '\].*spaces"),
    ],
)
def test_folders_that_cannot_be_learnt_from_are_refused(tmp_path, build, message):
    root = tmp_path / "pictures"
    root.mkdir()
    build(root)
    with pytest.raises(TrainingError, match=message):
        data.scan(root)


def test_a_validation_folder_with_other_classes_is_refused_by_name(tmp_path):
    """One class less would shift every index behind it."""
    write_folder(tmp_path / "train", 2)
    write_folder(tmp_path / "val", 2, {"dark": 60, "lihgt": 190})
    with pytest.raises(TrainingError, match=r"unknown \['lihgt'\] and missing \['light'\]"):
        data.scan(tmp_path)


def test_the_split_depends_on_contents_not_on_names(tmp_path):
    first = write_folder(tmp_path / "a", 20)
    second = write_folder(tmp_path / "b", 20)
    for path in sorted(second.rglob("*.png")):
        path.rename(path.with_name(f"x{path.name}"))
    splits = [split_of(data.with_splits(data.with_digests(data.scan(root)), 0.25)) for root in (first, second)]
    assert splits[0] == {name.removeprefix("x"): split for name, split in splits[1].items()}


def test_the_split_is_stratified(tmp_path):
    write_folder(tmp_path, 20)
    found = data.with_splits(data.with_digests(data.scan(tmp_path)), 0.25)
    assert found.counts("val") == {"dark": 5, "light": 5}
    assert found.counts("train") == {"dark": 15, "light": 15}


def test_equal_pictures_stay_together(tmp_path):
    write_folder(tmp_path, 10)
    for number in range(10):
        write_picture(tmp_path / "dark" / f"copy-{number:03}.png", 60, number)
    found = data.with_splits(data.with_digests(data.scan(tmp_path)), 0.3)
    by_digest: dict[str, set[str]] = {}
    for sample in found.samples:
        by_digest.setdefault(sample.sha256, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_digest.values())


def test_a_class_of_one_picture_cannot_be_split(tmp_path):
    write_folder(tmp_path, 5)
    write_picture(tmp_path / "lone" / "0.png", 120, 99)
    with pytest.raises(TrainingError, match=r"\['lone'\] have no usable picture in the val split"):
        data.with_splits(data.with_digests(data.scan(tmp_path)), 0.2)


def test_a_class_whose_files_are_all_damaged_says_how_many_and_why(tmp_path):
    write_folder(tmp_path, 4)
    for number in range(3):
        (tmp_path / "spoilt").mkdir(exist_ok=True)
        (tmp_path / "spoilt" / f"{number}.jpg").write_bytes(b"nothing" * (number + 1))
    found = data.with_splits(data.with_digests(data.scan(tmp_path)), 0.25)
    faults = [data.Fault(sample.path, "is damaged", sample.classes) for sample in found.samples if sample.label == 2]
    kept = [sample for sample in found.samples if sample.label != 2]
    with pytest.raises(TrainingError, match=r"3 of 3 files of 'spoilt' cannot be used, the first, .*\.jpg: is damaged"):
        data.check_covered(dataclasses.replace(found, samples=tuple(kept), faults=tuple(faults)))


def test_a_class_of_empty_files_says_so(tmp_path):
    write_folder(tmp_path, 4)
    (tmp_path / "hollow").mkdir()
    for number in range(3):
        (tmp_path / "hollow" / f"{number}.jpg").touch()
    with pytest.raises(TrainingError, match=r"3 of 3 files of 'hollow' cannot be used, the first, .*0\.jpg: is empty"):
        data.with_splits(data.with_digests(data.scan(tmp_path)), 0.25)


def test_the_digest_changes_with_any_picture_label_or_split_but_not_with_names(tmp_path):
    def digest(root: Path) -> str:
        found = data.with_splits(data.with_digests(data.scan(root)), 0.25)
        return data.digest(found.samples, found.labels)

    root = write_folder(tmp_path, 8)
    before = digest(root)
    (root / "dark" / "000.png").rename(root / "dark" / "zzz.png")
    assert digest(root) == before
    (root / "dark" / "001.png").rename(root / "light" / "other.png")
    moved = digest(root)
    write_picture(root / "light" / "000.png", 190, 12345)
    assert len({before, moved, digest(root)}) == 3
