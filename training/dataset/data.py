"""Labelled samples: what a data source gives and everything later takes.

Knows classes, splits and digests. Knows nothing of pixels (see `pictures`), of how folders are read (see
`taxon.labelled_folder`), of other sources (see `sources`), or of training.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from taxon import labelled_folder
from taxon.picture_files import FolderError, printable
from taxon.training.config import Task
from taxon.training.dataset.splits import validation_groups
from taxon.training.errors import TrainingError

OF_NOTHING = hashlib.sha256().hexdigest()
SPLITS = ("train", "val", "test")
VALIDATION_FIRST, TEST_FIRST = ("val", "test"), ("test", "val")
"""Which split judges, of a folder that has several: at an export, and at a promotion."""


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
    columns: tuple[tuple[str, str], ...] = ()
    """(name, value) of the further columns of a list of pictures; they divide reports, and nothing else."""

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
    classes: tuple[int, ...] = ()
    """Of which classes it would be, where that is known."""


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
    """Reads a labelled folder, see `taxon.labelled_folder.read`; what it leaves out is reported as faults.

    Raises:
        TrainingError: See there.
    """
    try:
        found = labelled_folder.read(folder)
    except FolderError as error:
        raise TrainingError(str(error)) from error
    samples = tuple(Sample(file.path, file.label, split=file.split) for file in found.files)
    return Labelled(folder, found.labels, samples, faults=tuple(Fault(path, why) for path, why in found.others))


def scan_held_out(folder: Path, splits: Sequence[str]) -> Labelled:
    """What a labelled folder holds to judge a classifier by: all of it, or of one with splits the first of `splits`
    that it has, never the pictures to train on.

    Raises:
        TrainingError: See `scan`; or there is only a training split.
    """
    return held_out(scan(folder), splits, folder)


def held_out(found: Labelled, splits: Sequence[str], source: Path) -> Labelled:
    """As `scan_held_out`, of a source that has been read.

    Raises:
        TrainingError: There is only a training split.
    """
    there = {sample.split for sample in found.samples}
    if there == {""}:
        return found
    chosen = next((split for split in splits if split in there), None)
    if chosen is None:
        raise TrainingError(f"{source} has only a training split: give pictures that nothing was trained on")
    return replace(found, samples=tuple(found.split(chosen)))


def check_labels(labels: Sequence[str], where: str) -> None:
    """Refuses class lists that no classifier can be trained on.

    Raises:
        TrainingError: Fewer than two classes, or a name with spaces around it.
    """
    try:
        labelled_folder.check_labels(labels, where)
    except FolderError as error:
        raise TrainingError(str(error)) from error


def with_digests(data: Labelled) -> Labelled:
    """The same data with the sha256 of every file filled in; files that cannot be read become faults."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_sha256, [sample.path for sample in data.samples]))
    samples, faults = [], list(data.faults)
    for sample, digest in zip(data.samples, digests, strict=True):
        if isinstance(digest, OSError):
            faults.append(Fault(sample.path, f"cannot be read: {digest.strerror}", sample.classes))
        elif digest == OF_NOTHING:
            faults.append(Fault(sample.path, "is empty", sample.classes))
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
    """The same data with every sample in a split. Without digests equal files may part.

    Without a validation split, the share `fraction` of what is not `test` becomes one: stratified by label,
    groups and equal files kept together.

    Raises:
        TrainingError: A class would have no sample left to train or to validate on.
    """
    if not data.split("val"):
        free = [sample for sample in data.samples if sample.split != "test"]
        groups = [_group(sample) for sample in free]
        strata = [",".join(map(str, sample.labels)) or str(sample.label) for sample in free]
        chosen = validation_groups(groups, strata, fraction, seed)
        samples = tuple(
            sample if sample.split == "test" else replace(sample, split="val" if _group(sample) in chosen else "train")
            for sample in data.samples
        )
        data = replace(data, samples=samples)
    check_covered(data)
    return data


def _group(sample: Sample) -> str:
    return sample.group or sample.sha256 or str(sample.path)


def check_covered(data: Labelled) -> None:
    """Refuses data in which a class cannot be learnt or checked.

    Raises:
        TrainingError: Names the classes that have no sample in the train or val split, and why.
    """
    for split in ("train", "val"):
        if empty := [index for index, count in enumerate(data.counts(split).values()) if count == 0]:
            names = [data.labels[index] for index in empty]
            raise TrainingError(
                f"the classes {names} have no usable picture in the {split} split: {_why_empty(data, empty[0])}"
            )


def _why_empty(data: Labelled, index: int) -> str:
    label, groups = data.labels[index], [_group(sample) for sample in data.samples if index in sample.classes]
    usable = len(groups)
    if faults := [fault for fault in data.faults if index in fault.classes]:
        first = f"the first, {printable(faults[0].path)}: {faults[0].reason}"
        return f"{len(faults)} of {usable + len(faults)} files of {label!r} cannot be used, {first}"
    alike = f", of which only {len(set(groups))} differ or may part" if len(set(groups)) < usable else ""
    return f"{label!r} has {usable} in all{alike}; add some"


def digest(samples: Iterable[Sample], labels: Sequence[str]) -> str:
    """One sha256 for the data: contents, labels and splits, whatever the file names and their order."""
    lines = sorted(f"{sample.split} {sample.sha256} {'|'.join(sample.names(labels))}" for sample in samples)
    return hashlib.sha256("\n".join([*labels, *lines]).encode()).hexdigest()
