"""A trained run as the teacher of a lighter network.

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): beside the labels, the student
learns the teacher's scores, both softened by a temperature. The teacher sees exactly what the student sees, varied and
mixed pictures included (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022).
"""

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from taxon.bundle.store import sha256
from taxon.training.config import DistillOptions
from taxon.training.errors import TrainingError
from taxon.training.network.model import Preprocessing
from taxon.training.runs.checkpoint import Checkpoint
from taxon.training.runs.folder import Run


def resolved(options: DistillOptions) -> DistillOptions:
    """The options with the teacher's absolute path and the digest of its weights.

    Raises:
        TrainingError: Not a finished run, not the teacher that the recipe names by its digest, or options for a teacher
            without one.
    """
    if options.teacher is None:
        if options != DistillOptions():
            raise TrainingError("there are options for a teacher, but no --teacher")
        return options
    path = Run.open(options.teacher).best_path
    if not path.is_file():
        raise TrainingError(f"the teacher {options.teacher} has not finished an epoch: it has no {path.name}")
    digest = sha256(path)
    if options.teacher_sha256 not in (None, digest):
        raise TrainingError(
            f"the teacher {options.teacher} is not the one that the recipe names: its {path.name} has sha256 {digest}, "
            f"not {options.teacher_sha256}"
        )
    return options.model_copy(update={"teacher": options.teacher.resolve(), "teacher_sha256": digest})


class Teacher:
    """A frozen network that tells the student what it would answer.

    Args:
        options: Resolved, with a teacher.
        labels: The student's, in the order of its logits.
        task: The student's.
        preprocessing: The student's.
        device: Where both run.

    Raises:
        TrainingError: It knows other labels, takes another kind of input, or several labels are to be told.
    """

    def __init__(
        self,
        options: DistillOptions,
        labels: tuple[str, ...],
        task: str,
        preprocessing: Preprocessing,
        device: torch.device | str = "cpu",
    ) -> None:
        if options.teacher is None:
            raise ValueError("the options name no teacher")
        run = Run.open(options.teacher)
        checkpoint = run.checkpoint()
        _check_fits(options.teacher, checkpoint, labels, task, preprocessing)
        self.run_id = checkpoint.run_id
        self.temperature = options.temperature
        self.weight = options.weight
        self.network: nn.Module = checkpoint.build_model().requires_grad_(requires_grad=False).to(device)
        self._size = None if checkpoint.pixels is None else checkpoint.pixels.crop
        self._order = torch.tensor([checkpoint.labels.index(label) for label in labels], device=device)
        shape = (1, -1) if self._size is None else (1, -1, 1, 1)
        own, given = (
            torch.tensor([checkpoint.mean, checkpoint.std]),
            torch.tensor([preprocessing.mean, preprocessing.std]),
        )
        self._scale = (given[1] / own[1]).reshape(shape).to(device)
        self._shift = ((given[0] - own[0]) / own[1]).reshape(shape).to(device)

    @torch.no_grad()
    def answer(self, inputs: Tensor) -> Tensor:
        """What the student is given (float [n, C, H, W] or [n, F], normalised as it wants) → logits [n, K].

        Pictures are resized to what the teacher was trained on; the logits are in the order of the student's labels.
        """
        own = inputs * self._scale + self._shift
        if self._size is not None and own.shape[2:] != self._size:
            own = functional.interpolate(own, self._size, mode="bilinear", align_corners=False, antialias=True)
        logits: Tensor = self.network(own)
        return logits.float()[:, self._order]

    def joins(self, loss: Tensor, logits: Tensor, inputs: Tensor, autocast: AbstractContextManager[object]) -> Tensor:
        """The loss of the labels and that of the teacher's scores, by their weight.

        Args:
            loss: Of the labels, a mean over the batch.
            logits: The student's, [n, K].
            inputs: The student's.
            autocast: Context of the teacher's forward pass.
        """
        with autocast:
            taught = self.answer(inputs)
        return (1.0 - self.weight) * loss + self.weight * softened_divergence(logits, taught, self.temperature)


def softened_divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of both scores at a temperature, mean over the batch; times the temperature's
    square, which keeps its gradients as large as those of the labels.
    """
    student, teacher = ((given.float() / temperature).log_softmax(dim=1) for given in (logits, taught))
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def _check_fits(
    folder: Path, checkpoint: Checkpoint, labels: tuple[str, ...], task: str, preprocessing: Preprocessing
) -> None:
    if "multi_label" in (task, checkpoint.task):
        raise TrainingError("a teacher is for one label per picture")
    more, fewer = sorted(set(labels) - set(checkpoint.labels)), sorted(set(checkpoint.labels) - set(labels))
    if more or fewer:
        faults = [f"does not know {more[:5]}"] if more else []
        faults += [f"knows {fewer[:5]}, which the data has not"] if fewer else []
        raise TrainingError(f"the teacher {folder} {' and '.join(faults)}: it must have the same labels")
    if (checkpoint.pixels is None) != (preprocessing.pixels is None) or checkpoint.features != preprocessing.features:
        raise TrainingError(f"the teacher {folder} takes other input: {_input(checkpoint)}, the data has other columns")
    if len(checkpoint.mean) != len(preprocessing.mean):
        raise TrainingError(f"the teacher {folder} takes {_input(checkpoint)}: use the same --color")


def _input(checkpoint: Checkpoint) -> str:
    if checkpoint.pixels is None:
        return f"the numbers {', '.join(checkpoint.features)}"
    return f"{checkpoint.pixels.color} pictures"
