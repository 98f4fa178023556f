"""One batch on one model: stacked, padded, run, checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from taxon.service.errors import InferenceFailedError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch."""

    answers: list[NDArray[Any] | Exception]
    """For each input its scores, or why it has none."""
    bucket: int
    """The size that ran; 0 if nothing did, or the inputs had to be run one by one."""


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


def answer_batch(run: Callable[[NDArray[Any]], NDArray[Any]], batch: NDArray[Any], count: int) -> Ran:
    """Runs inputs together; if that fails, each once alone, so that one poisoned input fails alone.

    Args:
        run: `[bucket, …]` → `[bucket, classes]`.
        batch: From `stacked`.
        count: Its inputs, without the padding; at least 1.
    """
    try:
        rows = run(batch)
    except Exception as error:
        log.error("model run failed", batch_size=count, exc_info=error)
        if count == 1:
            return Ran([InferenceFailedError("the model failed on this input")], 0)
        singly = [batch[index : index + 1] for index in range(count)]
        return Ran([answer for one in singly for answer in answer_batch(run, one, 1).answers], 0)
    return Ran([_checked(row) for row in rows[:count]], len(batch))


def _checked(row: NDArray[Any]) -> NDArray[Any] | Exception:
    # Rows of named tensors are their callers' own business: a model may well answer with NaN there.
    if row.dtype.names is not None or np.isfinite(row).all():
        return row
    return InferenceFailedError("the model's scores for this input are not numbers")
