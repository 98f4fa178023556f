"""One batch on one model: stacked, padded, run, checked. Used wherever a model runs, thread or process."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.service.errors import InferenceFailedError
from taxon.service.runtime.decoding import Array

log = structlog.get_logger(__name__)


def answer_batch(
    run: Callable[[Array], NDArray[Any]], arrays: Sequence[Array], bucket: int
) -> list[NDArray[Any] | Exception]:
    """Runs inputs together; if that fails, each once alone, so that one poisoned input fails alone.

    Args:
        run: `[bucket, …]` → `[bucket, classes]`.
        arrays: Inputs of one type and shape, at most `bucket` of them.
        bucket: The size that the batch is padded to; a batch that has shrunk below half of it takes a smaller power
            of two.

    Returns:
        For each input its scores, or why it has none.
    """
    if not arrays:
        return []
    while bucket >= 2 * len(arrays):
        bucket //= 2
    stacked = np.zeros((bucket, *arrays[0].shape), arrays[0].dtype)
    np.stack(arrays, out=stacked[: len(arrays)])
    try:
        rows = run(stacked)
    except Exception as error:
        log.error("model run failed", batch_size=len(arrays), exc_info=error)
        if len(arrays) == 1:
            return [InferenceFailedError("the model failed on this input")]
        return [outcome for array in arrays for outcome in answer_batch(run, [array], 1)]
    return [_checked(row) for row in rows[: len(arrays)]]


def _checked(row: NDArray[Any]) -> NDArray[Any] | Exception:
    # Rows of named tensors are their callers' own business: a model may well answer with NaN there.
    if row.dtype.names is not None or np.isfinite(row).all():
        return row
    return InferenceFailedError("the model's scores for this input are not numbers")
