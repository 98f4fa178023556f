"""The handwritten digits that ship inside scikit-learn, as a labelled folder of 8x8 PNG files.

1,797 digits by 43 people (Alpaydin and Kaynak, 1998); the split is fixed: every class four to one.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from taxon.training.dataset.new_folder import new_folder
from taxon.training.errors import TrainingError

LEVELS = 16
"""Largest value of a pixel as scikit-learn stores it."""
COMPLETE = ".complete"


def write_digits(folder: Path) -> Path:
    """Writes `train/<digit>/*.png` and `val/<digit>/*.png` unless they are there; returns the folder.

    Raises:
        TrainingError: Something else is there, or it is not writable.
    """
    if (folder / COMPLETE).exists():
        return folder
    if folder.exists():
        raise TrainingError(f"{folder} exists and does not hold the digits: choose another --digits-folder")
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pictures = np.round(digits.images * (255 / LEVELS)).astype(np.uint8)
    train, val = train_test_split(np.arange(len(pictures)), test_size=0.2, stratify=digits.target, random_state=0)
    with new_folder(folder) as new:
        for split, numbers in (("train", train), ("val", val)):
            for number in sorted(numbers):
                path = Path(new, split, str(digits.target[number]), f"{number:04}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pictures[number]).save(path)
        (new / COMPLETE).touch()
    return folder
