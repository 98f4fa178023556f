"""Where a round's training begins: the checkpoint behind the served version, its head extended by name, and its recipe
for the new data.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from taxon.bundle import store as bundles
from taxon.bundle.manifest import BundleError
from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.errors import TrainingError
from taxon.training.loop.prepare import find_data
from taxon.training.network import model
from taxon.training.plan import resolved
from taxon.training.releases import promotions
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run

KEPT_MODES = ("head", "last-n")
"""Modes that leave the backbone alone, as the training before did; all others go on with everything."""


@dataclass(frozen=True, slots=True)
class Production:
    """What is served by default, and the run that it came of."""

    version: int
    run: Run


def production(models: Path, name: str, runs: Sequence[Path]) -> Production:
    """The default version of a model.

    Args:
        models: The repository.
        name: Of the model.
        runs: Folders below which the run is looked for.

    Raises:
        TrainingError: There is no version, or none of the runs made it.
        BundleError: It is damaged.
    """
    version = promotions.current_version(models, name, 0)
    if version is None:
        raise TrainingError(f"{models} has no model {name}: train and export the first version yourself")
    run_id = promotions.existing(models, name, version).manifest.provenance.run_id
    return Production(version, find_run(runs, run_id, f"version {version} of {name}"))


def find_run(runs: Sequence[Path], run_id: str, what: str) -> Run:
    """The run of this id below the folders.

    Raises:
        TrainingError: None of them is it.
    """
    for root in runs:
        for file in sorted(root.rglob("run.json")):
            run = Run(file.parent)
            with suppress(TrainingError):  # of another program, or damaged: not the one that is looked for
                if run.id == run_id:
                    return run
    places = ", ".join(map(str, runs))
    raise TrainingError(
        f"the run {run_id}, of which {what} was made, is not below {places}: training cannot go on from it"
    )


def extended(checkpoint: Checkpoint, labels: Sequence[str], seed: int) -> Checkpoint:
    """The checkpoint with a head for these labels: rows of labels that it has are kept by name, new ones are random.

    Raises:
        TrainingError: A label that it has is not among them.
    """
    if missing := sorted({*checkpoint.labels} - {*labels}):
        raise TrainingError(f"the data no longer has the classes {missing[:5]}: publish that under a new name")
    torch.manual_seed(seed)
    network = model.load(checkpoint.model, len(labels), channels=len(checkpoint.mean), head=checkpoint.head).network
    head = f"{model.head_path(network)}."
    state = dict(network.state_dict())
    rows = torch.tensor([list(labels).index(label) for label in checkpoint.labels])
    for key, before in checkpoint.state.items():
        if key.startswith(head):
            state[key] = state[key].clone()
            state[key][rows] = before
        else:
            state[key] = before
    return replace(checkpoint, labels=tuple(labels), state=state, progress={})


def recipe_for(run: Run, weights: Path, data: Path, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The run's recipe, to go on from `weights` on other data, with the same preprocessing.

    Args:
        run: Behind the served version.
        weights: Of `extended`.
        data: List of the pictures.
        changes: Over it, by section.

    Raises:
        TrainingError: An option does not exist, or the preprocessing would be another.
    """
    checkpoint, values = run.checkpoint(), flags.read_resolved(run.folder)
    pixels = checkpoint.pixels
    if pixels is None:
        raise TrainingError(f"{run.folder} was trained on numbers: people speak of pictures")
    if values.get("privacy", {}).get("noise"):
        raise TrainingError(
            f"{run.folder} was trained with --dp-noise: a round would train on the same pictures again, which its "
            "epsilon does not count"
        )
    mode = values["model"].get("mode", "full")
    values["data"] |= {
        "source": str(data),
        "task": checkpoint.task,
        "validate_on": "val",
        "image_size": pixels.crop[0],
        "color": pixels.color,
        "scaled_decoding": pixels.scaled_decoding,
        "resampler": pixels.resampler,
    }
    kept = mode if mode in KEPT_MODES else "full"
    values["model"] |= {"weights": str(weights), "mode": kept, "reset": [], "frozen": []}
    values["optim"].pop("head_epochs", None)
    values.pop("distill", None)
    for section, part in changes.items():
        values.setdefault(section, {}).update(part)
    recipe = resolved(flags.checked(values))
    made = find_data(recipe.data, recipe.model, only_plan=True).preprocessing
    if (made.pixels, made.mean, made.std) != (pixels, checkpoint.mean, checkpoint.std):
        raise TrainingError(f"pictures would be prepared otherwise than in {run.folder}: {made.pixels} is not {pixels}")
    return recipe


def already_published(models: Path, name: str, run_id: str) -> int | None:
    """The version of a repository that was made of a run."""
    for version in reversed(bundles.versions(models, name)):
        with suppress(BundleError):  # a damaged one is none that was just published
            if bundles.read(models, name, version).manifest.provenance.run_id == run_id:
                return version
    return None
