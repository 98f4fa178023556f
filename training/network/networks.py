"""Our own small networks. All take any picture size that survives their poolings; none has weights to download."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


class SmallCnn(nn.Module):
    """Four 3x3 convolutions with batch normalisation, two poolings, a global maximum, one linear layer.

    0.2 million parameters: for pictures of 8 to 64 pixels.
    """

    def __init__(self, class_count: int, channels: int = 3, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv_block(channels, width),
            _conv_block(width, 2 * width),
            nn.MaxPool2d(2),
            _conv_block(2 * width, 2 * width),
            nn.MaxPool2d(2),
            _conv_block(2 * width, 4 * width),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, class_count)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float32 [N, C, H, W] to logits [N, K]."""
        logits: Tensor = self.fc(self.dropout(self.features(pictures).amax(dim=(2, 3))))
        return logits


class PlainCnn(nn.Module):
    """Convolution blocks of two 3x3 convolutions, pooling and dropout, then a hidden linear layer: the classic
    tutorial network, without normalisation layers.
    """

    def __init__(self, class_count: int, channels: int = 3, blocks: int = 3, dropout: float = 0.25) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 32
        for _ in range(blocks):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)]
            channels, width = width, min(2 * width, 128)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * channels, 256), nn.ReLU(), nn.Dropout(2 * dropout), nn.Linear(256, class_count)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Float32 [N, C, H, W] to logits [N, K]."""
        logits: Tensor = self.classifier(self.pool(self.features(pictures)))
        return logits


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_conv_block(width, width), _conv_block(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        changes: Tensor = self.layers(maps)
        return maps + changes


class ResNet9(nn.Module):
    """The small residual network of the CIFAR-10 speed records.

    After David Page, "How to train your ResNet" (2018). `width` 64 is his; cost grows with its square.
    """

    LOGIT_SCALE = 0.125

    def __init__(self, class_count: int, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv_block(channels, width),
            nn.Sequential(_conv_block(width, 2 * width), nn.MaxPool2d(2), _Residual(2 * width)),
            nn.Sequential(_conv_block(2 * width, 4 * width), nn.MaxPool2d(2)),
            nn.Sequential(_conv_block(4 * width, 8 * width), nn.MaxPool2d(2), _Residual(8 * width)),
        )
        self.fc = nn.Linear(8 * width, class_count, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Float32 [N, C, H, W] to logits [N, K]."""
        logits: Tensor = self.fc(self.features(pictures).amax(dim=(2, 3)))
        return logits * self.LOGIT_SCALE


class Airbench(nn.Module):
    """The plain network of the present CIFAR-10 speed records: nothing but convolutions, each convolution started as
    near to the identity as its shape allows, behind fixed filters that decorrelate the pixels.

    After Keller Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024, arXiv:2404.00498). For pictures of
    9 pixels or more.
    """

    LOGIT_SCALE = 1 / 9
    PATCH = 2
    """Side of the fixed filters, in pixels."""
    STATISTICS_MOMENTUM = 0.4
    """Of batch normalisation: a training of few epochs forgets early statistics soon."""
    LEAST_VARIANCE = 5e-4
    """Directions of less variance are noise: they are not blown up."""
    filters: Tensor

    def __init__(
        self,
        class_count: int,
        channels: int = 3,
        widths: tuple[int, int, int] = (64, 128, 256),
        *,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.mirrored = mirrored
        directions = channels * self.PATCH**2
        patches = torch.eye(directions).reshape(directions, channels, self.PATCH, self.PATCH)
        self.register_buffer("filters", torch.cat([patches, -patches]))  # a buffer: it never trains
        self.filter_bias = nn.Parameter(torch.zeros(2 * directions))
        incoming = (2 * directions, *widths)
        self.features = nn.Sequential(*[self._block(*pair) for pair in zip(incoming, widths, strict=False)])
        self.fc = nn.Linear(widths[-1], class_count, bias=False)

    def _block(self, channels_in: int, width: int) -> nn.Sequential:
        first = nn.Conv2d(channels_in, width, 3, padding=1, bias=False)
        second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        for convolution in (first, second):
            kept = min(convolution.out_channels, convolution.in_channels)
            nn.init.dirac_(convolution.weight.data[:kept])
        norms = [nn.BatchNorm2d(width, momentum=self.STATISTICS_MOMENTUM) for _ in range(2)]
        return nn.Sequential(first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU())

    @torch.no_grad()
    def decorrelate(self, pictures: Tensor) -> None:
        """Sets the fixed filters from float32 [N, C, H, W] training pictures, normalised: the principal directions of
        their patches, each scaled to variance one, and the same negated.
        """
        patches = functional.unfold(pictures, self.PATCH).transpose(1, 2).flatten(0, 1)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        scaled = (directions / (variances + self.LEAST_VARIANCE).sqrt()).T.reshape(-1, *self.filters.shape[1:])
        self.filters.copy_(torch.cat([scaled, -scaled]))

    def forward(self, pictures: Tensor) -> Tensor:
        """Float32 [N, C, H, W] to logits [N, K]; where `mirrored`, outside training, of the mean of the features of a
        picture and its mirror image.
        """
        vectors = self._vectors(pictures)
        if self.mirrored and not self.training:
            vectors = 0.5 * (vectors + self._vectors(pictures.flip(3)))
        logits: Tensor = self.fc(vectors)
        return logits * self.LOGIT_SCALE

    def _vectors(self, pictures: Tensor) -> Tensor:
        maps = functional.gelu(functional.conv2d(pictures, self.filters, self.filter_bias))
        features: Tensor = self.features(maps)
        return features.amax(dim=(2, 3))


class Mlp(nn.Module):
    """Two hidden layers over a vector of numbers."""

    def __init__(self, class_count: int, features: int, hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.fc = nn.Linear(hidden, class_count)

    def forward(self, vectors: Tensor) -> Tensor:
        """Float32 [N, F] to logits [N, K]."""
        logits: Tensor = self.fc(self.features(vectors))
        return logits


def cnn2(class_count: int, channels: int) -> nn.Module:
    """The plain network with two blocks."""
    return PlainCnn(class_count, channels, blocks=2)


def cnn3(class_count: int, channels: int) -> nn.Module:
    """The plain network with three blocks."""
    return PlainCnn(class_count, channels, blocks=3)


def resnet9_narrow(class_count: int, channels: int) -> nn.Module:
    """ResNet-9 at half the width: a quarter of the cost, for CPUs."""
    return ResNet9(class_count, channels, width=32)


def airbench_mirrored(class_count: int, channels: int) -> nn.Module:
    """Answers for a picture and its mirror image together, as the records are measured: twice the cost of an answer,
    none in training. Not for pictures whose mirror image means something else.
    """
    return Airbench(class_count, channels, mirrored=True)


def airbench_wide(class_count: int, channels: int) -> nn.Module:
    """As `airbench_mirrored`, at Jordan's own widths: twice the cost, for GPUs."""
    return Airbench(class_count, channels, widths=(64, 256, 256), mirrored=True)


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "small_cnn": SmallCnn,
    "cnn2": cnn2,
    "cnn3": cnn3,
    "resnet9": ResNet9,
    "resnet9_narrow": resnet9_narrow,
    "airbench": Airbench,
    "airbench_mirrored": airbench_mirrored,
    "airbench_wide": airbench_wide,
    "mlp": Mlp,
}
"""By name: (class count, channels or features) -> network."""


def set_dropout(network: nn.Module, rate: float) -> None:
    """Gives every dropout layer of a network the same rate."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def state_on_cpu(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the state on the CPU that later steps do not change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
