"""The line of an advice, top to bottom: data, candidates, features, probes, costs, curve, recommendation."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from taxon.training.advice import curve as curves
from taxon.training.advice.candidates import FLOOR, Backbone, LeftOut, default_words, open_candidate
from taxon.training.advice.choose import Judged, recommend
from taxon.training.advice.cost import measure, measure_again, provider_for, write
from taxon.training.advice.page import Advice
from taxon.training.advice.probe import folds_of, probe
from taxon.training.config import DataOptions, MachineOptions
from taxon.training.dataset.data import Labelled, Sample, with_digests
from taxon.training.dataset.sources import open_source, split_source
from taxon.training.errors import TrainingError
from taxon.training.exporting.providers import CUDA
from taxon.training.loop import features
from taxon.training.loop.augment import normalised
from taxon.training.loop.machine import Machine, choose_machine
from taxon.training.loop.prepare import Found, prepare

BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    source: str
    """See `config.DataOptions`."""
    words: Sequence[str] | None
    """Candidates, see `candidates.open_candidate`; None for those that are at hand."""
    latency_ms: float | None
    device: str
    """`auto`, `cpu` or `cuda`."""
    pictures: int
    """At most."""
    folds: int
    color: str
    image_size: int | None
    """Side of the pictures in pixels; None for that of the weights."""
    cache_folder: Path
    threads: int
    """Of torch; 0 leaves its choice."""


def advise(question: Question, say: Callable[[str], None]) -> Advice:
    """Judges every candidate.

    Args:
        question: What is asked.
        say: Told of each step.

    Raises:
        TrainingError: The data cannot be used, or no candidate can be judged.
    """
    provider = provider_for(question.device)
    machine = choose_machine(question.device, threads=question.threads, deterministic=False)
    found = pictures_of(question.source)
    total = len(found.split("train")) + len(found.split("val"))
    some = sampled(found, question.pictures / total)
    given = (*some.split("train"), *some.split("val"))
    folds_of(targets_of(given), given, question.folds)  # what is wrong with the data is no candidate's fault

    words = question.words if question.words is not None else default_words()
    if question.words is None and words == [FLOOR]:
        raise TrainingError(
            "no pretrained weights are in the caches of this machine: name weights files, as MODEL=FILE, or runs"
        )
    judged: list[Judged] = []
    left_out: list[LeftOut] = []
    samples: tuple[Sample, ...] = ()
    kept: list[list[NDArray[np.float32]]] = []
    with tempfile.TemporaryDirectory() as graphs:
        paths: list[Path] = []
        for word in dict.fromkeys(words):
            try:
                backbone = open_candidate(word, len(found.labels), given, question.color, question.image_size)
                say(f"{backbone.name} ({backbone.weights}): features, probe, graph")
                usable, parts = features_of(backbone, some, machine, question.cache_folder)
                if not judged:
                    samples, targets = usable, targets_of(usable)
                    folds = folds_of(targets, samples, question.folds)
                elif usable != samples:
                    raise TrainingError("other files can be decoded for it than for the first candidate")
                probed = probe(np.concatenate(parts), targets, folds)
                path = Path(graphs, f"{len(judged)}.fp16.onnx" if provider == CUDA else f"{len(judged)}.onnx")
                cost = measure(path, provider, write(backbone, path, provider))
            except TrainingError as error:
                left_out.append(LeftOut(word, str(error)))
                say(f"{word} is left out: {error}")
                continue
            judged.append(Judged(backbone, probed, cost))
            kept.append(parts)
            paths.append(path)
            backbone.network.to("meta")  # a list of large networks would fill the memory
        if not judged:
            raise TrainingError(f"no candidate can be judged: {'; '.join(f'{o.name}: {o.reason}' for o in left_out)}")
        say("timing all in turn")
        costs = measure_again(paths, [one.cost for one in judged])
    judged = [replace(one, cost=cost) for one, cost in zip(judged, costs, strict=True)]

    recommendation = recommend(judged, question.latency_ms)
    shown = recommendation.chosen or max(judged, key=lambda one: one.probed.accuracy)
    rows = np.concatenate(kept[judged.index(shown)])
    curve, needs = None, []
    try:
        right = curves.by_share(rows, targets, samples, folds, shown.probed)
    except TrainingError as error:
        say(str(error))
    else:
        curve, needs = curves.curve(right, len(found.labels)), curves.needs(right, targets, found.labels)
    return Advice(
        data=question.source,
        picture_count=len(targets),
        total_count=total,
        judged=sorted(judged, key=lambda one: -one.probed.accuracy),
        left_out=left_out,
        recommendation=recommendation,
        latency_ms=question.latency_ms,
        curve=curve,
        needs=needs,
    )


def pictures_of(source: str) -> Labelled:
    """The pictures of a data source, in splits, of which `test` is not looked at.

    Raises:
        TrainingError: It cannot be used, or is not of pictures with one label each.
    """
    defaults = DataOptions(source=source)
    found, values = open_source(
        source,
        digits_folder=defaults.digits_folder,
        prepared_folder=defaults.prepared_folder,
        download=False,
        task=defaults.task,
    )
    if values is not None:
        raise TrainingError(f"{source} is a table of numbers, for which there are no backbones: train the model mlp")
    if found.task != "single_label":
        raise TrainingError(f"{source} has several labels a picture; the advice is for one label each")
    return split_source(
        with_digests(found), fraction=defaults.val_fraction, seed=defaults.split_seed, validate_on="val"
    )


def targets_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Class indices [N]."""
    return np.asarray([sample.label for sample in samples], dtype=np.int64)


def sampled(found: Labelled, share: float) -> Labelled:
    """A share of the training and the validation split, of each class alike, one or more; by the files' digests."""
    if share >= 1.0:
        return found
    chosen: list[Sample] = []
    for split in ("train", "val"):
        for index in range(len(found.labels)):
            members = sorted(
                (sample for sample in found.split(split) if sample.label == index), key=lambda sample: sample.sha256
            )
            chosen += members[: math.ceil(share * len(members))]
    return replace(found, samples=tuple(chosen))


def features_of(
    backbone: Backbone, found: Labelled, machine: Machine, cache_folder: Path
) -> tuple[tuple[Sample, ...], list[NDArray[np.float32]]]:
    """The samples that can be decoded, and what reaches the head: float32 [n, ...] of each split, mapped from the
    cache.
    """
    preprocessing = backbone.preprocessing
    prepared = prepare(Found(found, preprocessing), MachineOptions(cache_folder=cache_folder))
    backbone.network.to(machine.device)

    def to_network(pictures: Tensor) -> Tensor:
        return normalised(pictures.to(machine.device), preprocessing.mean, preprocessing.std)

    parts = features.of_splits(backbone.network, backbone.head, prepared, to_network, BATCH_SIZE, cache_folder)
    found_features = [np.asarray(part.inputs) for part in parts]
    if not all(np.isfinite(rows).all() for rows in found_features):
        raise TrainingError("what reaches its head is no number for some of the pictures")
    return (*prepared.data.split("train"), *prepared.data.split("val")), found_features
