"""One word for the data → labelled samples, with digests and splits."""

from dataclasses import replace
from pathlib import Path

from training import data
from training.data import Labelled
from training.digits import write_digits
from training.errors import TrainingError


def open_source(source: str, *, digits_folder: Path) -> Labelled:
    """The samples of a data source, with digests, and with splits where the source has them.

    Args:
        source: See `config.DataOptions.source`.
        digits_folder: Where the source `digits` is written.

    Raises:
        TrainingError: There is no such source, or it cannot be used.
    """
    if source == "digits":
        found = data.scan(write_digits(digits_folder))
    elif Path(source).is_dir():
        found = data.scan(Path(source))
    else:
        raise TrainingError(f"there is no data {source!r}: give a folder with one folder of pictures per class")
    return data.with_digests(found)


def split_source(found: Labelled, *, fraction: float, seed: int, validate_on: str) -> Labelled:
    """Puts every sample into a split.

    Args:
        found: With digests.
        fraction: Share of each class that validates, if the source does not say.
        seed: Of that choice.
        validate_on: `val`; or `test`, to train on `train` and `val` and validate on `test`.

    Raises:
        TrainingError: There is no test split to validate on, or a class would have no sample in a split.
    """
    if validate_on == "test":
        if not found.split("test"):
            raise TrainingError("there is no test split to validate on: the data has none")
        renamed = {"test": "val", "val": "train", "": "train", "train": "train"}
        found = replace(found, samples=tuple(replace(s, split=renamed[s.split]) for s in found.samples))
    return data.with_splits(found, fraction, seed)
