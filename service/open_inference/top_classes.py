"""The classification extension of the Open Inference Protocol: scores → `value:index:label`. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxon.service.errors import FieldInvalidError

MAX_ELEMENTS = 1_000_000


def classified(
    path: str, values: NDArray[Any], count: int, labels: Sequence[str]
) -> tuple[tuple[int, int], list[bytes]]:
    """The best classes of each row.

    Args:
        path: Of the requested output, for errors.
        values: `[batch, …]`; each row's values are its classes.
        count: How many classes to return of each row, at least 1; all if there are fewer.
        labels: In class order; a class beyond them has none.

    Returns:
        The shape `(batch, min(count, classes))` and the elements in row-major order: the value as C's `%f` prints
        it, the class, and its label, joined by colons. Of equal values the lower class comes first.

    Raises:
        FieldInvalidError: The output is not one of numbers, or the result would have over a million elements.
    """
    if values.dtype.kind not in "iuf":
        raise FieldInvalidError(path, "classification needs an output of numbers")
    rows = values.reshape(len(values), math.prod(values.shape[1:]))
    count = min(count, rows.shape[1])
    if len(rows) * count > MAX_ELEMENTS:
        raise FieldInvalidError(path, f"at most {MAX_ELEMENTS} classifications are returned")
    elements = [_element(row[index], int(index), labels) for row in rows for index in _descending(row)[:count]]
    return (len(rows), count), elements


def _descending(row: NDArray[Any]) -> NDArray[np.intp]:
    # Negating integers would wrap; inverting their bits reverses their order just as well.
    return np.argsort(-row if row.dtype.kind == "f" else ~row, kind="stable")


def _element(value: Any, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:.6f}" if isinstance(value, np.floating) else str(int(value))
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{number}:{index}{label}".encode()
