"""Samples → arrays ready to train on: decides the preprocessing, decodes, and sets unusable files aside."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from torch import Tensor

from taxon.bundle.pixels import open_picture
from taxon.training.config import DataOptions, MachineOptions, ModelOptions
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.pictures import decode_all, training_spec
from taxon.training.dataset.sources import open_source, split_source
from taxon.training.errors import TrainingError
from taxon.training.loop.augment import Augmentation
from taxon.training.loop.batches import LabelledArrays, targets_of
from taxon.training.loop.order import hashed
from taxon.training.network import model
from taxon.training.network.model import Preprocessing
from taxon.training.network.networks import NETWORKS

LARGEST_OWN_SIDE = 64
"""Our own networks are small: larger pictures are made smaller for them unless the user says otherwise."""
SIDE_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """The data of a training."""

    data: Labelled
    """Only usable samples; the others are its faults."""
    preprocessing: Preprocessing
    train: LabelledArrays
    """Squares that crops are taken from, see `pictures.training_spec`."""
    val: LabelledArrays
    """Exactly what the service would make of the files."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample as loaded: (height, width, channels), or (features,)."""
        spec = self.preprocessing.pixels
        return (len(self.preprocessing.mean),) if spec is None else spec.shape

    def example(self) -> Tensor:
        """Two samples of zeros, as loaded."""
        kind = torch.float32 if self.preprocessing.pixels is None else torch.uint8
        return torch.zeros((2, *self.input_shape), dtype=kind)

    def in_epoch(self, epoch: int, augmentation: Augmentation | None, seed: int) -> LabelledArrays:
        """The training split as an epoch sees it; numbers never vary."""
        if augmentation is None:
            return self.train
        return replace(self.train, variation=partial(augmentation, seed=seed, epoch=epoch))


def load_data(options: DataOptions, network: ModelOptions, machine: MachineOptions) -> Prepared:
    """Finds, splits and decodes the data of a recipe.

    Raises:
        TrainingError: See `open_source`, `split_source`, `choose_preprocessing` and `prepare`.
    """
    found, values = open_source(
        options.source,
        digits_folder=options.digits_folder,
        prepared_folder=options.prepared_folder,
        download=options.download,
        task=options.task,
    )
    if values is None:
        found = data.with_digests(found)
    found = split_source(found, fraction=options.val_fraction, seed=options.split_seed, validate_on=options.validate_on)
    if values is not None:
        return prepare_numbers(found, values, network.name)
    preprocessing = choose_preprocessing(
        network.name,
        None if network.weights == "none" else network.weights,
        found.split("train"),
        image_size=options.image_size,
        color=options.color,
    )
    if preprocessing.pixels is not None:
        changes = {"scaled_decoding": options.scaled_decoding, "resampler": options.resampler}
        preprocessing = replace(preprocessing, pixels=preprocessing.pixels.model_copy(update=changes))
    return prepare(found, preprocessing, machine.cache_folder, machine.cache_gib * 2**30)


def prepare_numbers(found: Labelled, values: NDArray[np.float32], name: str) -> Prepared:
    """Takes the splits of a table of numbers; what standardises them is that of the training rows.

    Raises:
        TrainingError: The model takes pictures.
    """
    if name != "mlp":
        raise TrainingError(f"the data is a table of numbers, which {name} does not take: use --model mlp")
    rows = {split: np.asarray([s.row for s in found.split(split)], dtype=np.int64) for split in ("train", "val")}
    spread = values[rows["train"]].std(axis=0, dtype=np.float64)
    mean = tuple(values[rows["train"]].mean(axis=0, dtype=np.float64).tolist())
    std = tuple(np.where(spread > 0.0, spread, 1.0).tolist())  # a constant column says nothing, but divides
    train, val = (
        LabelledArrays(values[rows[split]], targets_of(found.split(split), len(found.labels), found.task))
        for split in ("train", "val")
    )
    return Prepared(found, Preprocessing(None, mean, std, found.columns), train, val)


def choose_preprocessing(
    name: str, weights: str | None, samples: list[Sample], *, image_size: int | None, color: str
) -> Preprocessing:
    """The preprocessing of the weights; for our own networks the pictures' own size, at most 64.

    Raises:
        TrainingError: No such model or weights, or a model that takes no pictures.
    """
    if name == "mlp":
        raise TrainingError("the model mlp takes a CSV file of numbers, not pictures")
    if name in NETWORKS and image_size is None:
        image_size = min(LARGEST_OWN_SIDE, _commonest_side(samples))
    return model.preprocessing(name, weights, image_size=image_size, color=color)


def _commonest_side(samples: list[Sample]) -> int:
    order = np.argsort(hashed(0, 0, np.arange(len(samples))))[:SIDE_SAMPLES]
    sides = Counter[int]()
    for number in order:
        try:
            with open_picture(samples[number].path) as picture:
                sides[min(picture.size)] += 1
        except (OSError, UnidentifiedImageError, ValueError):
            continue  # named and set aside when it is decoded
    return sides.most_common(1)[0][0] if sides else LARGEST_OWN_SIDE


def prepare(found: Labelled, preprocessing: Preprocessing, cache_folder: Path, cache_bytes: float) -> Prepared:
    """Decodes everything once.

    Args:
        found: With digests and splits.
        preprocessing: What to make of each picture.
        cache_folder: Where decoded pictures are kept.
        cache_bytes: Up to which size each split is kept.

    Raises:
        TrainingError: A class has no usable picture left in a split.
        ValueError: The preprocessing is for numbers.
    """
    spec = preprocessing.pixels
    if spec is None:
        raise ValueError("numbers are prepared by `prepare_numbers`")
    train, train_samples, train_faults = decode_all(
        found.split("train"), training_spec(spec), cache_folder, cache_bytes
    )
    val, val_samples, val_faults = decode_all(found.split("val"), spec, cache_folder, cache_bytes)
    usable = (*train_samples, *val_samples, *found.split("test"))
    faults = (*found.faults, *train_faults, *val_faults)
    kept = replace(found, samples=usable, faults=faults)
    data.check_covered(kept)
    class_count = len(kept.labels)
    return Prepared(
        kept,
        preprocessing,
        LabelledArrays(train, targets_of(train_samples, class_count, kept.task)),
        LabelledArrays(val, targets_of(val_samples, class_count, kept.task)),
    )
