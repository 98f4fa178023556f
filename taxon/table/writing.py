"""Rows → the table's file: Parquet, CSV or JSON lines, by its ending."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from taxon import extras
from taxon.bundle import atomic_files
from taxon.table.rows import Row

ROW_GROUP = 20_000
"""Rows of Parquet that are in memory at once."""
COLUMNS = (
    "path",
    "label",
    "score",
    "unknown",
    "familiarity",
    "labels",
    "scores",
    "model",
    "version",
    "variant",
    "error",
    "message",
)

Write = Callable[[BinaryIO, Iterator[dict[str, Any]]], None]


def check(path: Path) -> None:
    """Whether a table can be written there, before anything is done for it.

    Raises:
        ValueError: The ending is none of the three, or what Parquet needs is not installed.
        OSError: The folder is missing or not writable.
    """
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"{path} must end in {', '.join(WRITERS)}: that says what is written")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ValueError(f"{error}; install it with: {extras.install('parquet')}") from error
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    atomic_files.check_writable(path.parent)


def write(path: Path, rows: Iterable[Row], model: str, version: str) -> None:
    """Writes the table: wholly, or not at all.

    Raises:
        OSError: The disk is full, or not writable.
    """
    with atomic_files.replacing(path) as file:
        WRITERS[path.suffix.lower()](file, (_values(row, model, version) for row in rows))


def _values(row: Row, model: str, version: str) -> dict[str, Any]:
    values = row._asdict() | {"model": model, "version": int(version)}
    values |= {"labels": json.loads(row.labels), "scores": json.loads(row.scores)}
    return {name: values[name] for name in COLUMNS}


def _csv(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    """Arrays are JSON; what there is none of is empty."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {name: json.dumps(row[name], ensure_ascii=False) for name in ("labels", "scores")}
        writer.writerow(row | texts | {"unknown": "true" if row["unknown"] else "false"})
    text.detach()


def _json_lines(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _parquet(file: BinaryIO, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            ("unknown", pa.bool_()),
            ("familiarity", pa.float32()),
            ("labels", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("model", pa.string()),
            ("version", pa.int64()),
            ("variant", pa.string()),
            ("error", pa.string()),
            ("message", pa.string()),
        ]
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(itertools.islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(some, schema))


WRITERS: dict[str, Write] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
