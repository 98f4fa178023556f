"""The folder of one training.

    run.json          who, when, with what: run id, task, data, library versions
    recipe.toml       every option as it was resolved
    labels.json       classes in the order of the logits
    samples.csv       path,label,split,sha256,group,row[,columns], the last as JSON
    quarantine.json   files that could not be used, with reasons
    warnings.json     what was found wrong on the way; only if there was something
    metrics.jsonl     one line per epoch
    best.pt, last.pt  see `checkpoint`
    report/           see `report`

Knows the files' names and formats. Decides nothing.
"""

import csv
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from taxon import csv_rows
from taxon.bundle.atomic_files import check_writable
from taxon.bundle.atomic_files import write as write_atomically
from taxon.picture_files import as_written, within
from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.dataset import data
from taxon.training.dataset.data import Fault, Labelled, Sample
from taxon.training.dataset.tables import SEPARATOR
from taxon.training.errors import TrainingError
from taxon.training.runs.checkpoint import Checkpoint

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")
FACTS = {"run_id", "task", "data", "data_digest"}
"""What every `run.json` says."""
SAMPLE_COLUMNS = ("path", "label", "split", "sha256", "group", "row")


class Run:
    """An existing run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(
        cls, folder: Path, source: Labelled, recipe_toml: str, *, seed: int, parents: Sequence[str] = ()
    ) -> Self:
        """Writes what is known before the first epoch; `run.json` last. `parents` are the ids of runs that teach it.

        Raises:
            TrainingError: The folder already holds a run, or is not writable.
        """
        if (folder / "run.json").exists():
            raise TrainingError(f"{folder} already holds a run: choose another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = cls(folder)
            write_atomically(folder / "recipe.toml", recipe_toml)
            write_atomically(folder / "labels.json", json.dumps(source.labels, ensure_ascii=False, indent=1))
            write_atomically(folder / "samples.csv", _samples_csv(source))
            run.write_quarantine(source.faults)
            facts = {
                "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}",
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "task": source.task,
                "data": str(source.root.resolve()),
                "data_digest": data.digest(source.samples, source.labels),
                "seed": seed,
                "parents": list(parents),
                "git": _git_commit(),
                "libraries": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            }
            write_atomically(folder / "run.json", json.dumps(facts, ensure_ascii=False, indent=1))
        except OSError as error:
            raise TrainingError(f"the run folder {folder} cannot be written: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens the folder of a run, finished or not.

        Raises:
            TrainingError: It is not one.
        """
        if not (folder / "run.json").is_file():
            raise TrainingError(f"{folder} is not the folder of a run: it has no run.json")
        return cls(folder)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            TrainingError: It is damaged.
        """
        facts: dict[str, Any] = self._read("run.json", dict)
        if missing := FACTS - facts.keys():
            raise TrainingError(f"{self.folder / 'run.json'} is damaged: it says nothing of {sorted(missing)}")
        return facts

    def _read(self, file: str, kind: type) -> Any:
        try:
            content = json.loads((self.folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.folder / file} is damaged or cannot be read: {error}") from error
        if not isinstance(content, kind):
            raise TrainingError(f"{self.folder / file} is damaged: it holds no {kind.__name__}")
        return content

    @property
    def id(self) -> str:
        """Unique name of the run."""
        return str(self.facts["run_id"])

    @property
    def data_digest(self) -> str:
        """One sha256 over contents, labels and splits."""
        return str(self.facts["data_digest"])

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Classes in the order of the logits."""
        return tuple(self._read("labels.json", list))

    @property
    def best_path(self) -> Path:
        """Where the best checkpoint is."""
        return self.folder / "best.pt"

    @property
    def last_path(self) -> Path:
        """Where the newest checkpoint is, which training goes on from."""
        return self.folder / "last.pt"

    def save(self, best: Checkpoint | None, last: Checkpoint) -> None:
        """Writes both checkpoints, the best first: training goes on from the last, and then finds the best again.

        Raises:
            TrainingError: The disk is full or not writable; the previous checkpoints are whole.
        """
        try:
            if best is not None:
                best.save(self.best_path)
            last.save(self.last_path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            raise TrainingError(
                f"the checkpoint in {self.folder} could not be written ({error}): the previous one is whole; make room "
                "and run the same command again"
            ) from error

    def checkpoint(self) -> Checkpoint:
        """The best checkpoint.

        Raises:
            TrainingError: No epoch has been completed, or the file is damaged.
        """
        return Checkpoint.load(self.best_path)

    def samples(self, split: str) -> list[Sample]:
        """The samples of `train`, `val` or `test`, as recorded; paths are absolute.

        Raises:
            TrainingError: The list is damaged.
        """
        try:
            return self._samples(split)
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise TrainingError(f"{self.folder / 'samples.csv'} is damaged or cannot be read: {error}") from error

    def _samples(self, split: str) -> list[Sample]:
        root, index = Path(self.facts["data"]), {label: number for number, label in enumerate(self.labels)}
        multi_label = self.facts["task"] == "multi_label"
        samples = []
        with (self.folder / "samples.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["split"] != split:
                    continue
                names = [name for name in row["label"].split(SEPARATOR) if name] if multi_label else [row["label"]]
                samples.append(
                    Sample(
                        path=root / row["path"],
                        label=-1 if multi_label else index[row["label"]],
                        labels=tuple(sorted(index[name] for name in names)) if multi_label else (),
                        split=split,
                        group=row["group"],
                        sha256=row["sha256"],
                        row=int(row["row"]),
                        columns=tuple(json.loads(row.get("columns") or "{}").items()),
                    )
                )
        return samples

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; none before the first epoch.

        Raises:
            TrainingError: It is damaged.
        """
        path = self.folder / "metrics.jsonl"
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} is damaged or cannot be read: {error}") from error

    def write_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Replaces `metrics.jsonl`. Rewriting keeps it true when a killed run repeats an epoch."""
        write_atomically(self.folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))

    def write_quarantine(self, faults: Sequence[Fault]) -> None:
        """Writes `quarantine.json`, empty or not."""
        entries = [{"path": str(fault.path), "reason": fault.reason} for fault in faults]
        write_atomically(self.folder / "quarantine.json", json.dumps(entries, ensure_ascii=False, indent=1))

    def warnings(self) -> list[str]:
        """The sentences of `warnings.json`; none without it.

        Raises:
            TrainingError: It is damaged.
        """
        return list(self._read("warnings.json", list)) if (self.folder / "warnings.json").exists() else []

    def write_warnings(self, sentences: Sequence[str]) -> None:
        """Writes `warnings.json`."""
        write_atomically(self.folder / "warnings.json", json.dumps(sentences, ensure_ascii=False, indent=1))


def open_or_create(folder: Path, source: Labelled, recipe: Recipe, parents: Sequence[str] = ()) -> Run:
    """A new run, or the one that the same recipe and data began in this folder. For `parents` see `Run.create`.

    Raises:
        TrainingError: The folder holds a run of another recipe or other data; the message says what differs.
    """
    if not (folder / "run.json").exists():
        return Run.create(folder, source, flags.to_toml(recipe), seed=recipe.run.seed, parents=parents)
    run = Run.open(folder)
    changed = _recipe_differences(folder, recipe)
    if run.data_digest != data.digest(source.samples, source.labels):
        changed.append(f"the data: {_data_difference(run, source)}")
    _check_same(folder, changed)
    return run


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """What `open_or_create` can say before the data is read.

    Raises:
        TrainingError: The folder holds a run of another recipe, or is not writable.
    """
    if (folder / "run.json").exists():
        _check_same(folder, _recipe_differences(folder, recipe))
    try:
        check_writable(folder)
    except OSError as error:
        raise TrainingError(f"the run folder {folder} cannot be written: {error.filename}: {error.strerror}") from error


def _recipe_differences(folder: Path, recipe: Recipe) -> list[str]:
    return flags.differences(flags.checked(flags.read_resolved(folder)), recipe)


def _check_same(folder: Path, changed: Sequence[str]) -> None:
    if changed:
        raise TrainingError(f"{folder} holds a run that differs; choose another --out, or undo: {'; '.join(changed)}")


def _data_difference(run: Run, source: Labelled) -> str:
    if run.labels != source.labels:
        return f"classes were {list(run.labels)}, are {list(source.labels)}"
    parts = []
    for split in data.SPLITS:
        before = Counter((sample.sha256, sample.label, sample.labels) for sample in run.samples(split))
        now = Counter((sample.sha256, sample.label, sample.labels) for sample in source.split(split))
        if before != now:
            parts.append(f"{split} lost {(before - now).total()} and gained {(now - before).total()} samples")
    return ", ".join(parts)


def _samples_csv(source: Labelled) -> str:
    further = any(sample.columns for sample in source.samples)
    rows = []
    for sample in source.samples:
        path = within(sample.path, source.root) or as_written(sample.path)
        labels = SEPARATOR.join(sample.names(source.labels))
        row = [path.as_posix(), labels, sample.split, sample.sha256, sample.group, sample.row]
        rows.append([*row, json.dumps(dict(sample.columns), ensure_ascii=False)] if further else row)
    return csv_rows.as_text([*SAMPLE_COLUMNS, "columns"] if further else SAMPLE_COLUMNS, rows)


def _git_commit() -> str | None:
    """Commit of this code, with `-dirty` behind it if it has changes; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed
        return result.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
