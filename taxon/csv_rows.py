"""CSV files as text, read and written, and their rows → feature vectors in the order that a model takes them: by the
names of their columns.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from taxon.mistaken import MISTAKEN_BYTES, mistaken_for
from taxon.picture_files import composed

Fields = dict[str, str]
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What other programs put between fields. Named, not taken: a guess could cut a field in two."""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file as text."""

    file: Path
    columns: tuple[str, ...]
    """Without the spaces around them, in Unicode's composed form (NFC)."""
    rows: list[list[str]]
    """Each as long as `columns`; at least one."""

    def line(self, row: int) -> str:
        """Where a row stands in the file, for messages."""
        return f"{self.file.name}, row {row + 1}"


def as_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A header and its rows, with the line ends of Unix."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def read_table(path: Path) -> Table:
    """Reads a file with a header; takes a byte order mark, any line ends, quoted fields and blank lines.

    Raises:
        ValueError: Not CSV in UTF-8, separated by something else than commas, without rows, or a row with too many or
            too few fields.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(MISTAKEN_BYTES)
        if beginning and (mistaken := mistaken_for(beginning)):
            raise ValueError(f"{path} is {mistaken}, not CSV")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            if name := _other_separator(next((line for line in stream if line.strip()), "")):
                raise ValueError(f"the fields of {path} are separated by {name}: save it with commas")
            stream.seek(0)
            lines = [line for line in csv.reader(stream, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows below its header")
    table = Table(path, tuple(composed(name.strip()) for name in lines[0]), lines[1:])
    for number, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ValueError(f"{table.line(number)} has {len(row)} fields, the header {len(table.columns)}")
    return table


def _other_separator(header: str) -> str:
    """What stands between the fields of a header that has no comma between them; empty if it is one field."""

    def count(separator: str) -> int:
        return len(next(csv.reader([header.strip()], delimiter=separator), ()))

    return "" if count(",") > 1 else next((name for sign, name in SEPARATORS.items() if count(sign) > 1), "")


def read_rows(path: Path) -> list[Fields]:
    """The rows by column name, in the file's order of columns.

    Raises:
        ValueError: See `read_table`; or two columns of one name.
        OSError: It cannot be read.
    """
    table = read_table(path)
    if len(set(table.columns)) != len(table.columns):
        raise ValueError(f"{path} has double names in its header")
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def vector(fields: Fields, names: Sequence[str], count: int) -> list[float]:
    """The numbers that a model takes.

    Args:
        fields: Of one row.
        names: What the model takes; other columns, such as the label, are passed over.
        count: How many it takes: of a model without names these are the first columns.

    Raises:
        ValueError: A column is missing or is not a number.
    """
    names = [composed(name) for name in names] or list(fields)[:count]
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
    return "" if last in map(composed, names) else composed(fields[last].strip())
