"""Whether a picture is like those that the network was trained on: what the judge in the graph is fitted to at export.

The familiarity of a picture is the cosine of its features, those that reach the head, with the nearest of a bank of
training features (Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022), reduced to
cluster centres by spherical k-means. It needs no foreign pictures. docs/experiments/judging.md has what else was tried.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate
from taxon.training.exporting.judge import SHORTEST, Judged, NoFeaturesError, Watched
from taxon.training.loop import order

BANK_BYTES = 2 * 10**6
"""Of float32 in every graph of a bundle, at most."""
CENTRES = 128
"""In the bank: more cost time and tell foreign pictures no better."""
CENTRES_PER_LABEL = 2
"""At least, as far as the bytes allow."""
SAMPLE = 4096
"""Training pictures that are looked at, whose features are computed at every export."""


def judged(candidate: Candidate) -> tuple[Candidate, str]:
    """The candidate with a judge in its network, and a sentence about it; or the same, and why it has none.

    Raises:
        ParityError: A training picture cannot be read.
    """
    try:
        watched = _watched(candidate)
        features = training_features(candidate, watched)
    except NoFeaturesError as error:
        if candidate.task == "multi_label":
            return candidate, f'there is no "unknown": {error}'
        return candidate, f'"unknown" is told by the best score, because {error}'
    bank = centres(features, len(candidate.labels))
    note = (
        f'"unknown" is told by familiarity: the likeness to the nearest of {len(bank)} kinds of training picture '
        f"({bank.nbytes / 1e6:.1f} MB, from {len(features)} pictures)"
    )
    return replace(candidate, network=Judged(watched, bank)), note


def _watched(candidate: Candidate) -> Watched:
    if candidate.task == "multi_label":
        raise NoFeaturesError("a picture with none of several labels is an answer, not a foreign picture")
    if candidate.pixels is None:
        raise NoFeaturesError("the classifier takes numbers")
    if candidate.head is None:
        raise NoFeaturesError("the features of an imported graph or of an ensemble are in no one place")
    if not candidate.training_files:
        raise NoFeaturesError("there are no training pictures to compare with")
    return Watched(candidate.network, candidate.head)


@torch.inference_mode()
def training_features(candidate: Candidate, watched: Watched) -> NDArray[np.float32]:
    """float32 `[N, D]`: what reaches the head from training pictures, decoded as they are in the service.

    Raises:
        NoFeaturesError: What reaches the head is no vector, or not finite.
        ParityError: A picture cannot be read.
    """
    mixed = order.permutation(0, 0, len(candidate.training_files))[:SAMPLE]  # files lie by class
    files = [candidate.training_files[index] for index in mixed]
    batches = parity.network_inputs(files, candidate.pixels, candidate.mean, candidate.std)
    features: NDArray[np.float32] = torch.cat([watched(inputs)[1] for inputs in batches])[: len(files)].numpy()
    if not np.isfinite(features).all():
        raise NoFeaturesError("its features of training pictures are not finite")
    return features


def centres(features: NDArray[np.float32], label_count: int) -> NDArray[np.float32]:
    """float32 `[M, D]`, each of length 1: the features themselves if they are few, else centres of their clusters.

    Args:
        features: float32 `[N, D]`.
        label_count: K.
    """
    units = _units(features)
    wanted = max(CENTRES, CENTRES_PER_LABEL * label_count)
    count = max(1, min(wanted, BANK_BYTES // (4 * features.shape[1])))
    if len(units) <= count:
        return units
    return _units(KMeans(count, n_init=1, random_state=0).fit(units).cluster_centers_)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of length 1, but for those of length 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: NDArray[np.float32] = vectors / np.maximum(lengths, SHORTEST)
    return units
