"""Pairs of known and foreign pictures, as folders: what a classifier learns, and what is none of it.

Each pair has `data/train`, `data/val`, `known` (held out from both) and `foreign`. Splits are by a fixed seed.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from taxon.training.dataset.digits import write_digits

CATS_AND_DOGS = (("n02085620", "n02113978"), ("n02123045", "n02124075"))
"""ImageNet's folders from … to, of which no picture is foreign to cats and dogs."""
LETTERS = "ABCDEFGHJKLMNPQRTUVWXYabdefhkmnpqrtwxy"
"""Without those that look like a digit."""


def cats_and_dogs(root: Path, source: Path, photos: Path) -> Path:
    """Cats and dogs, and photographs of other things."""
    folder = root / "cats_dogs"
    if not folder.exists():
        for label in ("cat", "dog"):
            files = _shuffled(source / label)
            _link(files[:150], folder / "known" / label)
            _split(files[150:], folder / "data", label)
        others = [
            file
            for file in sorted(photos.iterdir())
            if not any(first <= file.name.partition("_")[0] <= last for first, last in CATS_AND_DOGS)
        ]
        _link(others, folder / "foreign")
    return folder


def cifar(root: Path, source: Path) -> Path:
    """The first five classes of CIFAR-10 in the alphabet, and the other five: near to each other on purpose."""
    folder = root / "cifar"
    if not folder.exists():
        labels = sorted(path.name for path in (source / "train").iterdir())
        for label in labels[:5]:
            _split(_shuffled(source / "train" / label)[:750], folder / "data", label)
            _link(_shuffled(source / "test" / label)[:150], folder / "known" / label)
        for label in labels[5:]:
            _link(_shuffled(source / "test" / label)[:150], folder / "foreign" / label)
    return folder


def digits(root: Path) -> Path:
    """Handwritten digits of 8x8 pixels, and as many small pictures of other things: noise, blobs, shapes, letters."""
    folder = root / "digits"
    if not folder.exists():
        written = write_digits(root / "written_digits")
        for label in map(str, range(10)):
            _split(_shuffled(written / "train" / label), folder / "data", label)
            _link(_shuffled(written / "val" / label), folder / "known" / label)
        (folder / "foreign").mkdir()
        generator = np.random.default_rng(0)
        for number in range(60):
            for kind, picture in _others(generator, number):
                picture.save(folder / "foreign" / f"{kind}-{number:02}.png")
    return folder


def _others(generator: np.random.Generator, number: int) -> list[tuple[str, Image.Image]]:
    noise = Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8))
    blobs = Image.fromarray(generator.integers(0, 256, (3, 3), dtype=np.uint8)).resize((8, 8), Image.Resampling.BICUBIC)
    shape, letter = Image.new("L", (32, 32)), Image.new("L", (32, 32))
    left, top = generator.integers(2, 10, 2).tolist()
    right, bottom = generator.integers(20, 30, 2).tolist()
    pen = ImageDraw.Draw(shape)
    if number % 3 == 0:
        pen.rectangle((left, top, right, bottom), fill=255)
    elif number % 3 == 1:
        pen.line((left, top, right, bottom), fill=255, width=4)
        pen.line((left, bottom, right, top), fill=255, width=4)
    else:
        pen.ellipse((left, top, right, bottom), fill=255)
    place = (16 + int(generator.integers(-3, 4)), 16 + int(generator.integers(-2, 3)))
    font = ImageFont.load_default(28)
    ImageDraw.Draw(letter).text(place, LETTERS[number % len(LETTERS)], font=font, fill=255, anchor="mm")
    small = [picture.resize((8, 8), Image.Resampling.BILINEAR) for picture in (shape, letter)]
    return list(zip(("noise", "blobs", "shape", "letter"), (noise, blobs, *small), strict=True))


def _shuffled(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    random.Random(0).shuffle(files)
    return files


def _split(files: Sequence[Path], data: Path, label: str) -> None:
    """A fifth validates."""
    _link(files[: len(files) // 5], data / "val" / label)
    _link(files[len(files) // 5 :], data / "train" / label)


def _link(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / f"{number:05}{file.suffix}").symlink_to(file.resolve())
