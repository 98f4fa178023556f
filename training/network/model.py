"""Names → networks: any torchvision classification model, one of `networks`, or with `timm/` before it one of
timm's; with its head replaced and, on wish, published weights or those of a file.

Knows where a network's head is. Knows nothing of data, of which layers train, or of how they are trained.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from taxon.bundle.manifest import PixelSpec
from taxon.mistaken import first_line
from taxon.training.errors import TrainingError
from taxon.training.network.networks import NETWORKS
from taxon.training.network.published import TIMM, names, state_of, timm_package, weights_enum
from taxon.training.network.weights import fill, is_file
from taxon.training.suggest import nearest

PLAIN_MEAN, PLAIN_STD = 0.5, 0.25
WIDEST_HEAD = 2.0
"""Times the spread of torch's own linear layers: the widest that a new head on given weights may begin with."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes a network's input: `pixels`, then `/ 255`, then `(x - mean) / std` per channel.

    For numbers: only `(x - mean) / std`, per feature.
    """

    pixels: PixelSpec | None
    """None for numbers."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features: tuple[str, ...] = ()
    """What each number is, in their order."""

    def example(self) -> Tensor:
        """Two samples of zeros, as loaded: uint8 [2, height, width, channels], or float32 [2, features]."""
        if self.pixels is None:
            return torch.zeros(2, len(self.mean))
        return torch.zeros(2, *self.pixels.shape, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network and what was left out when its weights were loaded."""

    network: nn.Module
    head: str
    """Path of the module that was made new for these classes."""
    dropped_head: tuple[str, ...] = ()
    """Keys of the weights file whose shape belongs to another class count; they start random."""


def build(name: str, class_count: int, *, channels: int = 3, weights: str | None = None) -> nn.Module:
    """Builds a network that maps float32 [N, C, H, W] (`mlp`: [N, C]) to logits [N, K].

    Args:
        name: One of `published.names()`.
        class_count: K.
        channels: 3 or 1; for `mlp` the number of features.
        weights: A torchvision weights name (`DEFAULT`, `IMAGENET1K_V1`), a `.pth`, `.pt` or `.safetensors`
            file, or None for random weights.

    Raises:
        TrainingError: No such model or weights, a file of another architecture, or no network to download.
    """
    return load(name, class_count, channels=channels, weights=weights).network


def load(name: str, class_count: int, *, channels: int = 3, weights: str | None = None, head: str = "linear") -> Loaded:
    """As `build`, and says what was left out of the weights.

    Args:
        name: As for `build`.
        class_count: As for `build`.
        channels: As for `build`.
        weights: As for `build`.
        head: `linear`, or `mlp:<hidden>`: everything after the convolutions becomes hidden, ReLU, dropout, linear.
    """
    network = _plain(name, class_count, channels)
    dropped: tuple[str, ...] = ()
    state = None if weights is None else state_of(name, weights)
    if state is not None and not (head != "linear" and _has_head(name, class_count, channels, head, state)):
        dropped = fill(network, state, head_path(network), name=name, weights=str(weights))
        if f"{head_path(network)}.weight" in dropped:
            _narrow(network.get_submodule(head_path(network)))
        state = None
    path = head_path(network)
    if head != "linear":
        path = replace_head(network, head, class_count)
    if state is not None:  # of a training of ours with such a head
        dropped = fill(network, state, head_path(network), name=name, weights=str(weights))
    return Loaded(network, path, dropped)


def _narrow(head: nn.Module) -> None:
    """Has a new head begin as torch's linear layers do, where its library spreads the weights wider: EfficientNet and
    MNASNet go by the class count, and guess so boldly among ten classes that ten epochs do not unlearn it.
    """
    if isinstance(head, nn.Linear):
        usual = (3 * head.in_features) ** -0.5
        if float(head.weight.detach().square().mean()) ** 0.5 > WIDEST_HEAD * usual:
            head.reset_parameters()


def _has_head(name: str, class_count: int, channels: int, head: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a state is of the network with such a head, and not with the one that it was published with."""
    network = _plain(name, class_count, channels)
    path = replace_head(network, head, class_count)
    return all(f"{path}.{key}" in state for key in network.get_submodule(path).state_dict())


def _plain(name: str, class_count: int, channels: int) -> nn.Module:
    if class_count < 2:
        raise TrainingError(f"a classifier needs two classes or more, not {class_count}")
    if name in NETWORKS:
        return NETWORKS[name](class_count, channels)
    if name.startswith(TIMM):
        own: nn.Module = timm_package(name).create_model(
            name.removeprefix(TIMM), num_classes=class_count, in_chans=channels
        )
        return own
    if name not in names():
        raise TrainingError(f"there is no model {name!r}{nearest(name, names())}")
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        # Their published weights expect a shift of the input that torchvision adds only when it loads them
        # itself; from scratch it does no harm.
        options = {"aux_logits": False, "init_weights": True, "transform_input": channels == 3}
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=class_count, **options)
    if channels != 3:
        _take_channels(network, channels)
    return network


def _take_channels(network: nn.Module, channels: int) -> None:
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = channels
    first.weight = nn.Parameter(torch.empty(first.out_channels, channels, *first.kernel_size))
    first.reset_parameters()


def head_path(network: nn.Module) -> str:
    """Where the last layer is: the only one whose shape depends on the class count."""
    for kind in (nn.Linear, nn.Conv2d):  # SqueezeNet ends in a convolution
        paths: list[str] = [path for path, module in network.named_modules() if isinstance(module, kind)]
        if paths:
            return paths[-1]
    raise TrainingError("the network has neither a linear nor a convolution layer to replace")


def check_takes(network: nn.Module, example: Tensor) -> None:
    """Runs one batch through, so that a wrong picture size shows before any training.

    Raises:
        TrainingError: The network does not take such pictures.
    """
    network.eval()
    try:
        with torch.inference_mode():
            network(example)
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = example.shape[2:]
        raise TrainingError(
            f"{type(network).__name__} does not take pictures of {height}x{width}: {first_line(error)}; "
            "choose another --image-size"
        ) from error


def check_trains_on_one(network: nn.Module, example: Tensor) -> None:
    """Runs one sample through a network whose stages are in the modes that they train in.

    Raises:
        TrainingError: Its batch normalisation has a single value per channel then, which has no spread.
    """
    try:
        with torch.no_grad(), kept_buffers(network):
            network(example[:1])
    except ValueError as error:
        raise TrainingError(
            "a part of a batch would hold one sample, of which batch normalisation cannot take statistics "
            f"({first_line(error)}): raise --batch-size, or lower --accumulate"
        ) from error


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Gives the buffers (statistics of normalisation) their values back at the end."""
    kept = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)


def replace_head(network: nn.Module, head: str, class_count: int) -> str:
    """Replaces everything after the convolutions by `head`, in place; returns the path of the new module.

    Raises:
        TrainingError: `head` is not `mlp:<hidden>`, or the network ends in a convolution.
    """
    kind, _, size = head.partition(":")
    if kind != "mlp" or not size.isdecimal() or len(size) > 5 or int(size) < 1:
        raise TrainingError(
            f"head {head!r} must be linear or mlp:<hidden units>, from 1 to 99999 of them, for example mlp:256"
        )
    top_path = head_path(network).partition(".")[0]
    top = network.get_submodule(top_path)
    layers = [top] if isinstance(top, nn.Linear) else list(top.children())
    linear = [(number, layer) for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if not linear:
        raise TrainingError(f"the network ends in a convolution: head {head!r} does not fit")
    kept, first = linear[0]
    hidden = int(size)
    new = [nn.Linear(first.in_features, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, class_count)]
    network.set_submodule(top_path, nn.Sequential(*layers[:kept], *new))
    return top_path


def preprocessing(
    name: str, weights: str | None = None, *, image_size: int | None = None, color: str = "rgb"
) -> Preprocessing:
    """The preprocessing that a model's weights were trained with.

    Args:
        name: A model name.
        weights: A weights name; a file or None stands for the architecture's default weights.
        image_size: Side of the crop in pixels; without it, that of the weights. Needed for our own networks,
            which are then given pictures of exactly that shorter side.
        color: `rgb` or `grayscale`.

    Raises:
        TrainingError: An own network without a size, or no such weights.
    """
    channels = 3 if color == "rgb" else 1
    if name in NETWORKS:
        if image_size is None:
            raise TrainingError(f"{name} takes pictures of any size: say which with --image-size")
        pixels = PixelSpec(resize=image_size, crop=(image_size, image_size), color=color)
        return Preprocessing(pixels, (PLAIN_MEAN,) * channels, (PLAIN_STD,) * channels)
    if name.startswith(TIMM):
        published = timm_package(name).get_pretrained_cfg(name.removeprefix(TIMM))
        crop, mean, std, interpolation = published.input_size[1], published.mean, published.std, published.interpolation
        resize = int(crop / published.crop_pct)
    else:
        preset = weights_enum(name, None if weights is None or is_file(weights) else weights).transforms()
        resize, crop, interpolation = preset.resize_size[0], preset.crop_size[0], preset.interpolation.value
        mean, std = preset.mean, preset.std
    if image_size is not None:
        resize, crop = round(image_size * resize / crop), image_size
    pixels = PixelSpec(resize=resize, crop=(crop, crop), interpolation=interpolation, color=color)
    mean, std = tuple(mean), tuple(std)
    if channels == 1:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    return Preprocessing(pixels, mean, std)
