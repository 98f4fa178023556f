"""Which captured pictures people should label next: the least certain, the least familiar, or those like no others."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from taxon.feedback.records import Answer
from taxon.feedback.store import Store
from taxon.training.loop.order import permutation
from taxon.training.rounds.features import Picture, features
from taxon.training.runs.folder import Run

By = Literal["uncertain", "unfamiliar", "diverse", "mixed"]
MOST_COMPARED = 5_000
"""Training pictures that count as seen."""
OF_EACH = 4
"""By `mixed`, so many times as many uncertain pictures are looked at as are wanted."""


def next_to_label(store: Store, count: int, by: By, run: Run | None, model: str = "") -> list[tuple[str, Answer]]:
    """The pictures, most wanted first.

    Args:
        store: What was captured.
        count: How many at most.
        by: `uncertain`: lowest score first; `unfamiliar`: least familiar first, then the most uncertain; `diverse`: see
            `k_centers`; `mixed`: diverse among the most uncertain.
        run: Behind the version that is served; for `diverse` and `mixed`.
        model: Only what was captured of its answers; empty: of any.

    Raises:
        ValueError: No run where one is needed.
        TrainingError: A picture cannot be read.
    """
    found = list({one[0]: one for one in store.unsaid() if model in ("", one[2].model)}.values())
    by_score = sorted(found, key=lambda one: (one[2].score is not None, one[2].score or 0.0))
    if by == "unfamiliar":
        by_score.sort(key=lambda one: (one[2].familiarity is None, one[2].familiarity or 0.0))
    if by in ("uncertain", "unfamiliar"):
        return [(picture, answer) for picture, _, answer in by_score[:count]]
    if run is None:
        raise ValueError(f"{by} compares with what was trained on: give the run")
    chosen = by_score[: OF_EACH * count] if by == "mixed" else by_score
    if not chosen:
        return []
    trained = run.samples("train")
    trained = [trained[number] for number in permutation(0, 0, len(trained))[:MOST_COMPARED]]
    pictures: list[Picture] = [(str(sample.path), sample.path.read_bytes) for sample in trained]
    pictures += [(one[0], lambda one=one: store.pictures.read(one[0], one[1])) for one in chosen]  # type: ignore[misc]
    seen = features(run.checkpoint(), pictures)
    order = k_centers(seen[: len(trained)], seen[len(trained) :], count)
    return [(chosen[number][0], chosen[number][2]) for number in order]


def k_centers(covered: NDArray[np.float32], candidates: NDArray[np.float32], count: int) -> Sequence[int]:
    """The greedy core-set (Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach", ICLR 2018): again and again the candidate that is farthest from all that is covered, and
    then is covered too.

    Args:
        covered: [M, F] of what has labels already.
        candidates: [N, F].
        count: At most so many are taken.

    Returns:
        Numbers of candidates, in the order in which they were taken.
    """
    scale = np.maximum(np.concatenate([covered, candidates]).std(axis=0), 1e-6) if len(covered) else 1.0
    covered, candidates = covered / scale, candidates / scale
    distance = np.full(len(candidates), np.inf)
    for row in covered:
        np.minimum(distance, ((candidates - row) ** 2).sum(axis=1), out=distance)
    taken: list[int] = []
    for _ in range(min(count, len(candidates))):
        farthest = int(distance.argmax())
        taken.append(farthest)
        np.minimum(distance, ((candidates - candidates[farthest]) ** 2).sum(axis=1), out=distance)
        distance[farthest] = -1.0
    return taken
