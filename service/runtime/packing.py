"""Several tensors of one input ↔ one structured array, so that the batcher stacks any model's inputs alike.

Field `f<i>` is the i-th tensor. Pure.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(tensors: Sequence[NDArray[Any]], *, batched: bool) -> list[NDArray[Any]]:
    """The tensors of one request → a structured array of no axes for each input.

    Args:
        tensors: In the order of the model's inputs; `[batch, …]` if batched.
        batched: Whether the first axis is the batch; if not, the request is one input.
    """
    whole = tensors if batched else [tensor[np.newaxis] for tensor in tensors]
    packed = _structured(whole)
    return [packed[index : index + 1].reshape(()) for index in range(len(packed))]


def unpack(rows: Sequence[Any], tensor_count: int, *, batched: bool) -> list[NDArray[Any]]:
    """Rows of answers → the output tensors of the request, in the order of the model's outputs.

    Raises:
        ValueError: The rows' shapes differ, so that they are no tensor.
    """
    columns = [[np.asarray(row[f"f{index}"]) for row in rows] for index in range(tensor_count)]
    return [np.stack(column) if batched else column[0] for column in columns]


def run_packed(
    run: Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]], batch: NDArray[Any], *, batched: bool
) -> NDArray[Any]:
    """Runs a graph on a structured `[batch]`.

    Args:
        run: Input tensors → output tensors.
        batch: Of inputs.
        batched: Whether the graph takes the batch axis; if not, there is one input.

    Returns:
        Structured `[batch]` of outputs.

    Raises:
        ValueError: An output has not a row for each input.
    """
    tensors = [np.ascontiguousarray(batch[name]) for name in batch.dtype.names or ()]
    answers = run(tensors) if batched else [answer[np.newaxis] for answer in run([tensor[0] for tensor in tensors])]
    if wrong := [answer.shape for answer in answers if not answer.shape or len(answer) != len(batch)]:
        raise ValueError(f"the graph gives {wrong} for a batch of {len(batch)}")
    return _structured(answers)


def _structured(tensors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    dtype = np.dtype([(f"f{index}", tensor.dtype, tensor.shape[1:]) for index, tensor in enumerate(tensors)])
    packed = np.empty(len(tensors[0]), dtype)
    for index, tensor in enumerate(tensors):
        packed[f"f{index}"] = tensor
    return packed
