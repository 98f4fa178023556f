"""One batch on one model: stacked, padded, run, checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.service.errors import InferenceFailedError, NotFiniteError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch."""

    answers: list[NDArray[Any] | Exception]
    """For each input its scores, or why it has none."""
    bucket: int
    """The size that ran; 0 if nothing did, or the inputs had to be run one by one."""


def answer_batch(run: Callable[[NDArray[Any]], NDArray[Any]], arrays: Sequence[NDArray[Any]], bucket: int) -> Ran:
    """Runs inputs together; if that fails, each once alone, so that one poisoned input fails alone.

    Args:
        run: `[bucket, …]` → `[bucket, classes]`.
        arrays: Inputs of one type and shape, at most `bucket` of them.
        bucket: The size that the batch is padded to; a batch that has shrunk below half of it takes a smaller power
            of two.
    """
    if not arrays:
        return Ran([], 0)
    while bucket >= 2 * len(arrays):
        bucket //= 2
    stacked = np.zeros((bucket, *arrays[0].shape), arrays[0].dtype)
    np.stack(arrays, out=stacked[: len(arrays)])
    try:
        rows = run(stacked)
    except Exception as error:
        log.error("model run failed", batch_size=len(arrays), exc_info=error)
        if len(arrays) == 1:
            return Ran([InferenceFailedError("the model failed on this input")], 0)
        return Ran([answer for array in arrays for answer in answer_batch(run, [array], 1).answers], 0)
    return Ran([_checked(row) for row in rows[: len(arrays)]], bucket)


def _checked(row: NDArray[Any]) -> NDArray[Any] | Exception:
    # Rows of named tensors are their callers' own business: a model may well answer with NaN there.
    if row.dtype.names is not None or np.isfinite(row).all():
        return row
    return NotFiniteError("the model's scores for this input are not numbers")
