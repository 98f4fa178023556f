"""Versions of data that grow by what people say: folders `1`, `2`, … of which each can be trained on by itself.

    samples.csv      path,label,split,group: what `taxon train --data` reads
    recent.csv       path,label: new pictures kept back to judge by; the next version trains on them
    provenance.csv   a row for each that spoke of a picture, and what was decided
    base             a link to the pictures that it began with
    said/            pictures from the feedback store, by SHA-256
    doctor.json      what the data doctor found
    version.json     written last: a folder without it is none

Knows names and formats; `merge` decides what goes in.
"""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from taxon.bundle import atomic_files
from taxon.feedback.exporting import LIST, PROVENANCE, RECENT
from taxon.feedback.store import Store
from taxon.picture_files import within
from taxon.training.dataset import data, tables
from taxon.training.dataset.sources import open_source, split_source
from taxon.training.errors import TrainingError
from taxon.training.runs.folder import Run

BASE, SAID, VERSION, DOCTOR = "base", "said", "version.json", "doctor.json"
LIST_COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a version."""

    path: str
    """From the version's folder: below `base` or `said`."""
    label: str
    """As lists write it."""
    split: str
    group: str = ""

    @property
    def picture(self) -> str:
        """SHA-256 of what people have spoken of; empty for others."""
        return Path(self.path).stem if self.path.startswith(f"{SAID}/") else ""


@dataclass(frozen=True, slots=True)
class About:
    """What `version.json` says."""

    version: int
    created: str
    base: str
    """Where `base` leads."""
    parent: int | None
    """The version that it was made from."""
    made_for: str
    """The round that made it; empty: a person did."""
    labels: tuple[str, ...]
    new_labels: tuple[str, ...]
    digest: str
    """Of contents, labels and splits, as it was made; people who leave change it."""
    counts: dict[str, int] = field(default_factory=dict)
    """Pictures of the store by what became of them."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a version is made from."""

    root: Path
    """Where `base` is to lead."""
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    parent: int | None = None
    folder: Path | None = None
    """Of the parent, where its `said` pictures lie."""
    provenance: tuple[tuple[str, ...], ...] = ()
    """The parent's rows."""


def numbers(root: Path) -> list[int]:
    """The versions that are whole, ascending."""
    if not root.is_dir():
        return []
    return sorted(int(entry.name) for entry in root.iterdir() if entry.name.isdecimal() and (entry / VERSION).is_file())


def about(folder: Path) -> About:
    """What a version says of itself.

    Raises:
        TrainingError: It is none, or damaged.
    """
    try:
        content = json.loads((folder / VERSION).read_text(encoding="utf-8"))
        lists = {name: tuple(content[name]) for name in ("labels", "new_labels")}
        return About(**{**content, **lists})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{folder} is no version of merged data: {error}") from error


def write_about(folder: Path, said: About) -> None:
    """Writes `version.json`: from now on the folder is a version."""
    atomic_files.write(folder / VERSION, json.dumps(asdict(said), ensure_ascii=False, indent=1))


def remove(folder: Path, store: Store) -> None:
    """Removes a version, and the store's memory of it."""
    shutil.rmtree(folder)
    store.export_removed(folder.resolve())


def remove_unfinished(root: Path, store: Store) -> None:
    """Removes what a merge that was killed has left, and nothing else. The caller holds the folder."""
    for entry in root.iterdir():
        is_ours = entry.name.isdecimal() and (entry / PROVENANCE).is_file() and (entry / SAID).is_dir()
        if is_ours and not (entry / VERSION).exists():
            remove(entry, store)


def next_number(root: Path) -> int:
    """That nothing in the folder is called by."""
    return max((int(entry.name) for entry in root.iterdir() if entry.name.isdecimal()), default=0) + 1


def from_version(root: Path, version: int) -> Basis:
    """An earlier version; what it kept back to judge by is there to train on now.

    Raises:
        TrainingError: It is damaged.
    """
    folder = root / str(version)
    said = about(folder)
    try:
        recent = [Row(row["path"], row["label"], "train") for row in _read(folder / RECENT)]
        with (folder / PROVENANCE).open(newline="", encoding="utf-8") as file:
            _, *provenance = csv.reader(file)
        target = (folder / BASE).readlink()
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise TrainingError(f"{folder} is damaged: {error}") from error
    return Basis(target, (*rows(folder), *recent), said.labels, version, folder, tuple(map(tuple, provenance)))


def rows(folder: Path) -> list[Row]:
    """What a version is there to train on.

    Raises:
        TrainingError: It is damaged.
    """
    try:
        return [Row(*(row[name] for name in LIST_COLUMNS)) for row in _read(folder / LIST)]
    except (OSError, KeyError, csv.Error) as error:
        raise TrainingError(f"{folder} is damaged: {error}") from error


def recent(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """What a version keeps back to judge by: files with their labels.

    Raises:
        TrainingError: It is damaged.
    """
    try:
        listed = _read(folder / RECENT)
        return [(folder / row["path"], tuple(filter(None, row["label"].split(tables.SEPARATOR)))) for row in listed]
    except (OSError, KeyError, csv.Error) as error:
        raise TrainingError(f"{folder} is damaged: {error}") from error


def from_run(run: Run) -> Basis:
    """The data of a training, split as it was there. If that was a version of merged data, use `from_version`.

    Raises:
        TrainingError: It was no pictures, or they lie elsewhere than in one folder.
    """
    if run.checkpoint().pixels is None:
        raise TrainingError(f"{run.folder} was trained on numbers: people speak of pictures")
    samples = [sample for split in data.SPLITS for sample in run.samples(split)]
    return _basis(Path(run.facts["data"]), samples, run.labels)


def from_source(source: str, prepared_folder: Path, fraction: float, seed: int) -> Basis:
    """A labelled folder, a list or a data set, as `taxon train` splits it.

    Raises:
        TrainingError: There is none, or it cannot be split; or it is a table of numbers.
    """
    found, values = open_source(
        source,
        digits_folder=prepared_folder / "digits",
        prepared_folder=prepared_folder,
        download=False,
        task="auto",
    )
    if values is not None:
        raise TrainingError(f"{source} is a table of numbers: people speak of pictures")
    found = split_source(data.with_digests(found), fraction=fraction, seed=seed, validate_on="val")
    return _basis(found.root, found.samples, found.labels)


def _basis(root: Path, samples: Sequence[data.Sample], labels: tuple[str, ...]) -> Basis:
    listed = []
    for sample in samples:
        if (path := within(sample.path, root)) is None:
            raise TrainingError(f"{sample.path} lies outside {root}: data that grows must lie in one folder")
        label = tables.SEPARATOR.join(sample.names(labels))
        listed.append(Row(f"{BASE}/{path.as_posix()}", label, sample.split, sample.group))
    return Basis(root.resolve(), tuple(listed), labels)


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return [*csv.DictReader(opened)]
