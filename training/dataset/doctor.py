"""What is wrong with labelled pictures, and a split in which nothing that looks alike is on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from taxon import csv_rows
from taxon.bundle.atomic_files import write as write_atomically
from taxon.picture_files import within
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.findings import Finding, examine
from taxon.training.dataset.fingerprints import Fingerprints, alike, fingerprints
from taxon.training.dataset.scan_pictures import Facts, look_at_all
from taxon.training.dataset.tables import SEPARATOR
from taxon.training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the doctor found."""

    data: Labelled
    facts: list[Facts]
    fingerprints: Fingerprints
    """Of the same pictures."""
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind, the worst kinds first."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault(finding.kind, []).append(finding)
        return kinds


def diagnose(found: Labelled) -> Diagnosis:
    """Looks at every file."""
    facts, grids, faults = look_at_all(found.samples)
    usable = replace(found, samples=tuple(fact.sample for fact in facts), faults=(*found.faults, *faults))
    prints = fingerprints(grids)
    return Diagnosis(usable, facts, prints, examine(usable, facts, prints))


def check_can_be_listed(found: Labelled, file: Path) -> None:
    """Refuses data that `write_split` cannot write, before any picture is decoded.

    Raises:
        TrainingError: A picture lies outside the file's folder, or a class's name cannot be written.
    """
    if unwritable := [label for label in found.labels if SEPARATOR in label]:
        raise TrainingError(
            f"the class {unwritable[0]!r} would be read as several labels: rename it without {SEPARATOR}"
        )
    for sample in found.samples:
        _listed(sample.path, file)


def _listed(picture: Path, file: Path) -> Path:
    """The picture as a list calls it, from the list's folder."""
    if (path := within(picture, file.parent)) is None:
        raise TrainingError(
            f"{picture} lies outside {file.parent.resolve()}: write the list in or above the pictures' folder"
        )
    return path


def write_split(diagnosis: Diagnosis, file: Path, fraction: float, seed: int) -> Labelled:
    """Writes `path,label,split,group`: pictures that are equal or look alike form a group and stay together. What is
    to test with, and what it looks like, is kept for that.

    Args:
        diagnosis: Of data that `check_can_be_listed`.
        file: To write.
        fraction: Share of each class that validates.
        seed: Another one gives another split.

    Returns:
        What was written.

    Raises:
        TrainingError: A class cannot be split, or a picture lies outside the file's folder.
        OSError: Not writable.
    """
    grouped = grouped_samples(diagnosis.facts, diagnosis.fingerprints)
    tests = {sample.group for sample in grouped if sample.split == "test"}
    free = tuple(replace(sample, split="test" if sample.group in tests else "") for sample in grouped)
    split = data.with_splits(replace(diagnosis.data, samples=free), fraction, seed)
    rows = (
        (_listed(one.path, file).as_posix(), SEPARATOR.join(one.names(split.labels)), one.split, one.group)
        for one in split.samples
    )
    write_atomically(file, csv_rows.as_text(("path", "label", "split", "group"), rows))
    return split


def grouped_samples(facts: Sequence[Facts], prints: Fingerprints) -> list[Sample]:
    """The samples, each with the group of all that it equals or looks like, also by way of others."""
    first_with: dict[tuple[str, str], int] = {}
    pairs = [(first, second) for first, second, _ in alike(prints)]
    pairs += [
        (first_with.setdefault(key, number), number)
        for number, fact in enumerate(facts)
        for key in (("bytes", fact.sample.sha256), ("group", fact.sample.group))
        if key[1]
    ]
    rows, columns = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(facts), len(facts)))
    _, groups = connected_components(links, directed=False)
    _, firsts = np.unique(groups, return_index=True)
    return [
        replace(fact.sample, group=facts[firsts[group]].sample.sha256[:16])
        for fact, group in zip(facts, groups, strict=True)
    ]
