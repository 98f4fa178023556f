from pathlib import Path

import numpy as np
import pytest

from taxon.training.advice.probe import Probed, difference, folds_of, pooled, probe, subset
from taxon.training.dataset.data import Sample
from taxon.training.errors import TrainingError


def samples_of(targets, groups=None):
    return [
        Sample(
            Path(f"{number}.png"), int(label), sha256=f"{number:064x}", group="" if groups is None else groups[number]
        )
        for number, label in enumerate(targets)
    ]


def blobs(count=120, classes=3, apart=3.0, seed=0):
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    return (random.normal(size=(count, 8)) + apart * np.eye(8)[targets]).astype(np.float32), targets


def test_every_picture_is_asked_about_once_by_a_probe_that_has_not_seen_it():
    _, targets = blobs()
    folds = folds_of(targets, samples_of(targets), 4)
    assert sorted(np.concatenate([asked for _, asked in folds])) == list(range(len(targets)))
    assert all(not set(train) & set(asked) for train, asked in folds)


def test_a_group_never_parts():
    _, targets = blobs()
    groups = [f"g{number // 6}" for number in range(len(targets))]
    for train, asked in folds_of(targets, samples_of(targets, groups), 4):
        assert not {groups[n] for n in train} & {groups[n] for n in asked}


def test_equal_files_are_one_group():
    targets = np.asarray([0, 0, 0, 1, 1, 1, 1])
    samples = [
        Sample(Path(f"{n}.png"), int(label), sha256="same" if n < 3 else f"{n}") for n, label in enumerate(targets)
    ]
    with pytest.raises(TrainingError, match="1 pictures that differ and may part, fewer than --folds 2"):
        folds_of(targets, samples, 2)


def test_what_features_tell_is_found_and_noise_is_chance():
    features, targets = blobs()
    folds = folds_of(targets, samples_of(targets), 4)
    assert probe(features, targets, folds).accuracy > 0.9
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    low, high = probe(noise, targets, folds).interval
    assert low < 1 / 3 < high


def test_maps_are_averaged_over_places():
    maps = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)
    assert pooled(maps).tolist() == [[1.5, 5.5], [9.5, 13.5]]


def test_smaller_shares_lie_in_larger_ones_and_hold_every_class():
    _, targets = blobs()
    samples = samples_of(targets)
    fold = folds_of(targets, samples, 4)[0]
    small, large = (set(subset(fold, targets, samples, share)) for share in (0.1, 0.5))
    assert small < large < set(fold[0])
    assert {targets[n] for n in subset(fold, targets, samples, 0.001)} == {0, 1, 2}


def test_a_difference_on_the_same_pictures_is_known_better_than_each_accuracy():
    right = np.arange(400) % 5 > 0
    better = right.copy()
    better[np.flatnonzero(~right)[:20]] = True
    found, low, high = difference(Probed(better), Probed(right))
    assert found == pytest.approx(0.05)
    assert 0 < low < found < high
    assert Probed(better).interval[0] < Probed(right).interval[1]  # the intervals overlap all the same
