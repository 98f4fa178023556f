"""Pictures to send: those of a folder, or made ones that decode and compress about as photographs do."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from taxon.bundle.pixels import open_picture
from taxon.picture_files import EXTENSIONS, pictures

MOST_PICTURES = 64
"""Sent in turn: more would say no more, and each is kept in memory."""
SIZE = (500, 375)
QUALITY = 90


def photo(seed: int, size: tuple[int, int] = SIZE, noise: float = 20.0) -> Image.Image:
    """A picture that JPEG compresses about as well as a photograph: smooth shapes with grain.

    Args:
        seed: The same seed makes the same picture.
        size: (width, height) in pixels.
        noise: Standard deviation of the grain, in steps of 0 to 255.
    """
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = random.normal(0, noise, (*smooth.shape[:2], 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def jpegs(count: int = MOST_PICTURES, size: tuple[int, int] = SIZE) -> list[bytes]:
    """Made pictures, encoded: of the usual size about 100 kB each."""
    made = []
    for seed in range(count):
        file = io.BytesIO()
        photo(seed, size).save(file, "JPEG", quality=QUALITY)
        made.append(file.getvalue())
    return made


def of(path: Path | None) -> Callable[[], list[bytes]]:
    """Gives the pictures of a folder, read now; or, of no folder, made ones, made when they are asked for.

    Raises:
        OSError, ValueError: See `own`.
    """
    if path is None:
        return jpegs
    read = own(path)
    return lambda: read


def own(path: Path) -> list[bytes]:
    """Encoded pictures of a folder, from all over it, or a single one.

    Raises:
        OSError: A file cannot be read, or there is no picture.
        ValueError: A file is no picture, by its header: a server would refuse it. Or a name is not UTF-8.
    """
    files = pictures(path)[0] if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path} holds no file that ends in {', '.join(EXTENSIONS)}")
    step = max(1, len(files) // MOST_PICTURES)
    read = {file: file.read_bytes() for file in files[::step][:MOST_PICTURES]}
    for file, encoded in read.items():
        try:
            open_picture(io.BytesIO(encoded)).close()
        except Exception as error:  # Pillow's parsers raise anything
            raise ValueError(f"{file} is not a JPEG, PNG, WebP or GIF picture: leave it out") from error
    return [*read.values()]
