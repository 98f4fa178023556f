"""CSV files → labelled samples: lists of pictures, pictures as pixel columns, vectors of numbers.

Refuses everything that would have to be guessed.
"""

import hashlib
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon import csv_rows, labelled_folder
from taxon.csv_rows import Table
from taxon.picture_files import CONTROL, FolderError, check_name, composed
from taxon.training.config import AutoTask
from taxon.training.dataset.data import Fault, Labelled, Sample, check_labels
from taxon.training.errors import TrainingError
from taxon.training.suggest import nearest

SEPARATOR = "|"
"""Between several labels of one sample."""
MANIFEST_COLUMNS = ("path", "label", "split", "group")
MISTYPED = 0.75
"""Likeness, by difflib, from which a column's name is taken for a mistyped one."""
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def read_table(file: Path) -> Table:
    """Reads a CSV file with a header.

    Raises:
        TrainingError: Not there, not UTF-8, without rows, or a row with too many or too few fields.
    """
    try:
        return csv_rows.read_table(file)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(str(error)) from error


def kind_of(table: Table) -> str:
    """`manifest` (`path,label…`), `pixels` (`label,pixel0…`) or `features` (numbers, the label last).

    Raises:
        TrainingError: None of them.
    """
    if "path" in table.columns:
        return "manifest"
    if any(re.fullmatch(r"pixel_?\d+", name) for name in table.columns):
        return "pixels"
    if all(NUMBER.fullmatch(field.strip()) or not field.strip() for field in table.rows[0][:-1]):
        return "features"
    raise TrainingError(
        f"{table.file} is no data that is known: its header must have path,label[,split][,group] or label,pixel0,…, "
        "or all columns but the last must be numbers"
    )


def manifest(table: Table, task: AutoTask = "auto") -> Labelled:
    """A list of picture files: `path,label[,split][,group]`, paths relative to the CSV file. Further columns, such as
    `source` or `contributor`, divide reports.

    Args:
        table: Of such columns; several labels of one picture are separated by `|`.
        task: `single_label`, `multi_label`, or `auto`: multi-label if a row has several labels.

    Raises:
        TrainingError: A column is missing, double or nearly called as one above, a row of one label has none, a path
            leaves the folder or comes twice, no file exists, a split is unknown, or the labels are of mixed types.
    """
    for name in ("path", "label"):
        if name not in table.columns:
            raise TrainingError(f"{table.file} has no column {name!r}, only {', '.join(table.columns)}")
    further = [name for name in table.columns if name not in MANIFEST_COLUMNS]
    if unnamed := [name for name in table.columns if not name or table.columns.count(name) > 1]:
        raise TrainingError(f"{table.file} has columns that are blank or double in its header: {sorted(set(unnamed))}")
    # A mistyped split would train on what is to judge.
    if mistyped := [name for name in further if get_close_matches(name.lower(), MANIFEST_COLUMNS, cutoff=MISTYPED)]:
        hint = nearest(mistyped[0].lower(), MANIFEST_COLUMNS)
        raise TrainingError(f"{table.file} has the column {mistyped[0]!r}{hint} Rename it if it is not")
    position = {name: table.columns.index(name) for name in table.columns}
    listed = [_names(row[position["label"]]) for row in table.rows]
    if task == "auto":
        several = any(SEPARATOR in row[position["label"]] for row in table.rows)
        task = "multi_label" if several else "single_label"
    if task == "single_label" and (bad := [n for n, names in enumerate(listed) if len(names) != 1]):
        found, more = len(listed[bad[0]]), f", as {len(bad) - 1} more rows" if len(bad) > 1 else ""
        raise TrainingError(
            f"{table.line(bad[0])} has {found} labels where one is needed{more}: mend it, or ask for "
            "`--task multi_label` if pictures may have several labels or none"
        )
    labels = _labels(table, (name for names in listed for name in names))
    _check_are_not_several(table, labels)
    index = {label: number for number, label in enumerate(labels)}
    root = _root(table)
    samples, faults = [], []
    first_row: dict[Path, int] = {}
    for number, (row, names) in enumerate(zip(table.rows, listed, strict=True)):
        path = _inside(root, row[position["path"]], table.line(number))
        if path in first_row:
            raise TrainingError(f"{table.line(number)} lists {path.name} again, first in row {first_row[path] + 1}")
        first_row[path] = number
        word = row[position["split"]].strip() if "split" in position else ""
        split = labelled_folder.split_named(word)
        if word and not split:
            raise TrainingError(f"{table.line(number)} has the unknown split {word!r}: use train, val or test")
        group = row[position["group"]].strip() if "group" in position else ""
        indices = tuple(sorted({index[name] for name in names}))
        if not path.is_file():
            faults.append(Fault(path, "is not a regular file" if path.exists() else "does not exist", indices))
            continue
        single = task == "single_label"
        samples.append(
            Sample(
                path,
                label=indices[0] if single else -1,
                labels=() if single else indices,
                split=split,
                group=group,
                columns=tuple((name, row[position[name]].strip()) for name in further),
            )
        )
    if not samples:
        text = table.rows[0][position["path"]].strip()
        hint = ": write / between folders, not \\" if "\\" in text else f", beside {table.file.name}"
        raise TrainingError(
            f"{len(faults)} of {len(table.rows)} files of {table.file} do not exist, the first {text}{hint}"
        )
    return Labelled(root, labels, _whole_splits(samples, table), task, tuple(faults))


def _root(table: Table) -> Path:
    root = table.file.parent.resolve()
    try:
        check_name(root)
    except FolderError as error:
        raise TrainingError(str(error)) from error
    return root


def _names(field: str) -> list[str]:
    return [composed(name.strip()) for name in field.split(SEPARATOR) if name.strip()]


def _inside(root: Path, text: str, where: str) -> Path:
    """The path as it is written: symbolic links are followed, wherever they lead, as in folders."""
    if CONTROL.search(text):
        raise TrainingError(f"{where}: the path {text!r} has a control character in it: rename the file")
    if not text.strip() or Path(text.strip()).is_absolute() or os.path.normpath(text.strip()).startswith(".."):
        raise TrainingError(f"{where}: the path {text!r} leads out of {root}")
    return Path(os.path.normpath(_spelt(root, text)))


def _spelt(root: Path, text: str) -> Path:
    """The path, as it is written, or without spaces around it or in the other spelling of Unicode if that is there."""
    bare = text.strip()
    spellings = (text, bare, unicodedata.normalize("NFC", bare), unicodedata.normalize("NFD", bare))
    return next((root / one for one in spellings if (root / one).exists()), root / bare)


def _whole_splits(samples: list[Sample], table: Table) -> tuple[Sample, ...]:
    """Refuses files of which only some rows name a split: whether the others train would be a guess."""
    if any(sample.split for sample in samples) and not all(sample.split for sample in samples):
        blank = next(sample for sample in samples if not sample.split)
        raise TrainingError(f"{table.file} names the split of some rows, but not of {blank.path.name}")
    return tuple(samples)


def _single_labels(table: Table, column: int) -> list[str]:
    names = [composed(row[column].strip()) for row in table.rows]
    if "" in names:
        raise TrainingError(f"{table.line(names.index(''))} has no label: write one, or leave the row out")
    return names


def _labels(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    found = sorted(set(names))
    kinds: dict[str, str] = {}
    for name in found:
        kinds.setdefault("integer" if re.fullmatch(r"\d+", name) else "number" if _is_number(name) else "word", name)
    if len(kinds) > 1:
        examples = ", ".join(f"the {kind} {name!r}" for kind, name in kinds.items())
        raise TrainingError(f"the labels of {table.file} are of mixed types: {examples}; write all in one way")
    if kinds.keys() == {"integer"}:
        found.sort(key=int)
    check_labels(found, f"{table.file}")
    return tuple(found)


def _check_are_not_several(table: Table, labels: Sequence[str]) -> None:
    """Refuses labels that are other labels with a comma or semicolon between: each combination would be a class."""
    for label in labels:
        parts = [part.strip() for part in re.split("[;,]", label)]
        if len(parts) > 1 and all(part in labels for part in parts):
            raise TrainingError(
                f"the label {label!r} of {table.file} is {' and '.join(map(repr, parts))}, which are labels too: write "
                f"{SEPARATOR} between several labels of one picture"
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def pixel_arrays(table: Table) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures whose pixels are columns: `label,pixel0,pixel1,…`, row by row, greyscale or RGB interleaved.

    Returns:
        uint8 [N, S, S] or [N, S, S, 3], and the label of each.

    Raises:
        TrainingError: No label column, a count of pixels that makes no square, a value outside 0 to 255, or a label
            that cannot name the folder that its pictures are written into.
    """
    if "label" not in table.columns:
        raise TrainingError(f"{table.file} has no column 'label'")
    label = table.columns.index("label")
    count = len(table.columns) - 1
    if math.isqrt(count) ** 2 == count:
        shape: tuple[int, ...] = (math.isqrt(count), math.isqrt(count))
    elif count % 3 == 0 and math.isqrt(count // 3) ** 2 == count // 3:
        shape = (math.isqrt(count // 3), math.isqrt(count // 3), 3)
    else:
        raise TrainingError(f"{table.file} has {count} pixel columns, which make no square of grey or RGB pixels")
    values = numbers(table, [column for column in range(len(table.columns)) if column != label])
    if values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.round(values)):
        raise TrainingError(f"{table.file} has pixels that are not whole numbers from 0 to 255")
    names = _single_labels(table, label)
    if odd := [name for name in _labels(table, names) if not labelled_folder.may_be_class(name)]:
        raise TrainingError(
            f"the labels {odd} of {table.file} cannot name folders of pictures: write them without / and . at the "
            "beginning, and not as the name of a split"
        )
    return values.astype(np.uint8).reshape(len(names), *shape), names


def numbers(table: Table, columns: Sequence[int]) -> NDArray[np.float32]:
    """float32 [rows, columns].

    Raises:
        TrainingError: A field is empty or not a finite number; the message says where.
    """
    try:
        values = np.asarray([[row[column] for column in columns] for row in table.rows], dtype=np.float32)
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass  # found and named below
    for number, row in enumerate(table.rows):
        for column in columns:
            if not _is_number(row[column]) or not math.isfinite(float(row[column])):
                raise TrainingError(
                    f"{table.line(number)}, column {table.columns[column]!r}: {row[column]!r} is not a finite number"
                )
    raise TrainingError(f"{table.file} has numbers too large for float32")


def feature_rows(table: Table) -> tuple[Labelled, NDArray[np.float32]]:
    """Vectors of numbers with the label in the last column.

    Returns:
        A sample per row, with digest, and float32 [rows, F].

    Raises:
        TrainingError: See `numbers`; or labels of mixed types or fewer than two; or columns without a name of their
            own.
    """
    columns = table.columns[:-1]
    if not columns:
        raise TrainingError(f"{table.file} has no column of numbers before the label")
    if all(_is_number(name) for name in columns):
        raise TrainingError(f"{table.file} begins with a row of numbers: write the columns' names above it")
    if unnamed := sorted({name for name in columns if not name or columns.count(name) > 1}):
        raise TrainingError(f"{table.file} has columns that are blank or double in its header: {unnamed}")
    values = numbers(table, range(len(columns)))
    names = _single_labels(table, -1)
    labels = _labels(table, names)
    index = {label: number for number, label in enumerate(labels)}
    samples = tuple(
        Sample(table.file, index[name], row=number, sha256=hashlib.sha256(values[number].tobytes()).hexdigest())
        for number, name in enumerate(names)
    )
    return Labelled(_root(table), labels, samples, columns=columns), values
