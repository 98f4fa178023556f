"""What a folder's names mean: classes, splits, pictures; what cannot be told is refused, what is left out is named."""

import os
import unicodedata
from pathlib import Path

import pytest

from taxon.labelled_folder import check_labels, read, read_class_or_classes, split_named
from taxon.picture_files import NOT_A_PICTURE, FolderError, pictures


def make(root: Path, *names: str) -> Path:
    """Empty files, with their folders; a name that ends in / is an empty folder."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def each(*places: str) -> list[str]:
    return [f"{place}/{number}.jpg" for place in places for number in range(2)]


def found(root: Path) -> set[tuple[str, str, str]]:
    folder = read(root)
    return {(file.split, folder.labels[file.label], file.path.name) for file in folder.files}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("Training", "Testing"),
        ("Train", "Val"),
        ("TRAIN", "Test Images"),
        ("trainset", "validation-data"),
        ("train", "tst"),
    ],
)
def test_splits_are_known_by_their_usual_names(tmp_path, train, test):
    make(tmp_path, *each(f"{train}/glioma", f"{train}/tumor", f"{test}/glioma", f"{test}/tumor"))
    folder = read(tmp_path)
    assert folder.labels == ("glioma", "tumor")
    assert {file.split for file in folder.files} == {"train", split_named(test)}


@pytest.mark.parametrize("word", ["set", "trainer", "", "contest", "7", "valley", "train test"])
def test_other_words_mean_no_split(word):
    assert split_named(word) == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (each("fold1/a", "fold1/b", "fold2/a", "fold2/b"), "look like splits"),
        (each("fold1/a", "fold1/b", "fold2/a", "fold2/b", "sample"), "look like splits"),
        (each("fold1/Cat", "fold1/dog", "fold2/cat", "fold2/Dog"), "look like splits"),
        (each("seg_train/x/a", "seg_test/x/a", "seg_pred"), "look like splits"),
        (each("train2017/a", "train2017/b", "train2017/c", "val2017/a"), "look like splits"),
        (each("cats_train", "cats_test", "dogs_train", "dogs_test"), "look like splits"),
        (each("train1", "test1"), "look like splits"),
        (each("cat/train", "cat/test", "dog/train", "dog/test"), "class folder .*cat holds test and train"),
        (each("cat/train", "cat/Testing", "dog"), r"put the splits above the classes \(Testing/cat\)"),
        (each("train/cat/train", "train/cat/val", "train/dog", "val/cat", "val/dog"), "class folder .*train/cat holds"),
        (each("cats", "dogs", "test"), "test means the test split"),
        (each("valid", "invalid"), "valid means the val split"),
        (each("train/a", "train/b", "test"), "test holds pictures, but no folder of a class"),
        ([*each("train/a", "train/b", "val/a"), "val/b/0.heic"], r"val/b has no pictures: none of its 1 files"),
        (each("train", "bus", "car"), "train means the train split"),
        (each("test", "bus", "car"), "test means the test split"),
        (each("train/only", "val/only"), r"holds only the class 'only'"),
        (each("train/steam", "train/electric", "bus", "car"), "beside bus, car.*cannot be told"),
        (each("val/a", "val/b", "valid/a", "valid/b"), "val and valid, which all mean the val split"),
        (each("Train/a", "train/a", "Train/b", "train/b"), "Train and train"),
        (each("wrapped/a", "wrapped/b"), r"\(not .*wrapped\?\) holds only the class 'wrapped'"),
        ([*each("a", "b"), "c/0.heic", "c/1.heic"], r"none of its 2 files can be used; 0\.heic is not a picture by"),
        ([*each("a", "b"), "c/"], "c has no pictures: it is empty"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(FolderError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    "classes",
    [
        ("training shoes", "test tubes"),
        ("valley", "contest"),
        ("2021", "2022"),
        ("a/x", "b/y"),
        ("vehicle/train", "vehicle/bus", "animal"),
        ("cat/x", "cat/y", "cat", "dog/x", "dog/y", "dog"),
    ],
)
def test_classes_that_only_look_like_splits_are_classes(tmp_path, classes):
    assert read(make(tmp_path, *each(*classes))).labels == tuple(sorted({name.partition("/")[0] for name in classes}))


def test_classes_may_share_one_folder_name(tmp_path):
    """Tiny ImageNet has `images` in each class."""
    assert found(make(tmp_path, *each("a/images", "b/images"))) == {
        ("", label, f"{number}.jpg") for label in "ab" for number in range(2)
    }


def test_what_is_left_out_is_named(tmp_path):
    make(tmp_path, *each("train/a", "train/b", "val/a", "val/b", "extra"), "train/stray.jpg", "train/a/notes.txt")
    (tmp_path / "train" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "train" / "a" / "pipe.jpg")
    assert {(path.name, reason.partition(" (")[0]) for path, reason in read(tmp_path).others} == {
        ("extra", "lies beside the folders of the splits and is not read"),
        ("stray.jpg", "lies in no class's folder"),
        ("notes.txt", "is not a picture by its name"),
        ("gone.jpg", "is a broken symbolic link"),
        ("pipe.jpg", "is not a regular file"),
    }


def test_symbolic_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path / "elsewhere", *each("a/deep"))
    root = make(tmp_path / "root", *each("b"))
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b" / "again").symlink_to(root / "b")
    assert {label for _, label, _ in found(root)} == {"a", "b"}
    assert [reason for _, reason in read(root).others] == ["is a symbolic link to a folder that holds it"]


@pytest.mark.parametrize("place", ["round", "a/round", "a/round.jpg"])
def test_links_that_lead_round_and_round_are_named(tmp_path, place):
    make(tmp_path, *each("a", "b"))
    (tmp_path / place).symlink_to(tmp_path / place)
    named = [(tmp_path / place, "is a broken symbolic link")] if "/" in place else []
    assert list(read(tmp_path).others) == named


def test_both_spellings_of_unicode_are_one_class(tmp_path):
    label = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", label)
    make(tmp_path, *each(f"train/{label}", "train/b", f"val/{decomposed}", "val/b"))
    assert read(tmp_path).labels == ("b", label)
    make(tmp_path, *each(f"train/{decomposed}"))
    with pytest.raises(FolderError, match="two spellings of Unicode"):
        read(tmp_path)


@pytest.mark.parametrize("name", [b"a/caf\xe9.jpg", b"caf\xe9/0.jpg", b"a/caf\xe9.txt", b"a/\xe9/0.jpg"])
def test_names_that_are_not_utf8_are_refused_by_name(tmp_path, name):
    make(tmp_path, *each("a", "b"), os.fsdecode(name))
    with pytest.raises(FolderError, match=r"\\xe9.* is not UTF-8: rename it"):
        read(tmp_path)


@pytest.mark.parametrize("label", ["two\nlines", "bell\a"])
def test_labels_with_control_characters_are_refused(label):
    with pytest.raises(FolderError, match=r"control characters") as refused:
        check_labels(["a", label], "list.csv")
    assert "\n" not in str(refused.value)


def test_names_that_would_take_two_lines_are_refused(tmp_path):
    make(tmp_path, *each("a", "b"), "a/two\nlines.jpg")
    with pytest.raises(FolderError, match=r"two\\x0alines\.jpg has a control character"):
        read(tmp_path)


def test_a_folder_of_pictures_is_one_class_where_a_class_may_be_given(tmp_path):
    make(tmp_path, *each("cat", "dog"), "cat/.hidden.jpg", "cat/0.jfif", "cat/0.heic", "dog/0.heic")
    assert read_class_or_classes(tmp_path / "cat") == (
        [(tmp_path / "cat" / name, "cat") for name in ("0.jfif", "0.jpg", "1.jpg")],
        [(tmp_path / "cat" / "0.heic", NOT_A_PICTURE)],
    )
    pairs, others = read_class_or_classes(tmp_path)
    assert {label for _, label in pairs} == {"cat", "dog"}
    assert len(others) == 2


@pytest.mark.parametrize("others", [["val"], ["test"], ["val", "test"]])
def test_nothing_is_judged_by_what_is_there_to_train_on(tmp_path, others):
    make(tmp_path, *each(*(f"{split}/{label}" for split in ("Train", *others) for label in ("cat", "dog"))), "notes/")
    make(tmp_path, "Train/cat/notes.txt")
    pairs, left_out = read_class_or_classes(tmp_path)
    assert {(path.parents[1].name, path.parent.name, label) for path, label in pairs} == {
        (split, label, label) for split in others for label in ("cat", "dog")
    }
    trained_on = [path for path, reason in left_out if reason == "is there to train on"]
    assert trained_on == sorted((tmp_path / "Train").rglob("*.jpg"))
    assert [path.name for path, _ in left_out if path not in trained_on] == ["notes.txt"]


@pytest.mark.parametrize("given", [".", "train"])
def test_a_training_split_alone_is_what_was_asked_for(tmp_path, given):
    make(tmp_path, *each("train/cat", "train/dog"))
    pairs, left_out = read_class_or_classes(tmp_path / given)
    assert [label for _, label in pairs] == ["cat", "cat", "dog", "dog"]
    assert left_out == []


@pytest.mark.parametrize("called", ["link", "link/.", "link/deep/.."])
def test_a_class_is_called_as_its_link_is(tmp_path, called):
    """As training calls it, which lists the names in a folder."""
    make(tmp_path / "store" / "x123", *each("."), "deep/")
    (tmp_path / "link").symlink_to(tmp_path / "store" / "x123")
    assert {label for _, label in read_class_or_classes(Path(f"{tmp_path}/{called}"))[0]} == {"link"}


def test_pictures_beside_folders_of_pictures_may_be_either(tmp_path):
    make(tmp_path, *each("cat", "cat/sub"))
    with pytest.raises(FolderError, match="cannot be told"):
        read_class_or_classes(tmp_path / "cat")


def test_hidden_files_and_clutter_are_no_pictures(tmp_path):
    make(tmp_path, "a.JPG", "._a.jpg", ".b/c.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg", "Thumbs.db")
    assert [path.name for path in pictures(tmp_path)[0]] == ["a.JPG"]
    assert pictures(tmp_path)[1] == []
