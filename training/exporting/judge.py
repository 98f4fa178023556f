"""The judge of familiarity as a layer of the network, behind the features that reach its head; see `familiarity`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from taxon.training.errors import TrainingError

SHORTEST = 1e-12
"""Of a vector that has a direction."""


class NoFeaturesError(TrainingError):
    """A classifier whose pictures cannot be compared by features; the message says why."""


class Watched(nn.Module):
    """A network that also gives what reaches its head.

    Args:
        network: Normalised float32 `[N, C, H, W]` → logits `[N, K]`.
        head: Path of the layer that makes logits of features.
    """

    def __init__(self, network: nn.Module, head: str) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """As the network → its logits, and features `[N, D]`; maps are averaged over their places."""
        reached: list[Tensor] = []
        hook = self.network.get_submodule(self.head).register_forward_pre_hook(
            lambda _, arguments: reached.append(arguments[0])
        )
        try:
            logits = self.network(pictures)
        finally:
            hook.remove()
        if len(reached) != 1 or reached[0].dim() not in (2, 4):
            raise NoFeaturesError(f"its last layer {self.head} does not take one vector for each picture")
        return logits, reached[0] if reached[0].dim() == 2 else reached[0].mean(dim=(2, 3))


class Judged(nn.Module):
    """A network that also judges how familiar a picture is.

    Args:
        watched: Gives logits and features.
        bank: float32 `[M, D]`, each of length 1.
    """

    def __init__(self, watched: Watched, bank: NDArray[np.float32]) -> None:
        super().__init__()
        self.watched = watched
        self.bank = nn.Linear(bank.shape[1], bank.shape[0], bias=False)  # a layer, so that `tf32` rounds it too
        self.bank.weight.data = torch.from_numpy(bank)
        self.eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """As the network → its logits, and the familiarity `[N, 1]` in 0…1; 0 is no likeness at all."""
        logits, features = self.watched(pictures)
        lengths = features.norm(dim=1, keepdim=True).clamp(min=SHORTEST)
        return logits, (self.bank(features).amax(dim=1, keepdim=True) / lengths).clamp(0.0, 1.0)
