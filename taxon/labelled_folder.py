"""A folder of labelled pictures → which file is of which class and split: the one reading of such folders, for
training, the doctor, export, promotion and `taxon classify --labelled`.

Knows names only (see `picture_files`): opens no file. What it cannot tell it refuses; what it leaves out it names.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxon.picture_files import (
    CONTROL,
    FolderError,
    as_written,
    check_name,
    composed,
    direct,
    is_passed_over,
    pictures,
    printable,
    subfolders,
)

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
}
FILLERS = {"set", "data", "dataset", "split", "images", "pictures"}
"""What people write behind a split's word: `training_set`, `Test Images`."""
SHOWN = 5
"""Names in a message."""


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One picture by its name."""

    path: Path
    label: int
    """Index of its class."""
    split: str = ""
    """`train`, `val`, `test`, or empty where the folder has no splits."""


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """Everything that a folder holds."""

    labels: tuple[str, ...]
    """Sorted as strings, in Unicode's composed form (NFC)."""
    files: tuple[LabelledFile, ...]
    others: tuple[tuple[Path, str], ...]
    """What is left out, and why."""


def read(folder: Path) -> LabelledFolder:
    """Reads `<class>/**/*.jpg`, or the same inside folders for training, validation and test by their usual names.

    Hidden files are passed over. Symbolic links are followed.

    Raises:
        FolderError: The folder is missing, a class has no pictures, there are fewer than two classes, a split
            has other classes than training, a name is not UTF-8, or folders may be classes and splits alike.
    """
    if not folder.is_dir():
        raise FolderError(f"{printable(folder)} is not a folder")
    check_name(folder.resolve())
    try:
        return _read(folder)
    except OSError as error:
        raise FolderError(f"{error.filename} cannot be read: {error.strerror}") from error


def _read(folder: Path) -> LabelledFolder:
    splits, others = _splits(folder)
    classes = {split: _classes(part) for split, part in splits.items()}
    if "" in classes:
        _check_classes_are_none_of_splits(folder, [*classes[""].values()])
    labels = tuple(next(iter(classes.values())))
    check_labels(labels, f"{folder}{_deeper(folder, labels) if '' in splits else ''}")
    files: list[LabelledFile] = []
    for split, part in splits.items():
        named = classes[split]
        _check_same_classes(labels, named, part)
        others += [(path, "lies in no class's folder") for path in sorted(direct(part))]
        for index, label in enumerate(labels):
            found, left_out = pictures(named[label])
            if not found and (left_out or split in ("", "train")):
                raise FolderError(_no_pictures(named[label], left_out))
            files += [LabelledFile(path, index, split) for path in found]
            others += left_out
    return LabelledFolder(labels, tuple(files), tuple(others))


def read_class_or_classes(folder: Path) -> tuple[list[tuple[Path, str]], Sequence[tuple[Path, str]]]:
    """Every picture to judge a classifier by, with its label; and what is left out, and why: where there are other
    splits, all that is there to train on. A folder that holds pictures itself is one class, called by its name.

    Raises:
        FolderError: See `read`; or it holds pictures and folders of pictures, so that it may be either.
    """
    if not folder.is_dir() or not any(direct(folder)):
        found = read(folder)
        judging = [file for file in found.files if file.split != "train"]
        training = [file for file in found.files if file.split == "train"] if judging else []
        pairs = [(file.path, found.labels[file.label]) for file in judging or found.files]
        return pairs, [*found.others, *((file.path, "is there to train on") for file in training)]
    for inner in subfolders(folder):
        if pictures(inner)[0]:
            raise FolderError(
                f"{folder} holds pictures, and so does its folder {inner.name}: whether it is one class or several "
                "cannot be told; give the folder above it, or move the pictures"
            )
    here, others = pictures(folder)
    return [(path, class_of(folder)) for path in here], others


def class_of(folder: Path) -> str:
    """The label of a class's folder: its name as it is written, also if that is a symbolic link."""
    return composed(as_written(folder).name)


def split_named(word: str) -> str:
    """The split that a word means: `train` for `Training_Set`. Empty if it means none."""
    words = [part for part in re.split(r"[\W_]+", word.casefold()) if part and part not in FILLERS]
    if len(words) != 1:
        return ""
    (only,) = words
    return SPLIT_WORDS.get(only) or SPLIT_WORDS.get(only.removesuffix("set"), "")


def may_be_class(name: str) -> bool:
    """Whether a folder of this name would be read as one class among others."""
    return "/" not in name and not is_passed_over(name) and not split_named(name)


def _splits(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """The folder of each split, `train` first, or the folder itself as the split without a name; and what lies beside
    them.
    """
    inner = subfolders(folder)
    named: dict[str, list[Path]] = {}
    for entry in inner:
        check_name(entry)
        if split := split_named(entry.name):
            named.setdefault(split, []).append(entry)
    if not any(subfolders(entry) for entries in named.values() for entry in entries):
        if named:
            split, (entry, *_) = next(iter(named.items()))
            raise FolderError(
                f"the name of {entry} means the {split} split, which needs one folder of pictures per class: make "
                "them, or if it is a class itself, rename it, or list the files in a CSV file of path,label"
            )
        return {"": folder}, []
    for split, entries in named.items():
        if len(entries) > 1:
            both = " and ".join(entry.name for entry in entries)
            raise FolderError(f"{folder} has {both}, which all mean the {split} split: keep one of them")
    beside = [entry for entry in inner if not split_named(entry.name) and (pictures(entry)[0] or subfolders(entry))]
    if beside and (len(named) == 1 or "train" not in named):
        meant, rest = (
            ", ".join(entries[0].name for entries in named.values()),
            ", ".join(entry.name for entry in beside),
        )
        raise FolderError(
            f"{folder} holds {meant}, whose name means a split, beside {rest}: whether these are splits or classes "
            "cannot be told; rename them, or list the files in a CSV file of path,label,split"
        )
    others = [(entry, "lies beside the folders of the splits and is not read") for entry in beside]
    return {split: named[split][0] for split in ("train", "val", "test") if split in named}, others


def _check_classes_are_none_of_splits(folder: Path, inner: Sequence[Path]) -> None:
    """Refuses "classes" that are splits by names that nobody knows: two hold the same folders, or the names say so."""
    first_with: dict[str, Path] = {}
    for part in inner:
        if any(direct(part)):
            continue
        held = {composed(entry.name).casefold() for entry in subfolders(part)}
        alike = Counter(first_with.setdefault(name, part) for name in held)
        del alike[part]
        if alike and alike.most_common(1)[0][1] > 1:
            raise _splits_by_other_names(folder, inner)
    named = [(part, *_split_within(part.name)) for part in inner]
    said: dict[str, set[str]] = {}
    for _, split, rest in named:
        said.setdefault(rest, set()).update([split] if split else [])
    deep = {split for part, split, _ in named if split and subfolders(part)}
    if len(deep) > 1 or any(len(splits) > 1 for splits in said.values()):
        raise _splits_by_other_names(folder, inner)


def _split_within(name: str) -> tuple[str, str]:
    """The split that a part of a name means, and the rest: `test` and `cats` of `cats_test2`."""
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word]
    split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")
    return split, " ".join(word for word in words if word not in SPLIT_WORDS and word not in FILLERS)


def _splits_by_other_names(folder: Path, inner: Sequence[Path]) -> FolderError:
    names, more = ", ".join(part.name for part in inner[:SHOWN]), ", …" if len(inner) > SHOWN else ""
    return FolderError(
        f"the folders {names}{more} in {folder} look like splits, not classes: call them train, val and test, each "
        "with one folder of pictures per class, or list the files in a CSV file of path,label,split"
    )


def _check_holds_no_splits(part: Path) -> None:
    """Refuses a class whose pictures lie in splits of its own: all of them would be one split."""
    inner = [entry.name for entry in subfolders(part) if split_named(entry.name)]
    if len({split_named(name) for name in inner}) > 1:
        raise FolderError(
            f"the class folder {part} holds {' and '.join(inner)}, whose names mean splits: put the splits above the "
            f"classes ({inner[0]}/{part.name}), or list the files in a CSV file of path,label,split"
        )


def _classes(folder: Path) -> dict[str, Path]:
    """The folder of each class, by its label."""
    found: dict[str, Path] = {}
    inner = subfolders(folder)
    for entry in inner:
        check_name(entry)
        if len(inner) > 1:
            _check_holds_no_splits(entry)
        label = composed(entry.name)
        if label in found:
            raise FolderError(
                f"{folder} has two folders that are both called {label!r}, in two spellings of Unicode: join them"
            )
        found[label] = entry
    return dict(sorted(found.items()))


def _check_same_classes(labels: Sequence[str], found: Collection[str], folder: Path) -> None:
    more, fewer = sorted(set(found) - set(labels)), sorted(set(labels) - set(found))
    if not found and any(direct(folder)):
        raise FolderError(
            f"{folder} holds pictures, but no folder of a class: give each class its folder in it, or move pictures "
            "without labels elsewhere"
        )
    if more or fewer:
        faults = [f"unknown {more}"] if more else []
        faults += [f"missing {fewer}"] if fewer else []
        raise FolderError(f"{folder} must have the classes of training, but has {' and '.join(faults)}")


def check_labels(labels: Sequence[str], where: str) -> None:
    """Refuses class lists that no classifier can be trained on.

    Raises:
        FolderError: Fewer than two classes, or a name with spaces around it or a control character in it.
    """
    if len(labels) < 2:
        found = f"only the class {labels[0]!r}" if labels else "no class"
        raise FolderError(f"{where} holds {found}: a classifier needs two classes or more, each a folder of pictures")
    if padded := [label for label in labels if label != label.strip()]:
        raise FolderError(f"the classes {padded} in {where} have spaces around their names: rename them")
    if odd := [label for label in labels if CONTROL.search(label)]:
        raise FolderError(f"the classes {odd} in {where} have control characters in their names: rename them")


def _deeper(folder: Path, labels: Sequence[str]) -> str:
    """Where the classes may be, if the folder holds one folder of folders."""
    if len(labels) == 1 and len(subfolders(inner := subfolders(folder)[0])) > 1 and not any(direct(inner)):
        return f" (not {inner}?)"
    return ""


def _no_pictures(folder: Path, others: Sequence[tuple[Path, str]]) -> str:
    if not others:
        return f"the class folder {folder} has no pictures: it is empty"
    path, reason = others[0]
    return (
        f"the class folder {folder} has no pictures: none of its {len(others)} files can be used; {path.name} {reason}"
    )
