"""Several runs into one classifier.

A soup averages weights and costs no more than one network (Wortsman et al., "Model soups", ICML 2022: the greedy
recipe); batch normalisation is measured anew for the averaged weights (Izmailov et al., "Averaging weights leads to
wider optima and better generalization", UAI 2018). An ensemble averages scores and costs as much as all of its members.
Both become bundles like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from taxon.training.config import Task
from taxon.training.exporting import parity
from taxon.training.exporting.candidate import Candidate, ExportError, target_matrix
from taxon.training.exporting.of_run import from_run
from taxon.training.loop import metrics, order
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

SMALLEST_SCORE = 1e-12
"""Below it a logarithm would be infinite; far below what a float32 score shows beside another."""
STATISTICS_PICTURES = 4096
"""Of training, on which batch normalisation is measured: its means no longer change with more."""


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One run, with its accuracy on the shared validation pictures."""

    checkpoint: Checkpoint
    candidate: Candidate
    accuracy: float


class Ensemble(nn.Module):
    """Networks whose scores are averaged.

    Answers with the logits of the average, so that softmax (or sigmoid) gives the average itself. Each network gets the
    normalisation that it was trained with.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(candidate.network for candidate in candidates)
        self.task: Task = candidates[0].task
        first = candidates[0]
        for index, candidate in enumerate(candidates):
            scale = np.array(first.std) / np.array(candidate.std)
            shift = (np.array(first.mean) - np.array(candidate.mean)) / np.array(candidate.std)
            per_channel = (1, -1) if candidate.pixels is None else (1, -1, 1, 1)
            self.register_buffer(f"scale_{index}", torch.tensor(scale, dtype=torch.float32).reshape(per_channel))
            self.register_buffer(f"shift_{index}", torch.tensor(shift, dtype=torch.float32).reshape(per_channel))
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Float32 `[N, C, H, W]` or `[N, F]`, normalised as the first member wants it → logits `[N, K]`."""
        scores = []
        for index, network in enumerate(self.networks):
            own = pictures * self.get_buffer(f"scale_{index}") + self.get_buffer(f"shift_{index}")
            logits = network(own)
            scores.append(logits.softmax(dim=-1) if self.task == "single_label" else logits.sigmoid())
        average = torch.stack(scores).mean(dim=0).clamp(min=SMALLEST_SCORE)
        if self.task == "single_label":
            return average.log()
        return average.log() - (1.0 - average).clamp(min=SMALLEST_SCORE).log()


def gather(folders: Sequence[Path]) -> list[Ingredient]:
    """The runs, the most accurate first.

    Raises:
        TrainingError: Fewer than two runs, or runs that do not share labels, task, pixels and data. With other splits
            one run would have been trained on the pictures that another is judged by.
    """
    if len(folders) < 2:
        raise ExportError("there is nothing to fuse: give two runs or more")
    candidates = [from_run(folder) for folder in folders]
    for folder, candidate in zip(folders, candidates, strict=True):
        if candidate.privacy:
            raise ExportError(f"{folder} was trained with --dp-noise, and what runs tell together nobody has counted")
        for part in ("labels", "task", "pixels", "data_digest"):
            if getattr(candidate, part) != getattr(candidates[0], part):
                raise ExportError(f"{folder} and {folders[0]} differ in their {part.replace('_', ' ')}")
    ingredients = [
        Ingredient(Run.open(folder).checkpoint(), candidate, _accuracy(candidate))
        for folder, candidate in zip(folders, candidates, strict=True)
    ]
    return sorted(ingredients, key=lambda ingredient: -ingredient.accuracy)


def soup(ingredients: Sequence[Ingredient]) -> Candidate:
    """The greedy soup: from the best run on, each is averaged in if validation accuracy does not fall.

    Raises:
        TrainingError: The runs are not of one architecture with one normalisation, or have no training pictures.
    """
    best = ingredients[0]
    for other in ingredients[1:]:
        for part in ("model", "head", "mean", "std"):
            if getattr(other.checkpoint, part) != getattr(best.checkpoint, part):
                raise ExportError(f"a soup needs runs of one kind, but they differ in their {part}: use an ensemble")
    kept, accuracy = [best], best.accuracy
    candidate = best.candidate
    for ingredient in ingredients[1:]:
        state = average([part.checkpoint.state for part in (*kept, ingredient)])
        trial = replace(candidate, network=replace(best.checkpoint, state=state).build_model())
        estimate_batch_statistics(trial)
        if (measured := _accuracy(trial)) >= accuracy:
            kept.append(ingredient)
            candidate, accuracy = trial, measured
    return _fused(candidate, "soup", kept, accuracy)


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every tensor; counters, which are integers, are the first state's."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in states[0].items()
    }


def estimate_batch_statistics(candidate: Candidate) -> None:
    """Measures the means and variances of batch normalisation anew on training pictures, as they are served.

    The average of the members' own belongs to none of the networks: mixed weights give other activations.

    Raises:
        ExportError: There are no training pictures.
        ParityError: One cannot be read.
    """
    if not any(getattr(module, "running_mean", None) is not None for module in candidate.network.modules()):
        return
    count = len(candidate.training_files)
    if not count:
        raise ExportError("the runs have no training pictures to measure batch normalisation on: use an ensemble")
    # Mixed, because files lie by class and the variance within one class is too small; whole batches, because one
    # picture alone has no variance.
    mixed = order.permutation(0, 0, count)[: min(count, STATISTICS_PICTURES)]
    whole = len(mixed) - len(mixed) % parity.REFERENCE_BATCH or len(mixed)
    files = [candidate.training_files[index] for index in mixed[:whole]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout before a normalisation draws
        update_bn(parity.network_inputs(files, candidate.pixels, candidate.mean, candidate.std), candidate.network)


def ensemble(ingredients: Sequence[Ingredient]) -> Candidate:
    """All runs, with their scores averaged. They may differ in architecture and normalisation."""
    network = Ensemble([ingredient.candidate for ingredient in ingredients])
    candidate = replace(ingredients[0].candidate, network=network, head=None)
    return _fused(candidate, "ensemble", ingredients, _accuracy(candidate))


def _fused(candidate: Candidate, method: str, kept: Sequence[Ingredient], accuracy: float) -> Candidate:
    parents = tuple(ingredient.candidate.run_id for ingredient in kept)
    return replace(
        candidate,
        run_id=f"{method}-of-{len(parents)}",
        parents=parents,
        expected_accuracy=accuracy if candidate.task == "single_label" else None,
        seed=None,
        recipe={"fuse": method, "members": [dict(ingredient.candidate.recipe) for ingredient in kept]},
        metrics={f"accuracy_of_member_{index}": part.accuracy for index, part in enumerate(kept)},
    )


def _accuracy(candidate: Candidate) -> float:
    logits = parity.reference_logits(
        candidate.network, candidate.files, candidate.pixels, candidate.mean, candidate.std
    )
    targets = target_matrix(candidate.answers, candidate.labels)
    return metrics.accuracy(parity.scores_of(logits, candidate.task), targets, candidate.task)
