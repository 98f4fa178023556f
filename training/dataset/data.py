"""Labelled samples: what a data source gives and everything later takes.

Knows folders, classes, splits and digests. Knows nothing of pixels (see `pictures`), of other sources than
folders (see `sources`), or of training.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from taxon.training.config import Task
from taxon.training.dataset.splits import validation_groups
from taxon.training.errors import TrainingError

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif")
CLUTTER = ("Thumbs.db", "desktop.ini")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture file."""

    path: Path
    label: int
    """Class index; -1 for a multi-label sample, whose classes are `labels`."""
    labels: tuple[int, ...] = ()
    """Multi-label: all class indices, ascending, possibly none. Empty for single-label."""
    split: str = ""
    """`train`, `val`, `test`, or empty until one is chosen."""
    group: str = ""
    """Samples of one group never part; empty means that only equal bytes are one group."""
    sha256: str = ""
    """Of the file's bytes, or of the row's numbers; empty until read."""
    row: int = -1
    """Of a file that holds many samples (a table of numbers), from 0; else -1."""

    @property
    def classes(self) -> tuple[int, ...]:
        """All its class indices: one, or for a multi-label sample any number."""
        return self.labels if self.label < 0 else (self.label,)

    def names(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Its classes by name."""
        return tuple(labels[index] for index in self.classes)


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """All samples of a source, with the classes that their indices mean."""

    root: Path
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single_label"
    faults: tuple[Fault, ...] = ()
    columns: tuple[str, ...] = ()
    """Of a table of numbers: what each number is, in their order."""

    def split(self, name: str) -> list[Sample]:
        """The samples of one split, in the source's order."""
        return [sample for sample in self.samples if sample.split == name]

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Samples per label, zeros included."""
        chosen = [sample for sample in self.samples if split is None or sample.split == split]
        counts = Counter(index for sample in chosen for index in sample.classes)
        return {label: counts[index] for index, label in enumerate(self.labels)}


def scan(folder: Path) -> Labelled:
    """Reads a labelled folder: `<class>/**/*.jpg`, or the same inside `train/`, `val/` and `test/`.

    Classes are the names of the training folders, sorted as strings. Hidden files are passed over; files that
    are not pictures by their name are reported as faults.

    Raises:
        TrainingError: The folder is missing, a class has no pictures, there are fewer than two classes, or a
            split has other classes than training.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder")
    parts = {entry.name: entry for entry in _subfolders(folder)}
    splits = {split: parts[name] for name, split in SPLIT_FOLDERS.items() if name in parts}
    if "train" not in splits:
        splits = {"": folder}
    labels = _classes(splits.get("train", folder))
    samples: list[Sample] = []
    faults: list[Fault] = []
    for split, part in splits.items():
        _check_same_classes(labels, _class_names(part), part)
        for index, label in enumerate(labels):
            files, others = _files(part / label)
            faults += [Fault(path, f"not a picture by its name ({', '.join(EXTENSIONS)})") for path in others]
            if not files and split in ("", "train"):
                raise TrainingError(f"the class folder {part / label} has no pictures")
            samples += [Sample(path, index, split=split) for path in files]
    return Labelled(folder, labels, tuple(samples), faults=tuple(faults))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    )


def _class_names(folder: Path) -> list[str]:
    return [entry.name for entry in _subfolders(folder)]


def _classes(folder: Path) -> tuple[str, ...]:
    found = tuple(_class_names(folder))
    check_labels(found, f"{folder}")
    return found


def check_labels(labels: Sequence[str], where: str) -> None:
    """Refuses class lists that no classifier can be trained on.

    Raises:
        TrainingError: Fewer than two classes, or a name with spaces around it.
    """
    if len(labels) < 2:
        found = f"only the class {labels[0]!r}" if labels else "no class"
        raise TrainingError(f"{where} holds {found}: a classifier needs two classes or more, each a folder of pictures")
    if padded := [label for label in labels if label != label.strip()]:
        raise TrainingError(f"the classes {padded} in {where} have spaces around their names: rename them")


def _check_same_classes(labels: Iterable[str], found: Iterable[str], folder: Path) -> None:
    more, fewer = sorted(set(found) - set(labels)), sorted(set(labels) - set(found))
    if more or fewer:
        faults = [f"unknown {more}"] if more else []
        faults += [f"missing {fewer}"] if fewer else []
        raise TrainingError(f"{folder} must have the classes of training, but has {' and '.join(faults)}")


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(pictures, others) below a folder, sorted; hidden ones left out."""
    pictures: list[Path] = []
    others: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or name in CLUTTER:
                continue
            (pictures if name.lower().endswith(EXTENSIONS) else others).append(Path(parent, name))
    return pictures, others


def with_digests(data: Labelled) -> Labelled:
    """The same data with the sha256 of every file filled in; files that cannot be read become faults."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_sha256, [sample.path for sample in data.samples]))
    samples, faults = [], list(data.faults)
    for sample, digest in zip(data.samples, digests, strict=True):
        if isinstance(digest, OSError):
            faults.append(Fault(sample.path, f"cannot be read: {digest.strerror}"))
        else:
            samples.append(replace(sample, sha256=digest))
    return replace(data, samples=tuple(samples), faults=tuple(faults))


def _sha256(path: Path) -> str | OSError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error


def with_splits(data: Labelled, fraction: float, seed: int = 0) -> Labelled:
    """The same data with every sample in a split; needs digests.

    Without a validation split, the share `fraction` of what is not `test` becomes one: stratified by label,
    groups and equal files kept together.

    Raises:
        TrainingError: A class would have no sample left to train or to validate on.
    """
    if not data.split("val"):
        free = [sample for sample in data.samples if sample.split != "test"]
        groups = [sample.group or sample.sha256 for sample in free]
        strata = [",".join(map(str, sample.labels)) or str(sample.label) for sample in free]
        chosen = validation_groups(groups, strata, fraction, seed)
        samples = tuple(
            sample
            if sample.split == "test"
            else replace(sample, split="val" if (sample.group or sample.sha256) in chosen else "train")
            for sample in data.samples
        )
        data = replace(data, samples=samples)
    check_covered(data)
    return data


def check_covered(data: Labelled) -> None:
    """Refuses data in which a class cannot be learnt or checked.

    Raises:
        TrainingError: Names the classes that have no sample in the train or val split.
    """
    for split in ("train", "val"):
        if empty := [label for label, count in data.counts(split).items() if count == 0]:
            raise TrainingError(f"the classes {empty} have no usable picture in the {split} split: add some")


def digest(samples: Iterable[Sample], labels: Sequence[str]) -> str:
    """One sha256 for the data: contents, labels and splits, whatever the file names and their order."""
    lines = sorted(f"{sample.split} {sample.sha256} {'|'.join(sample.names(labels))}" for sample in samples)
    return hashlib.sha256("\n".join([*labels, *lines]).encode()).hexdigest()
