"""Rows of a CSV file → feature vectors in the order that a model takes them: by the names of their columns."""

import csv
from collections.abc import Sequence
from pathlib import Path

Fields = dict[str, str]


def read_rows(path: Path) -> list[Fields]:
    """The rows by column name, in the file's order of columns.

    Raises:
        ValueError: Not CSV in UTF-8 with a header and rows of its length.
        OSError: It cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header, *lines = [line for line in csv.reader(stream, strict=True) if line] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not CSV in UTF-8: {error}") from error
    names = [name.strip() for name in header]
    if not lines or len(set(names)) != len(names):
        raise ValueError(f"{path} must have a header without double names, and rows below it")
    if odd := [number for number, line in enumerate(lines, 1) if len(line) != len(names)]:
        raise ValueError(f"{path}, row {odd[0]} has {len(lines[odd[0] - 1])} fields, the header {len(names)}")
    return [dict(zip(names, line, strict=True)) for line in lines]


def vector(fields: Fields, names: Sequence[str], count: int) -> list[float]:
    """The numbers that a model takes.

    Args:
        fields: Of one row.
        names: What the model takes; other columns, such as the label, are passed over.
        count: How many it takes: of a model without names these are the first columns.

    Raises:
        ValueError: A column is missing or is not a number.
    """
    names = names or list(fields)[:count]
    if missing := [name for name in names if name not in fields]:
        raise ValueError(f"there is no column {missing[0]!r}, which the model takes")
    values = []
    for name in names:
        try:
            values.append(float(fields[name]))
        except ValueError:
            raise ValueError(f"column {name!r}: {fields[name]!r} is not a number") from None
    return values


def label(fields: Fields, names: Sequence[str]) -> str:
    """The last column, if it is not one that the model takes: as in training data, the true label."""
    last = list(fields)[-1]
    return "" if last in names else fields[last].strip()
