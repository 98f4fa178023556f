"""Randomness as a function of place, not of history: (seed, epoch, sample, purpose) → number.

So order and augmentation do not depend on worker processes, on the number of devices, or on whether the
training was interrupted. Nothing here has state.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(seed: int, epoch: int, samples: NDArray[np.integer], purpose: int = 0) -> NDArray[np.uint64]:
    """Independent 64-bit numbers.

    SplitMix64's finaliser (Steele, Lea and Flood, 2014) over a combination of the four.
    """
    with np.errstate(over="ignore"):
        state = np.asarray(np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(epoch))
        for part in (np.uint64(purpose), np.asarray(samples).astype(np.uint64)):
            state = _finalised(state + _GOLDEN) + part * _GOLDEN
        return _finalised(state)


def _finalised(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def uniform(seed: int, epoch: int, samples: NDArray[np.integer], purpose: int = 0) -> NDArray[np.float64]:
    """Independent numbers in [0, 1), one per sample."""
    return (hashed(seed, epoch, samples, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """Seed for what is drawn within one update: dropout and mixing."""
    return int(hashed(seed, epoch, np.asarray([step * 4096 + rank]), purpose=1)[0] >> np.uint64(1))


def of_epoch(seed: int, epoch: int, targets: Tensor, *, balanced: bool) -> NDArray[np.int64]:
    """Sample numbers in the order of an epoch.

    Args:
        seed: Of the run.
        epoch: From 0.
        targets: One row per sample; class indices if `balanced`.
        balanced: Draw classes equally often, with replacement, instead of every sample once.
    """
    return balanced_draws(seed, epoch, targets.numpy()) if balanced else permutation(seed, epoch, len(targets))


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Every sample once, in the epoch's order."""
    return np.argsort(hashed(seed, epoch, np.arange(count), purpose=2), kind="stable")


def balanced_draws(seed: int, epoch: int, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """As many draws as samples, with replacement, each class equally likely."""
    slots = np.arange(len(labels))
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = (uniform(seed, epoch, slots, purpose=3) * len(classes)).astype(np.int64)
    within = uniform(seed, epoch, slots, purpose=4)
    return np.asarray([classes[c][int(u * len(classes[c]))] for c, u in zip(chosen, within, strict=True)])
