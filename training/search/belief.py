"""Is the best trial better than the default by more than chance? Both are trained again with the same new seeds, and
asked about pictures that no trial was chosen by.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from taxon.training.config import Recipe
from taxon.training.finetune import finetune
from taxon.training.loop import metrics
from taxon.training.loop.augment import normalised
from taxon.training.loop.evaluate import answer
from taxon.training.loop.machine import choose_machine
from taxon.training.loop.prepare import find_data, prepare
from taxon.training.plan import resolved
from taxon.training.search.space import with_values

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Belief:
    """Two arms, trained with the same seeds and asked about the same pictures."""

    default: tuple[float, ...]
    """Accuracy by seed."""
    best: tuple[float, ...]
    picture_count: int
    difference: float
    """Of the mean accuracies, best less default."""
    low: float
    """Of its 95 % interval."""
    high: float

    @property
    def won(self) -> bool:
        """By more than chance."""
        return self.low > 0.0


def compare(default: NDArray[np.bool_], best: NDArray[np.bool_]) -> Belief:
    """Compares two arms, whose seeds and pictures are both a sample of those that might have been.

    The variance of the difference is the sum of Welch's over the seeds and of that of the paired differences over the
    pictures, with the degrees of freedom of Welch and Satterthwaite. What varies with both is counted twice: the
    interval is rather too wide than too narrow.

    Args:
        default: Bool `[seeds, pictures]`: right answers. Two seeds or more.
        best: As `default`, of the same seeds and pictures.
    """
    seeds, pictures = default.shape
    paired = best.mean(axis=0) - default.mean(axis=0)
    parts = [
        (best.mean(axis=1).var(ddof=1) / seeds, seeds - 1),
        (default.mean(axis=1).var(ddof=1) / seeds, seeds - 1),
        (paired.var(ddof=1) / pictures, pictures - 1),
    ]
    difference, variance = float(paired.mean()), sum(part for part, _ in parts)
    margin = 0.0
    if variance > 0:
        freedom = variance**2 / sum(part**2 / count for part, count in parts)
        margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * variance**0.5)
    arms = [tuple(float(value) for value in arm.mean(axis=1)) for arm in (default, best)]
    return Belief(arms[0], arms[1], pictures, difference, difference - margin, difference + margin)


def train_again(
    recipe: Recipe,
    arms: Sequence[tuple[str, Mapping[str, Any]]],
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], None],
) -> list[NDArray[np.bool_]]:
    """Trains each arm with each seed, as `taxon train` would with the whole training split.

    Args:
        recipe: Resolved; the default's.
        arms: The name of each, and the values that it changes.
        seeds: New ones, which no trial had.
        folder: Of these runs; finished ones are taken as they are, others resumed.
        say: Told of each run.

    Returns:
        For each arm bool `[seeds, pictures]`: right answers on the validation split, of each run's best epoch.

    Raises:
        TrainingError: As `finetune`.
    """
    prepared = prepare(find_data(recipe.data, recipe.model), recipe.machine)
    machine = choose_machine(recipe.machine.device, threads=recipe.machine.threads, deterministic=False)
    mean, std = prepared.preprocessing.mean, prepared.preprocessing.std
    rows: list[list[NDArray[np.bool_]]] = [[] for _ in arms]
    for seed in seeds:
        for (name, values), right in zip(arms, rows, strict=True):
            changed = with_values(recipe, {**values, "run.seed": seed})
            place = folder / f"{name}-seed-{seed}"
            place.mkdir(parents=True, exist_ok=True)
            with (place / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                run = finetune(resolved(changed), place)
            network = run.checkpoint().build_model().to(machine.device)
            to_network = partial(_to_network, device=machine.device, mean=mean, std=std)
            found = answer(network, prepared.val, to_network, machine, recipe.optim.batch_size)
            right.append(metrics.right(found.scores, found.truth, found.task))
            say(f"{name}, seed {seed}: {right[-1].mean():.2%} of {len(right[-1])} held-out samples")
    return [np.stack(right) for right in rows]


def _to_network(inputs: Any, *, device: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    return normalised(inputs.to(device), mean, std)


def sentence(belief: Belief | None) -> str:
    """The verdict for a person; None where the default itself was the best trial."""
    if belief is None:
        return "No trial beat the default settings on what the search saw: they stay."
    figures = (
        f"{belief.difference:+.2%} (95 % interval {belief.low:+.2%} to {belief.high:+.2%}) over {len(belief.best)} "
        f"seeds and {belief.picture_count:,} samples that no trial was chosen by"
    )
    if belief.won:
        return f"The best trial beats the default by more than chance: {figures}."
    return f"The best trial did not beat the default by more than chance: {figures}. The default stays."
