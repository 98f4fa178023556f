"""Does a network still know the pictures when batch normalisation takes the statistics of batches, as training does?

Pretrained weights can be right in evaluation mode and far off in training mode: because batch normalisation was merged
into the convolutions of the file that they come from, or because batches of these pictures have other statistics than
those that the network was trained with. Fine-tuning then starts with a loss that explodes, and with few steps never
comes back. Asked of a few samples before anything trains, by the simplest head, one that needs no training: the nearest
class mean, of what the real head would see.
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
LOST = 1 / 3
"""Share of that lead which training mode may lose."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Share of samples whose nearest class mean is that of their class; the means are taken in evaluation mode."""

    samples: int
    chance: float
    in_evaluation: float
    """With the statistics that came with the weights; the sample itself is left out of its class's mean."""
    in_training: float
    """With those of each batch."""

    @property
    def breaks(self) -> bool:
        """Whether training mode loses much of what evaluation mode knows."""
        lead = self.in_evaluation - self.chance
        return lead >= LEAST_LEAD and self.in_evaluation - self.in_training > LOST * lead

    @property
    def warning(self) -> str:
        """What is wrong and what to do."""
        return (
            "batch normalisation breaks these weights when it takes the statistics of batches: class means of features "
            f"are right on {self.in_training:.0%} of {self.samples} training samples then, and on "
            f"{self.in_evaluation:.0%} with the statistics that came with the weights; keep those by --freeze-bn, or "
            "train only the head (--mode head)"
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
            seen.append(rows.flatten(1).float().cpu())
    for module, mode in modes.items():
        module.training = mode
    known, batch = seen
    return Fit(
        samples=len(chosen),
        chance=1 / (int(classes.max()) + 1),
        in_evaluation=_right_by_means(known, known, classes),
        in_training=_right_by_means(batch, known, classes),
    )


def _some(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sample numbers in mixed order, equally many of the commonest classes; and the class of each, from 0.

    Of several labels per sample the one that most nearly half of them have divides them in two.
    """
    if targets.ndim == 2:
        targets = targets[:, (targets.mean(dim=0) - 0.5).abs().argmin()].long()
    mixed = torch.from_numpy(permutation(0, 0, len(targets)))
    counts = torch.bincount(targets)
    common = [label for label in counts.argsort(descending=True, stable=True)[:CLASSES] if counts[label] > 0]
    places = [(targets[mixed] == label).nonzero()[: SAMPLES // len(common), 0] for label in common]
    chosen = mixed[torch.cat(places).sort().values]
    return chosen, targets[chosen].unique(return_inverse=True)[1]


def _right_by_means(rows: Tensor, known: Tensor, classes: Tensor) -> float:
    """Share of rows [n, F] whose nearest class mean of `known` [n, F], without that sample, is that of their class."""
    members = functional.one_hot(classes).float()
    counts, sums = members.sum(dim=0), members.T @ known
    distances = torch.cdist(rows, sums / counts[:, None])
    others = (sums[classes] - known) / (counts[classes] - 1)[:, None]
    distances[torch.arange(len(rows)), classes] = (rows - others).norm(dim=1)
    return float((distances.nan_to_num(torch.inf, torch.inf).argmin(dim=1) == classes).float().mean())
