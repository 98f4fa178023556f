"""Class activation maps as a layer of the network, beside the features that reach its head; see `maps`."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from taxon.training.exporting.judge import Judged


@dataclass(frozen=True, slots=True)
class Place:
    """Where the maps are that become the head's features when they are pooled."""

    path: str
    """Of the module that gives them."""
    rectified: bool
    """Whether a ReLU stands between."""


class Mapped(nn.Module):
    """A network that also gives its class activation maps.

    Args:
        network: Normalised float32 `[N, C, H, W]` → logits `[N, K]`; or `Judged`.
        head: Path of the linear layer that makes logits of features.
        place: From `find`.
    """

    def __init__(self, network: nn.Module, head: str, place: Place) -> None:
        super().__init__()
        self.network = network
        self.head = head
        self.place = place
        self.eval()

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """As the network → its answers, and the maps `[N, K, rows, columns]`."""
        network = self.network.watched.network if isinstance(self.network, Judged) else self.network
        reached: list[Tensor] = []
        # A copy, here and in `_find`: what follows may work in place.
        hook = network.get_submodule(self.place.path).register_forward_hook(
            lambda _, __, maps: reached.append(maps.clone())
        )
        try:
            answers = self.network(pictures)
        finally:
            hook.remove()
        maps = reached[0].relu() if self.place.rectified else reached[0]
        count, width, rows, columns = maps.shape
        head = network.get_submodule(self.head)
        # Not the layer itself: it must be reached once. Its weights are in the graph once.
        placed = functional.linear(maps.permute(0, 2, 3, 1).reshape(-1, width), head.weight, head.bias)
        maps = placed.reshape(count, rows, columns, -1).permute(0, 3, 1, 2)
        return (*(answers if isinstance(answers, tuple) else (answers,)), maps)
