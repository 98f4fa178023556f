"""One picture file → what the data doctor keeps of it. Each file is read once."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from taxon.bundle import jpeg
from taxon.bundle.pixels import ORIENTATIONS, colored, load, open_picture, orientation
from taxon.mistaken import MISTAKEN_BYTES, mistaken_for
from taxon.training.dataset.data import Fault, Sample
from taxon.training.dataset.pictures import LIMITS
from taxon.training.errors import TrainingError

SIDE = 32
"""Of the grey grid that fingerprints are taken of."""
DRAFT_SIDE = 64
"""JPEG is decoded at the smallest of its sizes that is not below this: all of its data is read all the same."""
PROCESSES_FROM = 4000
"""From so many files, processes: threads wait for the interpreter lock if pictures are small, but start at once."""
FILES_AT_A_TIME = 128
"""Given to a process."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one readable picture."""

    sample: Sample
    """With its digest."""
    size: tuple[int, int]
    """(width, height) as stored."""
    mode: str
    """Pillow's."""
    form: str
    """JPEG, PNG, WEBP or GIF."""
    orientation: int
    """EXIF; 1 is upright."""


def look_at_all(samples: Sequence[Sample]) -> tuple[list[Facts], NDArray[np.uint8], list[Fault]]:
    """Looks at every file, on all cores.

    Returns:
        Facts of the readable pictures, uint8 [N, 32, 32] of the same for `fingerprints`, and why others are not.

    Raises:
        TrainingError: A process died, usually because the machine ran out of memory.
    """
    cores = len(os.sched_getaffinity(0))
    looked: list[tuple[Facts, NDArray[np.uint8]] | Fault]
    if len(samples) < PROCESSES_FROM:
        with ThreadPoolExecutor(cores) as threads:
            looked = list(threads.map(look, samples))
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to answer
        try:
            with ProcessPoolExecutor(cores, context, initializer=signal.signal, initargs=quiet) as processes:
                looked = list(processes.map(look, samples, chunksize=FILES_AT_A_TIME))
        except BrokenProcessPool as error:
            raise TrainingError("a process that read pictures died: the machine may be out of memory") from error
    seen = [found for found in looked if not isinstance(found, Fault)]
    grids = np.stack([grey for _, grey in seen]) if seen else np.empty((0, SIDE, SIDE), dtype=np.uint8)
    return [facts for facts, _ in seen], grids, [found for found in looked if isinstance(found, Fault)]


def look(sample: Sample) -> tuple[Facts, NDArray[np.uint8]] | Fault:
    """Decodes one file wholly: its facts and its grid, or why it cannot be used."""

    def fault(reason: str) -> Fault:
        return Fault(sample.path, reason, sample.classes)

    try:
        encoded = sample.path.read_bytes()
    except OSError as error:
        return fault(f"cannot be read: {error.strerror}")
    try:
        with open_picture(BytesIO(encoded)) as picture:
            size, mode, form = picture.size, picture.mode, picture.format or ""
            if size[0] * size[1] > LIMITS.max_pixels:
                return fault(f"has {size[0]}x{size[1]} pixels, at most {LIMITS.max_pixels} are allowed")
            if picture.info.get("progressive") and jpeg.has_too_many_scans(encoded):
                return fault(f"has more than {jpeg.MAX_SCANS} scans")
            turned = orientation(picture)
            _small(picture)
            array = jpeg.decoded(picture, encoded)
            # What may have followed a file that was cut off is compared at its full size: scaled down, much is hidden.
            grey = grid(load(picture, encoded, lambda _: None) if array is None else jpeg.over(array), turned)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        mistaken = mistaken_for(encoded[:MISTAKEN_BYTES])
        return fault(f"is {mistaken or 'no JPEG, PNG, WebP or GIF picture'}")
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise anything on hostile bytes
        return fault(str(error))
    digest = hashlib.sha256(encoded).hexdigest()
    return Facts(replace(sample, sha256=digest), size, mode, form, turned), grey


def _small(picture: ImageFile) -> None:
    picture.draft("L", (DRAFT_SIDE, DRAFT_SIDE))


def grid(picture: Image.Image, turned: int = 1) -> NDArray[np.uint8]:
    """uint8 [32, 32]: the picture as training sees it, in grey and small. `turned` is EXIF's orientation."""
    turn = ORIENTATIONS.get(turned)
    shown = colored(picture if turn is None else picture.transpose(turn), "grayscale")
    return np.asarray(shown.resize((SIDE, SIDE), Image.Resampling.BOX))
