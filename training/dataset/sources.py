"""One word for the data → labelled samples, with splits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from taxon.training.config import AutoTask
from taxon.training.dataset import data, parquet, tables
from taxon.training.dataset.data import Labelled
from taxon.training.dataset.digits import write_digits
from taxon.training.dataset.published import FORMATS, read_published, write_parts
from taxon.training.errors import TrainingError


def check_there(source: str) -> None:
    """Opens nothing.

    Raises:
        TrainingError: There is no such source.
    """
    kind, _, place = source.partition(":")
    path = Path(source)
    if not (source == "digits" or (kind in FORMATS and place) or path.is_dir() or path.is_file() or _parquet(source)):
        raise TrainingError(
            f"there is no data {source!r}: give a folder with one folder of pictures per class, a CSV or "
            f"Parquet file, {', '.join(f'{name}:FOLDER' for name in FORMATS)}, or digits"
        )


def open_source(
    source: str, *, digits_folder: Path, prepared_folder: Path, download: bool, task: AutoTask
) -> tuple[Labelled, NDArray[np.float32] | None]:
    """The samples of a data source, with splits where the source has them.

    Args:
        source: See `config.DataOptions.source`.
        digits_folder: Where the source `digits` is written.
        prepared_folder: Where other sources without picture files are written.
        download: Whether a named data set may be fetched.
        task: `single_label`, `multi_label` or `auto`; only lists of pictures and Parquet may be multi-label.

    Returns:
        The samples, and None. For a table of numbers the samples have digests, and beside them are the numbers:
        float32 [rows, F], by `Sample.row`.

    Raises:
        TrainingError: There is no such source, or it cannot be used.
    """
    check_there(source)
    kind, _, place = source.partition(":")
    if source == "digits":
        found = data.scan(write_digits(digits_folder))
    elif kind in FORMATS and place:
        parts = read_published(kind, Path(place), download=download)
        found = data.scan(write_parts(parts, prepared_folder, kind))
    elif (columned := _parquet(source)) is not None:
        found = parquet.read(*columned, prepared_folder, task)
    elif Path(source).is_dir():
        found = data.scan(Path(source))
    else:
        table = tables.read_table(Path(source))
        table_kind = tables.kind_of(table)
        if table_kind == "features":
            return tables.feature_rows(table)
        if table_kind == "manifest":
            found = tables.manifest(table, task)
        else:
            pictures, labels = tables.pixel_arrays(table)
            found = data.scan(write_parts([("", pictures, labels)], prepared_folder, Path(source).stem))
    if task == "multi_label" and found.task != task:
        raise TrainingError(f"{source} cannot hold several labels per picture: give a CSV file with path,label")
    return found, None


def _parquet(source: str) -> tuple[Path, str] | None:
    """The place of Parquet files and the column of labels that is asked for, if any; None if it is another source."""
    place, column = Path(source), ""
    if not place.exists():
        before, sign, column = source.rpartition(parquet.COLUMN_SIGN)
        place = Path(before) if sign else place
    return (place, column) if parquet.files_of(place) else None


def split_source(found: Labelled, *, fraction: float, seed: int, validate_on: str) -> Labelled:
    """Puts every sample into a split.

    Args:
        found: With digests.
        fraction: Share of each class that validates, if the source does not say.
        seed: Of that choice.
        validate_on: `val`; `test`, to train on `train` and `val` and validate on `test`; or `train`, to validate on a
            part of `train` and leave `val` out, with `test`.

    Raises:
        TrainingError: There is no test split to validate on, or a class would have no sample in a split.
    """
    if validate_on == "test":
        if not found.split("test"):
            raise TrainingError("there is no test split to validate on: the data has none")
        renamed = {"test": "val", "val": "train", "": "train", "train": "train"}
        found = replace(found, samples=tuple(replace(s, split=renamed[s.split]) for s in found.samples))
    if validate_on == "train":
        found = data.with_splits(found, fraction, seed)
        renamed = {"train": "", "val": "test", "test": "test"}
        found = replace(found, samples=tuple(replace(s, split=renamed[s.split]) for s in found.samples))
    return data.with_splits(found, fraction, seed)
