"""How well a linear classifier on frozen features does, with its uncertainty: the judge of backbones.

A probe on features ranks pretrained networks much as fine-tuning does (Kornblith et al., 2019, "Do Better ImageNet
Models Transfer Better?"), for the price of one pass over the pictures.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from taxon.training.dataset.data import Sample
from taxon.training.errors import TrainingError
from taxon.training.loop.significance import wilson

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse weights of the L2 penalty that are tried, on standardised features."""
INNER_SHARE = 0.25
"""Of the training pictures of a fold, on which the penalty is chosen."""
MOST_ITERATIONS = 500
Z95 = float(stats.norm.ppf(0.975))
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices to train on and to ask about."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Out-of-fold answers."""

    right: NDArray[np.bool_]
    """[N]: whether the answer to each picture is right, by a probe that was not trained on it."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the pictures as a sample."""
        return wilson(int(self.right.sum()), len(self.right))


def folds_of(targets: NDArray[np.int64], samples: Sequence[Sample], count: int) -> list[Fold]:
    """Stratified folds; pictures of one group, and equal files, never part.

    Args:
        targets: Class indices [N].
        samples: Of each picture, with digests.
        count: Of folds.

    Raises:
        TrainingError: A class has fewer groups than there are folds.
    """
    groups = np.unique([sample.group or sample.sha256 for sample in samples], return_inverse=True)[1]
    fewest = min(len(np.unique(groups[targets == index])) for index in np.unique(targets))
    if fewest < count:
        raise TrainingError(
            f"a class has {fewest} pictures that differ and may part, fewer than --folds {count}: add some, or ask for "
            "fewer folds"
        )
    folding = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    return [(train, test) for train, test in folding.split(np.zeros(len(targets)), targets, groups)]


def subset(fold: Fold, targets: NDArray[np.int64], samples: Sequence[Sample], share: float) -> NDArray[np.int64]:
    """A share of a fold's training pictures, of each class alike, one or more; a smaller share lies in a larger."""
    chosen = []
    for index in np.unique(targets[fold[0]]):
        members = sorted(fold[0][targets[fold[0]] == index], key=lambda n: _order(samples[n]))
        chosen += members[: max(1, round(share * len(members)))]
    return np.asarray(sorted(chosen), dtype=np.int64)


def _order(sample: Sample) -> str:
    return hashlib.sha256(f"{sample.group or sample.sha256} {sample.sha256}".encode()).hexdigest()


def probe(features: NDArray[np.float32], targets: NDArray[np.int64], folds: Sequence[Fold]) -> Probed:
    """Asks about every picture a multinomial logistic regression that was not trained on it. The penalty is chosen in
    each fold on a part of the fold's training pictures.

    Args:
        features: [N, F]; of maps [N, F, H, W] the mean over places is taken.
        targets: Class indices [N].
        folds: Of `folds_of`.
    """
    flat = pooled(features)
    right = np.zeros(len(targets), dtype=np.bool_)
    for train, test in folds:
        strength = _chosen_strength(flat[train], targets[train])
        right[test] = fitted(flat[train], targets[train], strength).predict(flat[test]) == targets[test]
    return Probed(right)


def pooled(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, F] of features, averaged over places if there are any."""
    flat = features if features.ndim == 2 else features.reshape(*features.shape[:2], -1).mean(axis=2)
    return np.ascontiguousarray(flat)


def fitted(features: NDArray[np.float32], targets: NDArray[np.int64], strength: float) -> Pipeline:
    """A probe: features standardised, then logistic regression."""
    found = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_ITERATIONS, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early it is a little more regularised
        found.fit(features, targets)
    return found


def _chosen_strength(features: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """The penalty with the most right answers on every fourth picture of each class; of equals the heaviest."""
    inner = np.zeros(len(targets), dtype=np.bool_)
    for index in np.unique(targets):
        members = np.flatnonzero(targets == index)
        inner[members[:: round(1 / INNER_SHARE)][: len(members) - 1]] = True
    if not inner.any():
        return STRENGTHS[len(STRENGTHS) // 2]
    scores = [
        float((fitted(features[~inner], targets[~inner], strength).predict(features[inner]) == targets[inner]).mean())
        for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(scores))]


def difference(one: Probed, other: Probed) -> tuple[float, float, float]:
    """(one less other, low, high): of accuracies on the same pictures, with the 95 % interval of the paired mean."""
    paired = one.right.astype(np.float64) - other.right
    margin = Z95 * float(paired.std(ddof=1)) / len(paired) ** 0.5
    return float(paired.mean()), float(paired.mean()) - margin, float(paired.mean()) + margin
