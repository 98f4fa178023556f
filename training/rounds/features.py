"""What a trained network sees in pictures: the features that reach its head."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from taxon.bundle.picture_limits import PictureError
from taxon.bundle.pixels import decode
from taxon.training.advice.probe import pooled
from taxon.training.dataset.pictures import LIMITS
from taxon.training.errors import TrainingError
from taxon.training.loop.augment import normalised
from taxon.training.loop.features import head_input
from taxon.training.network import model
from taxon.training.runs.checkpoint import Checkpoint

BATCH = 64
Picture = tuple[str, Callable[[], bytes]]
"""What it is called in messages, and its content."""


@torch.inference_mode()
def features(checkpoint: Checkpoint, pictures: Sequence[Picture]) -> NDArray[np.float32]:
    """float32 `[N, F]`, in the order of the pictures.

    Raises:
        TrainingError: It takes no pictures, or one cannot be read.
    """
    if checkpoint.pixels is None:
        raise TrainingError("the classifier takes numbers: people speak of pictures")
    network = checkpoint.build_model()
    head = model.head_path(network)
    rows = []
    for start in range(0, len(pictures), BATCH):
        arrays = []
        for name, content in pictures[start : start + BATCH]:
            try:
                arrays.append(decode(content(), checkpoint.pixels, LIMITS))
            except (OSError, PictureError) as error:
                raise TrainingError(f"{name} cannot be read: {error}") from error
        inputs = normalised(torch.from_numpy(np.stack(arrays)), checkpoint.mean, checkpoint.std)
        rows.append(pooled(head_input(network, head, inputs).float().numpy()))
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
