"""Options → the phases of a training, with every default resolved, and how far they have come."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from taxon.training.config import ModelOptions, OptimOptions, Recipe
from taxon.training.dataset.published import FORMATS
from taxon.training.errors import TrainingError
from taxon.training.loop import distill
from taxon.training.loop.batches import smallest_part
from taxon.training.loop.optim import default_lr
from taxon.training.network import model, stages
from taxon.training.network.model import Loaded
from taxon.training.network.networks import NETWORKS


@dataclass(frozen=True, slots=True)
class Phase:
    """Some epochs in which the same stages train."""

    mode: str
    """`head`, `last-n`, `full`, `scratch` or `hybrid`."""
    epochs: int
    lr: float
    """Peak learning rate of the head."""


@dataclass
class Position:
    """How far a training has come."""

    epochs_done: int = 0
    step: int = 0
    """Updates done in the running epoch."""
    loss_sum: float = 0.0
    """Over these updates."""
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    stale_epochs: int = 0
    """Of this phase, since its best."""

    def epoch_ends(self, epochs_done: int, accuracy: float, loss: float) -> bool:
        """Takes in an epoch's figures; returns whether it is the best so far: by accuracy, then by loss."""
        self.epoch_passes(epochs_done)
        better = (accuracy, -loss) > (self.best_accuracy, -self.best_loss)
        if better:
            self.best_accuracy, self.best_loss = accuracy, loss
            self.stale_epochs = 0
        return better

    def epoch_passes(self, epochs_done: int) -> None:
        """Counts an epoch, evaluated or not: what was not evaluated is no better."""
        self.epochs_done = epochs_done
        self.stale_epochs += 1

    def phase_ends(self, epochs_done: int) -> None:
        """Counts epochs that early stopping left out as done."""
        self.epochs_done, self.stale_epochs = epochs_done, 0


def check_task(recipe: Recipe, task: str) -> None:
    """Refuses options that mean nothing for several labels per picture.

    Raises:
        TrainingError: Names the option.
    """
    if task == "multi_label":
        if recipe.optim.loss not in ("auto", "bce"):
            raise TrainingError(f"--loss {recipe.optim.loss} is for one label per picture; use bce for several")
        if recipe.optim.balance == "sampling":
            raise TrainingError("--balance sampling is for one label per picture; use weights for several")
        if recipe.augment.mixup or recipe.augment.cutmix:
            raise TrainingError("mixup and cutmix are for one label per picture")


def check_parts(loaded: Loaded, recipe: Recipe, example: Tensor, count: int, world: int = 1) -> None:
    """Refuses parts of a batch that are too small for the batch normalisation of the stages that train, and to freeze
    what is not there.

    Args:
        loaded: The network.
        recipe: Resolved.
        example: Samples as the network takes them.
        count: Of training samples.
        world: Processes.

    Raises:
        TrainingError: See `smallest_part`, `model.check_trains_on_one` and `stages.trainable_stages`.
    """
    if recipe.model.freeze_bn and not stages.batch_norms(loaded.network):
        raise TrainingError(f"{recipe.model.name} has no batch normalisation: leave out --freeze-bn")
    smallest = smallest_part(count, recipe.optim.batch_size, recipe.optim.accumulate, world)
    parts = stages.stages(loaded.network, loaded.head)
    for phase in phases(recipe.model.mode, recipe.optim):
        trainable = trainable_in(phase, parts, recipe.model)
        if smallest == 1:
            stages.train_mode(loaded.network, parts, trainable, frozen_norms(recipe.model, parts))
            model.check_trains_on_one(loaded.network, example)


def trainable_in(phase: Phase, names: Iterable[str], options: ModelOptions) -> list[str]:
    """The stages that a phase trains; see `stages.trainable_stages`, which raises too."""
    return stages.trainable_stages(phase.mode, [*names], last=options.last, frozen=options.frozen, reset=options.reset)


def frozen_norms(options: ModelOptions, names: Iterable[str]) -> list[str]:
    """The stages whose batch normalisation keeps the statistics of the weights."""
    return [name for name in names if options.freeze_bn and name not in options.reset]


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with `auto` weights, mode, loss and learning rates replaced by what they stand for.

    Raises:
        TrainingError: Options that contradict each other.
    """
    network, optim = recipe.model, recipe.optim
    weights = network.weights
    if weights == "auto":
        weights = "none" if network.name in NETWORKS or network.mode == "scratch" else "DEFAULT"
    mode = network.mode
    if mode == "auto":
        mode = "scratch" if weights == "none" else "lp-ft"
    if weights == "none" and mode in ("head", "last-n", "lp-ft"):
        raise TrainingError(f"mode {mode} needs pretrained weights to keep: give --weights, or use --mode scratch")
    if weights == "none" and mode == "full":
        mode = "scratch"
    if mode == "scratch":
        weights = "none"
    if weights == "none" and network.freeze_bn:
        raise TrainingError("--freeze-bn keeps the statistics of weights, and there are none: leave it out")
    if recipe.privacy.noise:
        _check_private(recipe, mode)
    head_epochs = optim.head_epochs or max(1, optim.epochs // 2)
    if mode == "lp-ft" and head_epochs >= optim.epochs:
        raise TrainingError(
            f"of {optim.epochs} epochs {head_epochs} train only the head (--head-epochs): none is left for the rest"
        )
    lr = optim.lr if optim.lr is not None else default_lr(optim.optimizer, mode)
    head_lr = optim.head_lr if optim.head_lr is not None else default_lr(optim.optimizer, "head")
    features = network.features
    if recipe.distill.teacher is not None:
        features = "live"  # a teacher must see pictures, not what a backbone made of them
    return recipe.model_copy(
        update={
            "distill": distill.resolved(recipe.distill),
            "model": network.model_copy(update={"weights": weights, "mode": mode, "features": features}),
            "optim": optim.model_copy(update={"lr": lr, "head_lr": head_lr, "head_epochs": head_epochs}),
            "data": recipe.data.model_copy(update={"source": _absolute(recipe.data.source)}),
        }
    )


def _check_private(recipe: Recipe, mode: str) -> None:
    """Differential privacy stands no option that looks at training samples otherwise, or takes a step apart.

    Raises:
        TrainingError: Names the options that contradict it.
    """
    optim, run = recipe.optim, recipe.run
    wrong = {
        f"--mode {mode} (only head has weights that were trained on other pictures)": mode != "head",
        "--features live": recipe.model.features == "live",
        "--teacher": recipe.distill.teacher is not None,
        f"--balance {optim.balance} (counts the classes)": optim.balance != "none",
        f"--accumulate {optim.accumulate}": optim.accumulate > 1,
        f"--l1 {optim.l1:g}": optim.l1 > 0.0,
        "--clip-norm (--dp-clip is its own)": optim.clip_norm is not None,
        f"--precision {run.precision}": run.precision != "fp32",
        "--compile": run.compile,
        "--mlflow (sends the training loss elsewhere)": run.mlflow,
    }
    if found := [option for option, is_there in wrong.items() if is_there]:
        raise TrainingError(f"--dp-noise does not go with {', '.join(found)}")


def _absolute(source: str) -> str:
    """A path is recorded so that it means the same when the run is resumed from elsewhere."""
    kind, _, path = source.partition(":")
    if kind in FORMATS and path:
        return f"{kind}:{Path(path).resolve()}"
    return str(Path(source).resolve()) if Path(source).exists() else source


def phases(mode: str, options: OptimOptions) -> tuple[Phase, ...]:
    """The phases of a resolved recipe's mode: two for `lp-ft`, else one.

    Raises:
        ValueError: The options are not resolved.
    """
    if options.head_epochs is None or options.lr is None or options.head_lr is None:
        raise ValueError("resolve the recipe first")
    if mode == "lp-ft":
        head = Phase("head", options.head_epochs, options.head_lr)
        return head, Phase("full", options.epochs - options.head_epochs, options.lr)
    return (Phase(mode, options.epochs, options.lr),)
