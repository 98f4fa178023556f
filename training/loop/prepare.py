"""Samples → arrays ready to train on: decides the preprocessing, decodes, and sets unusable files aside."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from taxon.bundle.pixels import open_picture
from taxon.training.config import DataOptions, MachineOptions, ModelOptions
from taxon.training.dataset import data
from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.pictures import Arrays, check_room, decode_all, training_spec
from taxon.training.dataset.sources import check_there, open_source, split_source
from taxon.training.errors import TrainingError
from taxon.training.loop.augment import Augmentation, centered
from taxon.training.loop.batches import LabelledArrays, targets_of
from taxon.training.loop.order import hashed
from taxon.training.network import model, published
from taxon.training.network.model import Preprocessing
from taxon.training.network.networks import NETWORKS
from taxon.training.network.weights import is_file

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
    def unvaried(self) -> LabelledArrays:
        """The training split as evaluation would see it."""
        spec = self.preprocessing.pixels
        return self.train if spec is None else replace(self.train, variation=partial(centered, crop=spec.crop))

    def in_epoch(self, epoch: int, augmentation: Augmentation | None, seed: int) -> LabelledArrays:
        """The training split as an epoch sees it; numbers never vary."""
        if augmentation is None:
            return self.train
        return replace(self.train, variation=partial(augmentation, seed=seed, epoch=epoch))


@dataclass(frozen=True, slots=True)
class Found:
    """The data of a training before anything is decoded."""

    data: Labelled
    """Every sample in a split."""
    preprocessing: Preprocessing
    values: NDArray[np.float32] | None = None
    """Of a table of numbers: float32 [rows, F], by `Sample.row`."""


def find_data(options: DataOptions, network: ModelOptions, *, only_plan: bool = False) -> Found:
    """Finds and splits the data of a recipe. Decodes nothing.

    Args:
        options: Where it is.
        network: Decides the preprocessing.
        only_plan: Does not read every file once, so that equal ones stay together and the split does not depend on
            names; and asks nobody for published weights.

    Raises:
        TrainingError: See `check_there`, `published.check_weights`, `open_source`, `split_source` and
            `choose_preprocessing`.
    """
    check_there(options.source)
    # Before it is opened: a data set in its published files, or in Parquet, is written as thousands of pictures first.
    if is_file(network.weights) or not (only_plan or network.weights == "none"):
        published.check_weights(network.name, network.weights)
    found, values = open_source(
        options.source,
        digits_folder=options.digits_folder,
        prepared_folder=options.prepared_folder,
        download=options.download,
        task=options.task,
    )
    if values is None and not only_plan:
        found = data.with_digests(found)
    found = split_source(found, fraction=options.val_fraction, seed=options.split_seed, validate_on=options.validate_on)
    if values is not None:
        return Found(found, _standardising(found, values, network.name), values)
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
    return Found(found, preprocessing)


def _standardising(found: Labelled, values: NDArray[np.float32], name: str) -> Preprocessing:
    """That of the training rows.

    Raises:
        TrainingError: The model takes pictures.
    """
    if name != "mlp":
        raise TrainingError(f"the data is a table of numbers, which {name} does not take: use --model mlp")
    rows = np.asarray([sample.row for sample in found.split("train")], dtype=np.int64)
    spread = values[rows].std(axis=0, dtype=np.float64)
    mean = tuple(values[rows].mean(axis=0, dtype=np.float64).tolist())
    std = tuple(np.where(spread > 0.0, spread, 1.0).tolist())  # a constant column says nothing, but divides
    return Preprocessing(None, mean, std, found.columns)


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


def prepare(found: Found, machine: MachineOptions) -> Prepared:
    """Decodes everything once; numbers are ready as they are.

    Raises:
        TrainingError: A class has no usable picture left in a split, or there is no room for the decoded pictures.
    """
    kept, splits = found.data, ("train", "val")
    inputs: list[Arrays | NDArray[np.float32]] = []
    if (spec := found.preprocessing.pixels) is not None:
        usable, faults = kept.split("test"), list(kept.faults)
        parts = [(kept.split(split), wanted) for split, wanted in zip(splits, (training_spec(spec), spec), strict=True)]
        check_room(parts, machine.cache_folder, machine.cache_gib * 2**30)
        for given, wanted in parts:
            arrays, samples, spoilt = decode_all(given, wanted, machine.cache_folder, machine.cache_gib * 2**30)
            inputs.append(arrays)
            usable, faults = [*usable, *samples], [*faults, *spoilt]
        kept = replace(kept, samples=tuple(usable), faults=tuple(faults))
        data.check_covered(kept)
    elif (values := found.values) is not None:
        inputs += [values[[sample.row for sample in kept.split(split)]] for split in splits]
    train, val = (
        LabelledArrays(arrays, targets_of(kept.split(split), len(kept.labels), kept.task))
        for arrays, split in zip(inputs, splits, strict=True)
    )
    return Prepared(kept, found.preprocessing, train, val)
