"""Arrays and targets → batches in a given order, in this process or in worker processes, always the same ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from taxon.training.dataset.data import Sample
from taxon.training.dataset.pictures import Arrays
from taxon.training.errors import TrainingError

Variation = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""(pictures, their sample numbers) → varied pictures."""


class Batch(NamedTuple):
    """What one step takes."""

    inputs: Tensor
    """uint8 [n, H, W, C], or float32 [n, ...] features."""
    targets: Tensor
    """int64 [n] class indices, or for multi-label float32 [n, K] of 0 and 1."""
    samples: Tensor
    """int64 [n] sample numbers within the split."""


@dataclass(frozen=True, slots=True)
class LabelledArrays:
    """The inputs and targets of one split; batch-wise, as torch's loader asks for it."""

    inputs: Arrays | NDArray[np.float32]
    targets: Tensor
    variation: Variation | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, samples: list[int]) -> Batch:
        """One batch of these samples."""
        numbers = np.asarray(samples, dtype=np.int64)
        inputs: NDArray[Any] = self.inputs[numbers]
        if self.variation is not None:
            inputs = self.variation(inputs, numbers)
        indices = torch.from_numpy(numbers)
        return Batch(torch.from_numpy(inputs), self.targets[indices], indices)


def targets_of(samples: Sequence[Sample], class_count: int, task: str) -> Tensor:
    """int64 [N] class indices, or for `multi_label` float32 [N, K]."""
    if task == "single_label":
        return torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    targets = torch.zeros(len(samples), class_count)
    for row, sample in enumerate(samples):
        targets[row, list(sample.labels)] = 1.0
    return targets


def batches(arrays: LabelledArrays, order: Sequence[NDArray[np.int64]], *, workers: int = 0) -> Iterator[Batch]:
    """Yields one batch per entry of `order`.

    Raises:
        TrainingError: A worker process died, usually because the machine ran out of memory.
    """
    loader: DataLoader[Batch] = DataLoader(
        arrays,  # type: ignore[arg-type]
        batch_sampler=[entry.tolist() for entry in order],
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context="fork" if workers else None,  # arrays are shared, not copied
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise TrainingError(
                f"a loader process died ({error}): the machine may be out of memory; try fewer --workers. "
                "The last checkpoint is whole: run the same command again to go on from it"
            ) from error
        raise


def _as_it_is(batch: Any) -> Any:
    """`LabelledArrays` gives whole batches, not lists of samples."""
    return batch


def cut(order: NDArray[np.int64], batch_size: int, *, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """This process's share of each global batch. An incomplete last batch is left out, unless it is the only one:
    every sample has the same chance, and normalisation sees whole batches.
    """
    size = min(batch_size, len(order) // world * world)
    return [order[start : start + size][rank::world] for start in range(0, len(order) - size + 1, size)]


def smallest_part(count: int, batch_size: int, accumulate: int, world: int = 1) -> int:
    """Samples of the smallest part in which a batch is computed.

    Args:
        count: Of samples in the split.
        batch_size: Over all processes.
        accumulate: Parts asked for.
        world: Processes.

    Raises:
        TrainingError: A process would get no sample.
    """
    share = min(batch_size, count // world * world) // world
    if share < 1:
        raise TrainingError(
            f"a batch of {min(batch_size, count)} over {world} processes leaves one of them without any"
        )
    return share // min(accumulate, share)


def parts_of(values: Tensor, accumulate: int) -> tuple[Tensor, ...]:
    """A batch in so many parts of equal length, give or take one sample; in fewer if there are fewer samples."""
    return values.tensor_split(min(accumulate, len(values)))


def in_turn(count: int, batch_size: int, *, rank: int = 0, world: int = 1) -> list[NDArray[np.int64]]:
    """For evaluation: every sample exactly once over all processes, in order."""
    mine = np.arange(rank, count, world)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
