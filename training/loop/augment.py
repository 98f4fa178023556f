"""How training pictures vary. Each variation is a function of (seed, epoch, sample), see `order`.

Crops and flips are done for a whole batch at once, because one call per picture would cost more than a small
network's training; the rest is torchvision's `transforms.v2`, picture by picture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from taxon.training.loop.order import hashed, uniform

FLIP, TOP, LEFT, TRANSFORMS = 10, 11, 12, 13
"""Purposes of random numbers."""
HALF = 0.5
FILLED = 0
"""Value of erased pixels and of what transforms draw in from outside."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to a training picture, in this order: random resized crop or padding and crop, flip, policy,
    erasing.
    """

    crop: tuple[int, int]
    """(height, width) of the result."""
    flip: float = 0.0
    pad: int = 0
    scale: float = 1.0
    policy: str = "none"
    erase: float = 0.0

    def __call__(
        self, pictures: NDArray[np.uint8], samples: NDArray[np.int64], seed: int, epoch: int
    ) -> NDArray[np.uint8]:
        """Varies uint8 [n, h, w, C] pictures of the given sample numbers; returns uint8 [n, *crop, C]."""
        if self.scale == 1.0:
            pictures = self._crops(pictures, samples, seed, epoch)
        if (transforms := self._transforms()) is not None:
            pictures = _one_by_one(pictures, transforms, hashed(seed, epoch, samples, TRANSFORMS))
        if self.flip > 0.0:
            # Half of them: those that the epoch before left alone, so that two epochs see both views of each picture
            # (Jordan 2024, arXiv:2404.00498).
            alternating = self.flip == HALF
            flipped = uniform(seed, 0 if alternating else epoch, samples, FLIP) < self.flip
            if alternating and epoch % 2:
                flipped = ~flipped
            pictures[flipped] = pictures[flipped, :, ::-1]
        return pictures

    def _crops(
        self, pictures: NDArray[np.uint8], samples: NDArray[np.int64], seed: int, epoch: int
    ) -> NDArray[np.uint8]:
        if self.pad:
            border = (self.pad, self.pad)
            pictures = np.pad(pictures, ((0, 0), border, border, (0, 0)), mode="reflect")
        height, width = self.crop
        tops = (uniform(seed, epoch, samples, TOP) * (pictures.shape[1] - height + 1)).astype(np.int64)
        lefts = (uniform(seed, epoch, samples, LEFT) * (pictures.shape[2] - width + 1)).astype(np.int64)
        result = np.empty((len(pictures), height, width, pictures.shape[3]), dtype=np.uint8)
        for number, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            result[number] = pictures[number, top : top + height, left : left + width]
        return result

    def _transforms(self) -> v2.Transform | None:
        steps: list[v2.Transform] = []
        if self.scale < 1.0:
            steps.append(v2.RandomResizedCrop(self.crop, scale=(self.scale, 1.0), antialias=True))
        if self.policy == "randaugment":
            steps.append(v2.RandAugment(fill=FILLED))
        elif self.policy == "trivialaugment":
            steps.append(v2.TrivialAugmentWide(fill=FILLED))
        if self.erase > 0.0:
            steps.append(v2.RandomErasing(p=self.erase, value=FILLED))
        return v2.Compose(steps) if steps else None


def centered(pictures: NDArray[np.uint8], _samples: NDArray[np.int64], crop: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of uint8 [n, h, w, C] pictures: no variation at all."""
    top, left = (pictures.shape[1] - crop[0]) // 2, (pictures.shape[2] - crop[1]) // 2
    return pictures[:, top : top + crop[0], left : left + crop[1]]


def _one_by_one(pictures: NDArray[np.uint8], transforms: v2.Transform, seeds: NDArray[np.uint64]) -> NDArray[np.uint8]:
    varied = []
    with torch.random.fork_rng(devices=[]):
        for picture, seed in zip(torch.from_numpy(pictures), seeds, strict=True):
            torch.manual_seed(int(seed >> np.uint64(1)))
            varied.append(transforms(picture.permute(2, 0, 1)).permute(1, 2, 0))
    return torch.stack(varied).numpy()


def mixing(mixup: float, cutmix: float, class_count: int) -> v2.Transform | None:
    """Mixes a batch with itself: (float [n, C, H, W], int64 [n]) → the same with targets float [n, K].

    Draws from torch's generator, which the loop seeds for each step. With both, each batch takes one at random.
    """
    ways: list[v2.Transform] = []
    if mixup > 0.0:
        ways.append(v2.MixUp(alpha=mixup, num_classes=class_count))
    if cutmix > 0.0:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=class_count))
    return v2.RandomChoice(ways) if len(ways) > 1 else ways[0] if ways else None


def normalised(inputs: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [n, H, W, C] → float32 [n, C, H, W], `(x / 255 - mean) / std`; or float32 [n, F] → `(x - mean) / std`.

    Pictures keep the channels-last layout of their input: for free, and what convolutions like best.
    """
    if inputs.dtype != torch.uint8:  # the mean first: of a year or a price it is far larger than the deviation
        return (inputs - torch.tensor(mean, device=inputs.device)) / torch.tensor(std, device=inputs.device)
    scale = torch.tensor([255.0 * value for value in std], device=inputs.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=inputs.device)
    return (inputs.float() / scale - shift).permute(0, 3, 1, 2)
