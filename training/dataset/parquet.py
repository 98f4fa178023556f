"""Parquet files with encoded pictures and labels, as data sets are shared on the Hugging Face Hub → picture files.

Pictures are written as they are, byte for byte, once for each content of the files, so that everything later sees files
as of any source; equal ones are links to one file. What the files say of their columns (`ClassLabel` and `Image` in the
schema's metadata) is heeded, so that class numbers are those of the data set. Needs the package `pyarrow` (extra
`parquet`).
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxon import csv_rows, extras
from taxon.bundle import atomic_files
from taxon.labelled_folder import split_named
from taxon.picture_files import composed
from taxon.training.config import AutoTask, Task
from taxon.training.dataset.data import Labelled, Sample, check_labels
from taxon.training.dataset.new_folder import new_folder
from taxon.training.dataset.pictures import LIMITS
from taxon.training.errors import TrainingError

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"
COLUMN_SIGN = "#"
"""Between a place and the column whose labels are meant."""
FORMAT = "1"
"""Another one with every release that writes other files."""
INDEX, LABELS = "index.csv", "labels.json"
ROWS_AT_ONCE = 64
FILES_IN_FOLDER = 10_000
BEGINNINGS = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}
OTHER_SPLITS = {"dev": "val", "eval": "test"}
"""Beside those of folders, as the Hub reads them."""
LABEL_NAMES = ("label", "labels")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the files are meant."""

    picture: str
    label: str
    names: tuple[str, ...]
    """Of the classes by number; empty: what the rows say is the label."""
    several: bool
    """Whether a row has a list of labels."""


def files_of(place: Path) -> list[Path]:
    """The Parquet files of a place, in the order of their names: itself, or those in a folder and the folders in it.

    Empty if it has none.
    """
    if place.is_file():
        return [place] if place.suffix == SUFFIX else []
    found = [*place.glob(f"*{SUFFIX}"), *place.glob(f"*/*{SUFFIX}")]
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))


def read(place: Path, column: str, prepared_folder: Path, task: AutoTask) -> Labelled:
    """The samples of a place's Parquet files; their pictures are written below `prepared_folder` unless they are there.

    Args:
        place: See `files_of`.
        column: That holds the labels; empty: the only one that may.
        prepared_folder: Holds one folder per content.
        task: `single_label`, `multi_label` (the labels are lists), or `auto`: what the column is.

    Returns:
        The samples in the files' order, with splits where files or folders are called by them. Classes are in the order
        of the data set's own names, else sorted.

    Raises:
        TrainingError: `pyarrow` is missing; the files cannot be read, differ in their columns, hold no pictures, or
            several columns may be meant; only some are called by a split; a row has no label or a list of several where
            one is needed; a picture is larger than training reads; a class's name cannot be used; or the pictures
            cannot be written.
    """
    try:
        import pyarrow  # noqa: F401 - asked for before anything is read
    except ImportError as error:
        raise TrainingError(f"Parquet needs its package ({error}): {extras.install('parquet')}") from error
    files = files_of(place)
    splits = _splits(place, files)
    columns = _columns(place, files, column)
    digest = hashlib.sha256(json.dumps([FORMAT, columns.picture, columns.label, columns.names, splits]).encode())
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    folder = prepared_folder / f"{place.stem}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        with new_folder(folder) as new:
            _write(new, files, splits, columns)
    return _indexed(folder, task if columns.several else "single_label", place)


def _splits(place: Path, files: Sequence[Path]) -> list[str]:
    splits = [_split(place, file) for file in files]
    if any(splits) and not all(splits):
        odd = files[splits.index("")]
        raise TrainingError(f"{place} has files that are called by a split, but {odd.name} is not: rename or move it")
    return splits


def _split(place: Path, file: Path) -> str:
    """By the name of a file, such as train-00000-of-00002.parquet, or of its folder."""
    words = [re.sub(r"([-_.]?\d+)?([-_]of[-_]\d+)?$", "", file.stem)]
    words += [file.parent.name] if file.parent != place and file != place else []
    return next((split for word in words if (split := split_named(word) or OTHER_SPLITS.get(word.casefold(), ""))), "")


def _columns(place: Path, files: Sequence[Path], wanted: str) -> Columns:
    found = {_columns_of(file, wanted) for file in files}
    if len(found) > 1:
        raise TrainingError(f"the Parquet files of {place} differ in their columns or classes: give one data set")
    return found.pop()


def _columns_of(file: Path, wanted: str) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file)
        features = _features(schema.metadata or {})
        named = {name: _class_names(feature) for name, feature in features.items()}
    except (OSError, ValueError, RecursionError, pyarrow.ArrowException) as error:
        raise TrainingError(f"{file} cannot be read as Parquet: {error}") from error
    types = {field.name: field.type for field in schema}
    pictures = [name for name, one in types.items() if _holds_bytes(one)]
    said = [name for name in pictures if _kind(features.get(name)) == "Image"]
    classes = {name: names for name, names in named.items() if names and name in types}
    labels = [name for name in types if name in classes] or [name for name in types if name in LABEL_NAMES]
    if wanted:
        labels = [wanted] if wanted in types else []
    picture = _only(file, "pictures (bytes, or a struct with bytes)", said or pictures, [*types])
    label = _only(file, f"labels{f' called {wanted!r}' if wanted else ''}", labels, [*types])
    one = types[label]
    several = pyarrow.types.is_list(one) or pyarrow.types.is_large_list(one)
    of = one.value_type if several else one
    of = of.value_type if pyarrow.types.is_dictionary(of) else of
    if not (pyarrow.types.is_integer(of) or pyarrow.types.is_string(of) or pyarrow.types.is_large_string(of)):
        raise TrainingError(f"the column {label!r} of {file} holds {one}, not labels: whole numbers or words")
    return Columns(picture, label, classes.get(label, ()), several)


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What the data set says of its columns, by name; whatever else is written there says nothing."""
    found = json.loads(metadata.get(b"huggingface", b"{}"))
    for part in ("info", "features"):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _holds_bytes(one: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_struct(one):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in one)
    return bool(types.is_binary(one) or types.is_large_binary(one))


def _kind(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _class_names(feature: Any) -> tuple[str, ...]:
    """Of a `ClassLabel`, or of a list of them in any of the ways in which that has been written."""
    if isinstance(feature, list):
        return _class_names(feature[0]) if len(feature) == 1 else ()
    if _kind(feature) == "ClassLabel":
        names = feature.get("names")
        return tuple(str(name) for name in names) if isinstance(names, list) else ()
    return _class_names(feature.get("feature")) if _kind(feature) in ("Sequence", "List", "LargeList") else ()


def _only(file: Path, what: str, found: Sequence[str], there: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    if not found:
        raise TrainingError(f"{file} has no column of {what}, only {', '.join(there)}")
    raise TrainingError(
        f"{file} has several columns of {what}: {', '.join(found)}; say which, as in PATH{COLUMN_SIGN}{found[0]}, or "
        "leave the others out"
    )


def _write(new: Path, files: Sequence[Path], splits: Sequence[str], columns: Columns) -> None:
    """Pictures, the list of them, and what their classes are called."""
    listed: list[tuple[str, list[Any], str]] = []
    known: dict[bytes, Path] = {}
    for file, split in zip(files, splits, strict=True):
        for row, (picture, labels) in enumerate(_rows(file, columns)):
            _check_row(f"{file.name}, row {row + 1}", labels, columns)
            number = len(listed)
            folder = f"pictures/{split or 'all'}/{number // FILES_IN_FOLDER:04}"
            path = f"{folder}/{number:08}.{_extension(picture)}"
            (new / folder).mkdir(parents=True, exist_ok=True)
            _put(new / path, picture, known)
            listed.append((path, labels, split))
    names = columns.names or _sorted({label for _, labels, _ in listed for label in labels})
    classes = [composed(str(name).strip()) for name in names]
    check_labels(classes, str(files[0]))
    if len({*classes}) != len(classes):
        raise TrainingError(f"{files[0]} has classes of one name: {sorted(classes)}")
    index = {name: number for number, name in enumerate(names)}
    rows = []
    for path, labels, split in listed:
        numbers = sorted({label if columns.names else index[label] for label in labels})
        rows.append((path, "|".join(map(str, numbers)), split))
    atomic_files.write(new / INDEX, csv_rows.as_text(("path", "classes", "split"), rows))
    atomic_files.write(new / LABELS, json.dumps({"labels": classes, "several": columns.several}, ensure_ascii=False))


def _put(path: Path, picture: bytes, known: dict[bytes, Path]) -> None:
    digest = hashlib.sha256(picture).digest()
    try:
        os.link(known[digest], path)
    except (KeyError, OSError):  # it is new, has as many links as a file may, or the file system has none
        path.write_bytes(picture)
        known[digest] = path


def _rows(file: Path, columns: Columns) -> Iterator[tuple[bytes, list[Any]]]:
    """(picture, labels) in the file's order. A row without a picture gives an empty one, which is then a fault."""
    import pyarrow.compute
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[columns.picture, columns.label]):
                pictures, labels = batch.column(columns.picture), batch.column(columns.label)
                if pyarrow.types.is_struct(pictures.type):
                    pictures = pictures.field("bytes")
                sizes = pyarrow.compute.binary_length(pictures).to_pylist()
                for picture, size, label in zip(pictures, sizes, labels.to_pylist(), strict=True):
                    row += 1
                    if (size or 0) > LIMITS.max_bytes:
                        limit = f"at most {LIMITS.max_bytes:,} are read"
                        raise TrainingError(f"{file.name}, row {row} has a picture of {size:,} bytes: {limit}")
                    found = (label or []) if columns.several else [label]
                    yield picture.as_py() or b"", [one.strip() if isinstance(one, str) else one for one in found]
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise TrainingError(f"{file} cannot be read as Parquet: {error}") from error


def _check_row(where: str, labels: Sequence[Any], columns: Columns) -> None:
    for label in labels:
        if label is None or label == "" or (columns.names and label == -1):
            raise TrainingError(f"{where} has no label: move files without labels elsewhere, or leave such rows out")
        if columns.names and not (isinstance(label, int) and 0 <= label < len(columns.names)):
            raise TrainingError(f"{where} has the label {label!r}, but there are {len(columns.names)} classes")


def _sorted(labels: set[Any]) -> list[Any]:
    return sorted(labels, key=composed) if all(isinstance(label, str) for label in labels) else sorted(labels)


def _extension(picture: bytes) -> str:
    return next((name for beginning, name in BEGINNINGS.items() if picture.startswith(beginning)), "bin")


def _indexed(folder: Path, task: AutoTask, place: Path) -> Labelled:
    said = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    with (folder / INDEX).open(newline="", encoding="utf-8") as file:
        rows = [
            (row["path"], [int(n) for n in row["classes"].split("|") if n], row["split"])
            for row in csv.DictReader(file)
        ]
    decided: Task = ("multi_label" if said["several"] else "single_label") if task == "auto" else task
    if decided == "single_label" and (odd := [path for path, classes, _ in rows if len(classes) != 1]):
        raise TrainingError(f"{len(odd)} rows of {place} have no label or several: ask for `--task multi_label`")
    root = folder.resolve()
    samples = tuple(
        Sample(root / path, classes[0], split=split)
        if decided == "single_label"
        else Sample(root / path, -1, tuple(classes), split=split)
        for path, classes, split in rows
    )
    return Labelled(root, tuple(said["labels"]), samples, decided)
