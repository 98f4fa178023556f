"""What a classifier is asked about on its way into a bundle: picture files, or rows of a table of numbers.

The one place after training that tells the two apart; what it gives is what the service would give to the graph.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.bundle.manifest import PixelSpec
from taxon.bundle.pixels import decode
from taxon.training.dataset.data import Labelled
from taxon.training.dataset.tables import feature_rows, read_table
from taxon.training.errors import TrainingError
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

Array = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a table, as it stands there: nothing is standardised."""

    table: Path
    number: int
    """From 0."""
    values: NDArray[np.float32]
    """`[features]`."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.table.name}, row {self.number + 1}"


Example = Path | Row


def name_of(example: Example) -> str:
    """Short, for reports: the class folder and the file, or the table and the row."""
    return example.name if isinstance(example, Row) else f"{example.parent.name}/{example.name}"


def to_array(example: Example, pixels: PixelSpec | None) -> Array:
    """uint8 `[H, W, C]` of a picture, float32 `[features]` of a row.

    Raises:
        OSError: The picture cannot be read.
        PictureError: It cannot be decoded.
        TrainingError: A picture without pixels, or a row with them.
    """
    if isinstance(example, Row):
        if pixels is not None:
            raise TrainingError(f"{example.name} has numbers, the classifier takes pictures")
        return example.values
    if pixels is None:
        raise TrainingError(f"{example} is taken for a picture, the classifier takes numbers")
    return decode(example.read_bytes(), pixels)


def of_table(file: Path, features: Sequence[str]) -> tuple[tuple[Row, ...], Labelled]:
    """The rows of a table, and what they are.

    Args:
        file: CSV, the label in the last column.
        features: What the other columns must be, in this order; empty if nobody said.

    Raises:
        TrainingError: Not a table of numbers, or one with other columns.
    """
    found, values = feature_rows(read_table(file))
    if features and found.columns != tuple(features):
        raise TrainingError(
            f"{file} has the columns {list(found.columns)}, the classifier takes {list(features)}, in this order"
        )
    return tuple(Row(file, number, row) for number, row in enumerate(values)), found


def of_run(run: Run, split: str, checkpoint: Checkpoint) -> tuple[Example, ...]:
    """The pictures or rows that a run recorded for a split.

    Raises:
        TrainingError: The table has been changed since.
    """
    samples = run.samples(split)
    if checkpoint.pixels is not None or not samples:
        return tuple(sample.path for sample in samples)
    rows, found = of_table(samples[0].path, checkpoint.features)
    for sample in samples:
        if sample.row >= len(rows) or found.samples[sample.row].sha256 != sample.sha256:
            raise TrainingError(
                f"{sample.path.name}, row {sample.row + 1} is not what was trained on: the file has changed"
            )
    return tuple(rows[sample.row] for sample in samples)


def write_golden(example: Example, folder: Path, stem: str) -> Path:
    """Writes an example as the bundle format keeps it: a picture's own bytes, or a JSON array of numbers."""
    if isinstance(example, Row):
        target = folder / f"{stem}.json"
        target.write_text(json.dumps(example.values.tolist()) + "\n", encoding="utf-8")
        return target
    target = folder / f"{stem}{example.suffix.lower()}"
    shutil.copyfile(example, target)
    return target
