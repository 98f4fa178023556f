"""The features of each place of a picture, beside what the network answers; see `maps`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from taxon.bundle.class_maps import Head
from taxon.training.exporting.judge import Judged


@dataclass(frozen=True, slots=True)
class Place:
    """Where the maps are that become the head's features when they are pooled."""

    path: str
    """Of the module that gives them."""
    rectified: bool
    """Whether a ReLU stands between."""


class Mapped(nn.Module):
    """A network that also gives what becomes its head's features when it is pooled.

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
        """As the network → its answers, and the features of each place, `[N, D, rows, columns]`."""
        reached: list[Tensor] = []
        # A copy, here and in `_find`: what follows may work in place.
        hook = (
            self._inner()
            .get_submodule(self.place.path)
            .register_forward_hook(lambda _, __, maps: reached.append(maps.clone()))
        )
        try:
            answers = self.network(pictures)
        finally:
            hook.remove()
        places = reached[0].relu() if self.place.rectified else reached[0]
        return (*(answers if isinstance(answers, tuple) else (answers,)), places)

    def maps(self, pictures: Tensor) -> Tensor:
        """What the head makes of each place: `[N, K, rows, columns]`. Another product than NumPy's."""
        layer = self._layer()
        return functional.conv2d(self(pictures)[-1], layer.weight[:, :, None, None], layer.bias)

    @property
    def head_weights(self) -> Head:
        """See `taxon.bundle.class_maps`."""
        layer = self._layer()
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        head: Head = torch.cat([layer.weight, bias[:, None]], dim=1).detach().numpy()
        return head

    def _layer(self) -> nn.Linear:
        layer = self._inner().get_submodule(self.head)
        if not isinstance(layer, nn.Linear):
            raise TypeError("the head is a linear layer")
        return layer

    def _inner(self) -> nn.Module:
        return self.network.watched.network if isinstance(self.network, Judged) else self.network
