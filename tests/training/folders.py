"""Labelled folders of small pictures for tests, each picture different, each class easy to tell."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"dark": 60, "light": 190}


def write_picture(path: Path, level: int, seed: int, side: int = 8) -> Path:
    """A noisy grey-level picture around `level`."""
    pixels = np.random.default_rng(seed).integers(level - 40, level + 40, (side, side, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_folder(root: Path, per_class: int = 20, classes: dict[str, int] = CLASSES, side: int = 8) -> Path:
    """`<root>/<class>/<number>.png`."""
    for index, (label, level) in enumerate(classes.items()):
        for number in range(per_class):
            write_picture(root / label / f"{number:03}.png", level, 1000 * index + number, side)
    return root
