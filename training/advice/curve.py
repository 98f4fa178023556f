"""How much more accuracy more pictures would bring: a learning curve, extrapolated, and what each class gained.

The error of a probe by the number of training pictures n is fitted by an inverse power law, a + b n^-c (Figueroa et
al., 2012, "Predicting sample size required for classification performance"; Hestness et al., 2017, find it for deep
networks). The interval is the bootstrap's over the pictures: it holds for a linear classifier on these features, if
pictures to come are like those that are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from taxon.training.advice.probe import Z95, Fold, Probed, probe, subset
from taxon.training.dataset.data import Sample
from taxon.training.errors import TrainingError
from taxon.training.loop.significance import wilson

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the training pictures of each fold."""
FEWEST_OF_CLASS = 2
"""Pictures on average, in the smallest share that is tried."""
FORECASTS = (2, 4)
"""Times as many pictures."""
RESAMPLES = 200
STEEPEST = 2.0
"""Largest c: steeper laws come of noise alone."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Accuracy with more pictures."""

    times: int
    picture_count: int
    accuracy: float
    low: float
    """Of its 95 % interval."""
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve and its law."""

    counts: tuple[int, ...]
    """Training pictures."""
    accuracies: tuple[float, ...]
    law: tuple[float, float, float]
    """a, b, c, of n as a share of the largest count."""
    forecasts: tuple[Forecast, ...]


@dataclass(frozen=True, slots=True)
class ClassNeed:
    """One class, and what the last doubling of the pictures did for it."""

    label: str
    count: int
    recall: float
    low: float
    """Of the recall's 95 % interval."""
    high: float
    gain: float
    """Of recall, by the last doubling."""
    gain_low: float
    gain_high: float

    @property
    def need(self) -> str:
        """In a word: `more` where the last doubling helped beyond chance, `unclear` where the recall is not known
        to ten points, else nothing.
        """
        if self.gain_low > 0:
            return "more"
        return "unclear" if self.high - self.low > 0.2 else ""


def by_share(
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    samples: Sequence[Sample],
    folds: Sequence[Fold],
    full: Probed,
) -> dict[float, tuple[int, NDArray[np.bool_]]]:
    """For each share of the training pictures: how many they are, and bool [N], the right answers.

    Args:
        features: See `probe.probe`.
        targets: See there.
        samples: Of each picture.
        folds: See there.
        full: The probe with all training pictures.

    Raises:
        TrainingError: There are too few pictures for a curve.
    """
    classes = len(np.unique(targets))
    found = {}
    for share in SHARES:
        parts = [(subset(fold, targets, samples, share), fold[1]) for fold in folds]
        count = round(float(np.mean([len(train) for train, _ in parts])))
        if count >= FEWEST_OF_CLASS * classes:
            found[share] = (count, full.right if share == 1.0 else probe(features, targets, parts).right)
    if len(found) < 3:
        raise TrainingError(f"{len(targets)} pictures of {classes} classes are too few for a learning curve")
    return found


def curve(right: dict[float, tuple[int, NDArray[np.bool_]]], label_count: int) -> Curve:
    """Fits the law, and extrapolates it with its interval.

    Args:
        right: Of `by_share`.
        label_count: Chance is one in so many.
    """
    counts = np.asarray([count for count, _ in right.values()], dtype=np.float64)
    wrong = ~np.stack([answers for _, answers in right.values()])
    chance = 1.0 - 1.0 / label_count
    law = _fitted(counts / counts[-1], wrong.mean(axis=1), wrong.shape[1], chance)
    random = np.random.default_rng(0)
    drawn = [
        _fitted(counts / counts[-1], wrong[:, some].mean(axis=1), wrong.shape[1], chance)
        for some in random.integers(0, wrong.shape[1], (RESAMPLES, wrong.shape[1]))
    ]
    forecasts = []
    for times in FORECASTS:
        low, high = np.quantile([_error(one, times) for one in drawn], (0.975, 0.025))
        error = _error(law, times)
        forecasts.append(
            Forecast(times, times * int(counts[-1]), 1 - error, 1 - max(float(low), error), 1 - min(float(high), error))
        )
    accuracies = tuple(float(value) for value in 1 - wrong.mean(axis=1))
    return Curve(tuple(int(count) for count in counts), accuracies, law, tuple(forecasts))


def _error(law: tuple[float, float, float], share: float) -> float:
    a, b, c = law
    return float(a + b * share**-c)


def _fitted(
    shares: NDArray[np.float64], errors: NDArray[np.float64], picture_count: int, chance: float
) -> tuple[float, float, float]:
    """a, b, c by least squares, each point weighted by its binomial deviation."""
    smoothed = (errors * picture_count + 1) / (picture_count + 2)
    deviations = np.sqrt(smoothed * (1 - smoothed) / picture_count)
    last = float(errors[-1])

    def misfit(law: NDArray[np.float64]) -> NDArray[np.float64]:
        residuals: NDArray[np.float64] = (law[0] + law[1] * shares ** -law[2] - errors) / deviations
        return residuals

    bounds = ([0.0, 0.0, 0.0], [chance, chance, STEEPEST])
    found = least_squares(misfit, np.clip([last / 2, last / 2 + 1e-6, 0.5], bounds[0], bounds[1]), bounds=bounds)
    a, b, c = (float(value) for value in found.x)
    return a, b, c


def needs(
    right: dict[float, tuple[int, NDArray[np.bool_]]], targets: NDArray[np.int64], labels: Sequence[str]
) -> list[ClassNeed]:
    """Each class, that with the most errors left first."""
    full, half = right[1.0][1].astype(np.float64), right[SHARES[-2]][1].astype(np.float64)
    found = []
    for index, label in enumerate(labels):
        members = targets == index
        count, hits = int(members.sum()), full[members]
        gains = hits - half[members]
        margin = Z95 * float(gains.std(ddof=1)) / count**0.5 if count > 1 else 1.0
        low, high = wilson(int(hits.sum()), count)
        gain = float(gains.mean()) if count else 0.0
        recall = float(hits.mean()) if count else 0.0
        found.append(ClassNeed(label, count, recall, low, high, gain, gain - margin, gain + margin))
    return sorted(found, key=lambda part: part.recall)
