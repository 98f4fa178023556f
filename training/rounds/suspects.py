"""Which of the labels that people give are likely to be wrong.

A linear probe on the features of the network behind the served version is asked about every picture by folds that were
not trained on it, with all of that version's own training pictures beside. Its answers are the prior of what
contributors say (`taxon.feedback.agreement`), and are counted as confident learning does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxon.feedback.agreement import judged
from taxon.feedback.decisions import Suspicion
from taxon.feedback.review import Case
from taxon.feedback.store import Store
from taxon.training.advice.probe import fitted
from taxon.training.errors import TrainingError
from taxon.training.loop.order import permutation
from taxon.training.rounds.features import Picture, features
from taxon.training.runs.folder import Run

FOLDS = 5
STRENGTH = 0.01
"""Inverse weight of the probe's L2 penalty, on standardised features."""
MOST_TRAINED = 20_000
"""Pictures of the version's own training that the probe learns from."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """What was found."""

    suspicions: list[Suspicion]
    """Of every picture with one label."""
    reliability: dict[str, float]
    """How often each contributor is right, by pseudonym."""
    confident: frozenset[str]
    """Pictures whose label confident learning calls wrong by the scores alone, whoever gave it."""


def suspects(store: Store, found: Sequence[Case], run: Run) -> Suspects:
    """Looks at all pictures of the cases.

    Args:
        store: Has their content.
        found: What people say.
        run: Behind the version that answered them.

    Raises:
        TrainingError: It is no classifier of pictures with one label each.
    """
    if run.facts["task"] != "single_label":
        raise TrainingError("suspicions are of one label per picture, and the model gives several")
    chosen = [case for case in found if len(case.said[0][0]) == 1]
    if not chosen:
        return Suspects([], {}, frozenset())
    trained = run.samples("train")
    trained = [trained[number] for number in permutation(0, 0, len(trained))[:MOST_TRAINED]]
    pictures: list[Picture] = [(str(sample.path), sample.path.read_bytes) for sample in trained]
    pictures += [
        (case.picture, lambda case=case: store.pictures.read(case.picture, case.extension))  # type: ignore[misc]
        for case in chosen
    ]
    seen = features(run.checkpoint(), pictures)
    given = [case.said[0][0][0] for case in chosen]
    names = sorted({*run.labels, *given})
    index = {name: number for number, name in enumerate(names)}
    targets = np.asarray([*(index[run.labels[sample.label]] for sample in trained), *(index[name] for name in given)])
    scores = out_of_fold(seen, targets, len(trained), len(names))
    by_picture = {
        case.picture: dict(zip(names, map(float, row), strict=True)) for case, row in zip(chosen, scores, strict=True)
    }
    reliability, suspicions = judged(chosen, by_picture)
    wrong = confidently_wrong(scores, targets[len(trained) :])
    confident = frozenset(case.picture for case, flag in zip(chosen, wrong, strict=True) if flag)
    return Suspects(suspicions, reliability, confident)


def out_of_fold(
    seen: NDArray[np.float32], targets: NDArray[np.int64], trained: int, class_count: int
) -> NDArray[np.float64]:
    """What probes think of the pictures behind the first `trained`, each asked by one that has not seen its label.

    Args:
        seen: Features [N, F].
        targets: Labels [N].
        trained: How many of the first are always learnt from, and not asked.
        class_count: K.

    Returns:
        [N - trained, K].
    """
    asked = len(targets) - trained
    scores = np.zeros((asked, class_count))
    fold_of = permutation(1, 0, asked) % min(FOLDS, max(2, asked))
    for fold in np.unique(fold_of):
        of_fold = np.flatnonzero(fold_of == fold) + trained
        others = np.concatenate([np.arange(trained), np.flatnonzero(fold_of != fold) + trained])
        if len(np.unique(targets[others])) < 2:
            raise TrainingError("there are too few pictures of different classes to learn from")
        probe = fitted(seen[others], targets[others], STRENGTH)
        scores[np.ix_(of_fold - trained, probe.classes_)] = probe.predict_proba(seen[of_fold])
    return scores


def confidently_wrong(scores: NDArray[np.float64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Off the diagonal of the confident joint (Northcutt, Jiang and Chuang, "Confident Learning", JAIR 2021): the score
    of another class reaches what is usual for pictures that are labelled so, and is the best of those that do.

    Args:
        scores: Out of fold [N, K].
        given: Labels [N].

    Returns:
        [N].
    """
    own = scores[np.arange(len(given)), given]
    counts = np.bincount(given, minlength=scores.shape[1])
    sums = np.bincount(given, weights=own, minlength=scores.shape[1])
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)  # nobody gives such a label
    confident = np.where(scores >= usual, scores, -1.0)
    wrong: NDArray[np.bool_] = (confident.max(axis=1) >= 0.0) & (confident.argmax(axis=1) != given)
    return wrong
