"""What a network answers on a split, and how good that is."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from taxon.training.config import Task
from taxon.training.loop import metrics
from taxon.training.loop.batches import LabelledArrays, batches, in_turn
from taxon.training.loop.machine import Machine


@dataclass(frozen=True, slots=True)
class Answers:
    """A network's answers to every sample of a split, in the split's order."""

    scores: NDArray[np.float32]
    """[N, K] softmax, or for multi-label sigmoid."""
    targets: NDArray[np.int64]
    """[N] class indices, or for multi-label [N, K] of 0 and 1."""
    loss: float
    """Mean cross-entropy, without weights or smoothing."""

    @property
    def task(self) -> Task:
        """What the targets are of."""
        return metrics.task_of(self.targets)

    @property
    def truth(self) -> NDArray[np.bool_]:
        """[N, K]."""
        return metrics.as_truth(self.targets, self.scores.shape[1])


@torch.inference_mode()
def answer(
    network: nn.Module,
    arrays: LabelledArrays,
    to_input: Callable[[Tensor], Tensor],
    machine: Machine,
    batch_size: int,
    *,
    autocast: AbstractContextManager[object] | None = None,
    workers: int = 0,
) -> Answers:
    """Asks a network, in evaluation mode, about every sample exactly once.

    Args:
        network: Maps what `to_input` gives to logits [n, K]. Left in evaluation mode.
        arrays: Of the split; not varied.
        to_input: Batch inputs as loaded → the network's input, on its device.
        machine: With several processes each takes its share; all get all answers.
        batch_size: Samples per forward pass.
        autocast: Context of the forward pass.
        workers: Loader processes.
    """
    network.eval()
    rows = []
    turns = in_turn(len(arrays), batch_size, rank=machine.rank, world=machine.world)
    for batch in batches(arrays, turns, workers=workers):
        with autocast or nullcontext():
            rows.append(network(to_input(batch.inputs)).float())
    logits = machine.gather(torch.cat(rows), len(arrays)).cpu()
    targets = arrays.targets
    if targets.ndim == 2:
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        scores = logits.sigmoid()
    else:
        loss = functional.cross_entropy(logits, targets)
        scores = logits.softmax(dim=1)
    return Answers(scores.numpy(), targets.numpy().astype(np.int64), float(loss))


def summary(answers: Answers) -> dict[str, float]:
    """The figures of every epoch: `loss`, `accuracy`, `macro_f1`."""
    scores, truth, task = answers.scores, answers.truth, answers.task
    return {
        "loss": answers.loss,
        "accuracy": metrics.accuracy(scores, truth, task),
        "macro_f1": metrics.averages(scores, truth, task, "macro")["f1"],
    }
