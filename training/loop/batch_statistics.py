"""Do the statistics that batch normalisation brought with its weights fit what training does with them?

Weights can be right in evaluation mode and far off in training mode, where each batch brings its own statistics: they
may come from a file in which batch normalisation was merged into the convolutions, or from very different batches.
Fine-tuning then starts with a loss that explodes. Asked of a few samples before anything trains: is the nearest other
sample, as the head sees them, of the same class? No head is needed for that, which would be new anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from taxon.training.loop.batches import LabelledArrays
from taxon.training.loop.features import head_input
from taxon.training.loop.order import permutation
from taxon.training.network.model import kept_buffers
from taxon.training.network.stages import batch_norms

SAMPLES, CLASSES = 64, 8
"""At most so many of both: two forward passes over them cost less than two steps."""
LEAST_LEAD = 0.25
"""Over chance: with less, the features say nothing of these classes in evaluation mode either."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How often the nearest other sample is of the same class."""

    samples: int
    chance: float
    in_evaluation: float
    """With the statistics that came with the weights."""
    in_training: float
    """With those of each batch, among samples that have the weights' statistics, on which the head is used."""

    @property
    def breaks(self) -> bool:
        """Whether training mode loses more than half of what evaluation mode knows."""
        lead = self.in_evaluation - self.chance
        return lead >= LEAST_LEAD and self.in_training - self.chance < lead / 2

    def warning(self, mode: str) -> str:
        """What is wrong and what to do, for a training in this mode."""
        first = "" if mode == "lp-ft" else ", or train the head first (--mode lp-ft)"
        return (
            f"batch normalisation may break these weights: the nearest of {self.samples} training samples is of the "
            f"same class for {self.in_evaluation:.0%} with the statistics of the weights, for {self.in_training:.0%} "
            f"with those of batches, which training takes; keep the former by --freeze-bn{first}"
        )


def fit(
    network: nn.Module,
    head: str,
    arrays: LabelledArrays,
    to_input: Callable[[Tensor], Tensor],
    part: int,
) -> Fit | None:
    """Compares both modes on a few samples; leaves weights, statistics and modes as they were.

    Args:
        network: In the modes that its stages train in.
        head: Path of the head.
        arrays: Of the training split, not varied.
        to_input: Batch inputs as loaded → the network's input, on its device.
        part: Samples of which training takes statistics together.

    Returns:
        None if no batch normalisation takes the statistics of batches.
    """
    norms = [norm for norm in batch_norms(network) if norm.training]
    if not norms:
        return None
    chosen, classes = _some(arrays.targets)
    inputs = to_input(arrays.__getitems__(chosen.tolist()).inputs)
    modes = {module: module.training for module in network.modules()}
    seen = []
    with torch.no_grad(), kept_buffers(network):
        network.eval()
        for takes_batches in (False, True):
            for norm in norms:
                norm.train(takes_batches)
            parts = inputs.tensor_split(max(1, len(inputs) // part))
            rows = torch.cat([head_input(network, head, few) for few in parts])
            seen.append(functional.normalize(rows.flatten(1).float()).cpu())
    for module, mode in modes.items():
        module.training = mode
    known, batch = seen
    others = torch.bincount(classes)[classes] - 1
    return Fit(
        samples=len(chosen),
        chance=float(others.float().mean()) / max(1, len(chosen) - 1),
        in_evaluation=_nearest_alike(known, known, classes),
        in_training=_nearest_alike(batch, known, classes),
    )


def _some(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sample numbers in mixed order, equally many of the commonest classes; and the class of each.

    Of several labels per sample the one that most nearly half of them have divides them in two.
    """
    if targets.ndim == 2:
        targets = targets[:, (targets.mean(dim=0) - 0.5).abs().argmin()].long()
    counts = torch.bincount(targets)
    common = counts.argsort(descending=True, stable=True)[:CLASSES]
    common = common[counts[common] > 0]
    mixed = torch.from_numpy(permutation(0, 0, len(targets)))
    each = SAMPLES // len(common)
    rank_in_class = functional.one_hot(targets[mixed]).cumsum(dim=0).gather(1, targets[mixed, None])[:, 0]
    chosen = mixed[torch.isin(targets[mixed], common) & (rank_in_class <= each)]
    return chosen, targets[chosen]


def _nearest_alike(rows: Tensor, among: Tensor, classes: Tensor) -> float:
    """Share of rows [n, F] whose nearest of `among` [n, F], itself left out, is of their class; by cosine."""
    nearest = (rows @ among.T).fill_diagonal_(-torch.inf).argmax(dim=1)
    return float((classes[nearest] == classes).float().mean())
