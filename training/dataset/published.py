"""Pictures that are not files yet → a labelled folder of PNG files, written once.

So CIFAR, MNIST and pixel tables look to everything later like any folder: the same decoding, the same goldens.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from taxon.mistaken import first_line
from taxon.training.dataset.new_folder import new_folder
from taxon.training.errors import TrainingError

FORMATS: dict[str, Any] = {
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
    "mnist": datasets.MNIST,
    "fashionmnist": datasets.FashionMNIST,
}
Part = tuple[str, Any, list[str]]
"""(split folder, uint8 [N, H, W] or [N, H, W, 3], label of each)."""


def read_published(kind: str, root: Path, *, download: bool) -> list[Part]:
    """Reads a data set in its published files.

    Args:
        kind: One of `FORMATS`.
        root: The folder that torchvision calls root.
        download: Whether missing files may be fetched.

    Raises:
        TrainingError: The files are not there or damaged, or could not be fetched.
    """
    parts = []
    for split, train in (("train", True), ("test", False)):
        try:
            found = FORMATS[kind](str(root), train=train, download=download)
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            reason = first_line(error).partition(" You can use download")[0]  # the rest is torchvision's own option
            raise TrainingError(
                f"{kind} cannot be read from {root}: {reason.rstrip('.')}; put its official files there, or pass "
                "--download on a machine with a network"
            ) from error
        pictures = np.asarray(found.data)
        names = [str(name).strip().replace("/", "-") for name in found.classes]
        parts.append((split, pictures, [names[int(target)] for target in found.targets]))
    return parts


def write_parts(parts: Iterable[Part], prepared_folder: Path, name: str) -> Path:
    """Writes `<prepared_folder>/<name>-<digest>/<split>/<class>/<number>.png` unless it is there.

    Args:
        parts: A split folder may be empty: then classes lie at the top.
        prepared_folder: Holds one folder per content.
        name: For people.

    Returns:
        The folder.

    Raises:
        TrainingError: Not writable, or the disk is full.
    """
    parts = list(parts)
    digest = hashlib.sha256()
    for split, pictures, labels in parts:
        digest.update("\n".join([split, *labels]).encode())
        digest.update(np.ascontiguousarray(pictures).data)
    folder = prepared_folder / f"{name}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    with new_folder(folder) as new:
        for split, pictures, labels in parts:
            _write(new / split, pictures, labels)
    return folder


def _write(folder: Path, pictures: NDArray[np.uint8], labels: list[str]) -> None:
    for label in sorted(set(labels)):
        (folder / label).mkdir(parents=True)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        Image.fromarray(picture).save(folder / label / f"{number:06}.png", compress_level=1)
