"""One batch on one model: stacked, padded, run, checked."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.service.errors import InferenceFailedError, NotFiniteError

log = structlog.get_logger(__name__)


def stacked(arrays: Sequence[NDArray[Any]], bucket: int) -> NDArray[Any]:
    """Inputs as one batch, padded with zeros.

    Args:
        arrays: Of one type and shape, from 1 to `bucket` of them.
        bucket: The size that the batch is padded to; a batch that has shrunk below half of it takes a smaller power
            of two.
    """
    while bucket >= 2 * len(arrays):
        bucket //= 2
    batch = np.zeros((bucket, *arrays[0].shape), arrays[0].dtype)
    np.stack(arrays, out=batch[: len(arrays)])
    return batch


def answer_batch(
    run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any], count: int
) -> tuple[list[NDArray[Any] | Exception], int]:
    """Runs inputs together; if that fails, each once alone, so that one poisoned input fails alone.

    Args:
        run: `[bucket, …]` → `[bucket, classes]`.
        batch: From `stacked`.
        count: Its inputs, without the padding; at least 1.

    Returns:
        For each input its scores, or why it has none; and the size that ran, 0 if the inputs had to be run one by one.
    """
    try:
        rows = run(batch)
    except Exception as error:
        log.error("model run failed", batch_size=count, exc_info=error)
        if count == 1:
            return [InferenceFailedError("the model failed on this input")], 0
        singly = (answer_batch(run, batch[index : index + 1], 1) for index in range(count))
        return [answer for answers, _ in singly for answer in answers], 0
    return [_checked(row) for row in rows[:count]], len(batch)


def _checked(row: NDArray[Any]) -> NDArray[Any] | Exception:
    # Rows of named tensors are their callers' own business: a model may well answer with NaN there.
    if row.dtype.names is not None or np.isfinite(row).all():
        return row
    return NotFiniteError("the model's scores for this input are not numbers")
