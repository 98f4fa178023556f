"""Picture files → uint8 arrays, decoded once: exactly `taxon.bundle.pixels.decode`, as the service does.

Arrays lie in memory-mapped files whose name is the digest of what they hold, so later runs and other processes
use them again. Data over the size limit is decoded anew each time, with the same result.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from numpy.typing import NDArray

from taxon.bundle.atomic_files import check_writable
from taxon.bundle.atomic_files import write as write_atomically
from taxon.bundle.manifest import PixelSpec
from taxon.bundle.picture_limits import Limits, PictureError
from taxon.bundle.pixels import decode
from taxon.mistaken import MISTAKEN_BYTES, mistaken_for
from taxon.training.dataset.data import Fault, Sample
from taxon.training.errors import TrainingError

CACHE_FORMAT = "1"
"""Another one with every release whose `decode` gives other pixels, or takes or refuses other files."""
LIMITS = Limits(max_bytes=256 * 2**20, max_pixels=200_000_000)
"""Wider than the service's: the user trusts the own data, but not without any bound."""


class Arrays(Protocol):
    """uint8 [N, H, W, C] by sample number."""

    def __len__(self) -> int: ...

    def __getitem__(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] of these samples."""
        ...


@dataclass(frozen=True, slots=True)
class Cached:
    """Pictures in a memory-mapped file."""

    array: NDArray[np.uint8]
    rows: NDArray[np.int64]
    """Row of each sample: files that could not be used left empty rows."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] of these samples."""
        return self.array[self.rows[samples]]


@dataclass(frozen=True, slots=True)
class DecodedEachTime:
    """Pictures too many to keep: each access reads and decodes the files."""

    paths: Sequence[Path]
    spec: PixelSpec

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C] of these samples.

        Raises:
            OSError: A file has gone since it was checked.
            PictureError: A file has changed since it was checked.
        """
        return np.stack([decode(self.paths[number].read_bytes(), self.spec, LIMITS) for number in samples])


def training_spec(pixels: PixelSpec) -> PixelSpec:
    """What training keeps of each picture: the square that evaluation crops from, so that crops can move."""
    if isinstance(pixels.resize, tuple):
        return pixels.model_copy(update={"crop": pixels.resize})
    side = max(pixels.resize, *pixels.crop)
    return pixels.model_copy(update={"crop": (side, side)})


def decode_all(
    samples: Sequence[Sample], spec: PixelSpec, cache_folder: Path, cache_bytes: float
) -> tuple[Arrays, list[Sample], list[Fault]]:
    """Decodes every sample once, on all cores.

    Args:
        samples: With digests.
        spec: What to make of each picture.
        cache_folder: Where arrays are kept.
        cache_bytes: Larger data is only checked, and decoded again at each access.

    Returns:
        The pictures of the usable samples, those samples, and why the others are not usable.

    Raises:
        TrainingError: The arrays cannot be written.
    """
    shape = (len(samples), *spec.shape)
    if math.prod(shape) > cache_bytes:
        checked = list(zip(samples, _parallel(samples, spec, None), strict=True))
        usable = [sample for sample, fault in checked if fault is None]
        faults = [fault for _, fault in checked if fault is not None]
        return DecodedEachTime([sample.path for sample in usable], spec), usable, faults
    array_file = _array_file(samples, spec, cache_folder)
    faults_file = array_file.with_suffix(".json")
    if not array_file.exists():
        try:
            _fill(array_file, faults_file, samples, spec, shape)
        except OSError as error:
            raise TrainingError(f"the decoded pictures cannot be written into {cache_folder}: {error}") from error
    reasons = {int(number): reason for number, reason in json.loads(faults_file.read_text(encoding="utf-8")).items()}
    rows = np.asarray([number for number in range(len(samples)) if number not in reasons], dtype=np.int64)
    faults = [Fault(samples[number].path, reason, samples[number].classes) for number, reason in reasons.items()]
    return Cached(np.load(array_file, mmap_mode="r"), rows), [samples[row] for row in rows], faults


def _array_file(samples: Sequence[Sample], spec: PixelSpec, cache_folder: Path) -> Path:
    return cache_folder / f"pictures-{content_digest(samples, spec)[:32]}.npy"


def content_digest(samples: Sequence[Sample], spec: PixelSpec | None) -> str:
    """The sha256 of which samples these are and of all that decides what `decode` makes of them: names what is kept.

    Args:
        samples: With digests.
        spec: What is made of each picture; None for numbers.
    """
    made = "" if spec is None else spec.model_dump_json()
    content = [CACHE_FORMAT, made, PIL.__version__, *(sample.sha256 for sample in samples)]
    return hashlib.sha256(chr(10).join(content).encode()).hexdigest()


def check_room(parts: Sequence[tuple[Sequence[Sample], PixelSpec]], folder: Path, cache_bytes: float) -> None:
    """Before anything is decoded: a memory-mapped file on a full disk would end the process without a word.

    Args:
        parts: What `decode_all` will be asked for, one after the other.
        folder: Its `cache_folder`.
        cache_bytes: As there.

    Raises:
        TrainingError: There is no room for the arrays, or the folder is not writable.
    """
    sizes = [(samples, spec, math.prod((len(samples), *spec.shape))) for samples, spec in parts]
    byte_count = sum(
        size for samples, spec, size in sizes if size <= cache_bytes and not _array_file(samples, spec, folder).exists()
    )
    if not byte_count:
        return
    try:
        existing = check_writable(folder)
    except OSError as error:
        raise TrainingError(f"--cache-folder {folder}: {error.filename}: {error.strerror}") from error
    if (free := shutil.disk_usage(existing).free) < byte_count:
        raise TrainingError(
            f"the decoded pictures need {byte_count / 2**30:.1f} GiB in {folder}, {free / 2**30:.1f} are free: choose "
            "another --cache-folder, or a --cache-gib below that to decode anew in each epoch"
        )


def _fill(
    array_file: Path, faults_file: Path, samples: Sequence[Sample], spec: PixelSpec, shape: tuple[int, ...]
) -> None:
    """Writes both files, the array last and by renaming, so that a stopped run leaves nothing half done."""
    array_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = array_file.with_name(f".{array_file.stem}-{os.getpid()}.npy")
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        faults = list(_parallel(samples, spec, array))
        array.flush()
        reasons = {number: fault.reason for number, fault in enumerate(faults) if fault}
        write_atomically(faults_file, json.dumps(reasons))
        temporary.replace(array_file)
    finally:
        temporary.unlink(missing_ok=True)


def _parallel(samples: Sequence[Sample], spec: PixelSpec, into: NDArray[np.uint8] | None) -> Iterator[Fault | None]:
    def decode_one(number: int) -> Fault | None:
        sample = samples[number]
        try:
            encoded = sample.path.read_bytes()
            array = decode(encoded, spec, LIMITS)
        except OSError as error:
            return Fault(sample.path, f"cannot be read: {error.strerror}", sample.classes)
        except PictureError as error:
            mistaken = mistaken_for(encoded[:MISTAKEN_BYTES])
            return Fault(sample.path, f"is {mistaken}" if mistaken else str(error), sample.classes)
        if into is not None:
            into[number] = array
        return None

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow lets go of the interpreter lock
        yield from pool.map(decode_one, range(len(samples)))
