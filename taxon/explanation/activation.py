"""Class activation maps, as a graph's `maps` gives them → one map for one label.

Zhou et al., "Learning deep features for discriminative localization", CVPR 2016: behind global average pooling and one
linear layer, each logit is the mean over the places of what that layer makes of each place.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
"""`[rows, columns]`, each in 0…1: 1 where most speaks for the label. All 0: nothing does."""


def of_label(maps: NDArray[np.float32], label: int, task: Literal["single_label", "multi_label"]) -> Map:
    """What each place adds to one label.

    Args:
        maps: float32 `[labels, rows, columns]`, in logits.
        label: Its place in the order of classes.
        task: Of several labels, of which exactly one fits, only differences count: what a place adds to all of them
            alike decides nothing, and is taken out.
    """
    chosen = maps[label]
    if task == "single_label":
        chosen = chosen - maps.mean(axis=0)
    return normalised(chosen)


def normalised(values: NDArray[np.float32]) -> Map:
    """What speaks for a label, over the most that does; what speaks against it is 0."""
    positive = np.maximum(values, 0.0).astype(np.float32)
    most = float(positive.max())
    # What is no more than rounding beside the rest is nothing.
    return positive / most if most > 1e-6 * float(np.abs(values).max(initial=0.0)) else np.zeros_like(positive)
