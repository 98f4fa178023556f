"""Optimisers, learning-rate schedules, losses and weight averages, each from plain numbers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

DEFAULT_LR = {
    ("adamw", "scratch"): 1e-3,
    ("adamw", "tune"): 1e-4,
    ("adamw", "head"): 1e-3,
    ("sgd", "scratch"): 0.05,
    ("sgd", "tune"): 0.005,
    ("sgd", "head"): 0.05,
}
"""For batches of 32 to 128."""

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [n, K], targets int64 [n] or float [n, K]) → mean loss."""


def default_lr(optimizer: str, mode: str) -> float:
    """A peak learning rate that is seldom far off."""
    kind = mode if mode in ("scratch", "head") else "tune"
    return DEFAULT_LR["sgd" if optimizer == "sgd" else "adamw", kind]


def parameter_groups(
    stages: Mapping[str, Sequence[nn.Module]],
    root: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float,
    norm_bias_lr: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups of trainable parameters: the rate falls by `layer_decay` from stage to stage towards the input;
    vectors (biases, normalisation) are not decayed.

    Args:
        stages: Modules of each stage, from the input to the head.
        root: Whose parameters.
        lr: Peak rate of the last stage.
        weight_decay: L2.
        layer_decay: See above.
        norm_bias_lr: Factor of the rate of the biases of normalisation layers; 64 in Jordan 2024 (arXiv:2404.00498).
    """
    norm_biases = {
        id(module.bias) for module in root.modules() if isinstance(module, NORMALISATIONS) and module.bias is not None
    }
    owner = {
        id(parameter): depth
        for depth, modules in enumerate(reversed([*stages.values()]))
        for module in modules
        for parameter in module.parameters()
    }
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for parameter in root.parameters():
        if parameter.requires_grad:
            rate = lr * layer_decay ** owner.get(id(parameter), len(stages) - 1)
            if id(parameter) in norm_biases:
                rate *= norm_bias_lr
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def optimizer(name: str, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """SGD (Nesterov), Adam or AdamW over parameter groups."""
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0.0)
    return torch.optim.Adam(groups) if name == "adam" else torch.optim.AdamW(groups)


def lr_factor(step: int, steps: int, *, warmup_steps: int, schedule: str, step_length: int) -> float:
    """Share of the peak learning rate at one update: a function of its number alone, so there is nothing to save.

    Args:
        step: Number of the update, from 0.
        steps: Updates in all.
        warmup_steps: Updates of linear rise.
        schedule: `cosine` and `linear` end at zero; `step` falls tenfold every `step_length` updates; `constant`.
        step_length: See `schedule`.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "step":
        return 0.1 ** (step // step_length)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if schedule == "linear" else 1.0


def loss_function(kind: str, *, task: str, smoothing: float, class_weights: Tensor | None) -> Loss:
    """The training loss.

    Args:
        kind: `cross_entropy`; `bce`: a sigmoid per class; `mse`: squared error of the softmax's probabilities; `auto`.
        task: What `auto` depends on: `multi_label` takes `bce`, `single_label` cross-entropy.
        smoothing: Share of each target that is spread evenly over all classes.
        class_weights: float [K] with mean one over the data, or None.
    """

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        soft = functional.one_hot(targets, logits.shape[1]).float() if targets.ndim == 1 else targets.float()
        weights = soft if class_weights is None else soft * class_weights
        if kind == "bce":
            goal = soft * (1.0 - smoothing) + 0.5 * smoothing
            terms = functional.binary_cross_entropy_with_logits(logits.float(), goal, reduction="none")
            return (terms if class_weights is None else terms * (1.0 + soft * (class_weights - 1.0))).mean()
        # The weight of a sample is that of its classes. Not divided by the batch's weights: so shares of a batch,
        # on several devices, add up to the whole.
        of_sample = weights.sum(dim=1)
        goal = soft * (1.0 - smoothing) + smoothing / logits.shape[1]
        if kind == "mse":
            return ((logits.float().softmax(dim=1) - goal).square().sum(dim=1) * of_sample).mean()
        return (-(goal * logits.float().log_softmax(dim=1)).sum(dim=1) * of_sample).mean()

    if kind == "auto":
        kind = "bce" if task == "multi_label" else "cross_entropy"
    return loss


def class_weights(targets: Tensor, class_count: int) -> Tensor:
    """Float [K]: inverse frequency, with mean one over the samples; for multi-label negatives per positive."""
    if targets.ndim == 2:
        positives = targets.sum(dim=0).clamp(min=1.0)
        return (len(targets) - positives).clamp(min=1.0) / positives
    counts = torch.bincount(targets, minlength=class_count).float().clamp(min=1.0)
    return len(targets) / (class_count * counts)


def running_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's whole state, which its first state begins.

    The decay rises from 0.1 as (1 + n) / (10 + n), as in TensorFlow's, so that the first steps are soon forgotten.
    """

    def take_in(averages: Sequence[Tensor], present: Sequence[Tensor], count: Tensor | int) -> None:
        steps = torch.as_tensor(count)  # on the device, so that no step waits for its number
        share = 1.0 - ((1.0 + steps) / (10.0 + steps)).clamp(max=decay)
        for average, tensor in zip(averages, present, strict=True):
            if average.is_floating_point():
                average.lerp_(tensor, share.to(average.dtype))
            else:
                average.copy_(tensor)

    average = AveragedModel(network, multi_avg_fn=take_in, use_buffers=True)
    average.n_averaged.fill_(1)
    return average


@dataclass
class Update:
    """Everything between a loss and changed weights, with its state."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    l1: float
    """Weight of the sum of absolute weights."""
    clip_norm: float | None
    """Largest norm of all gradients together."""

    def set_lr(self, factor: float) -> None:
        """Sets every group to a share of its peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients."""
        self.scaler.scale(loss).backward()

    def apply(self, network: nn.Module) -> None:
        """Moves the weights by the gradients, and clears these."""
        if self.l1 or self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
        if self.l1:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None and parameter.ndim > 1:
                        parameter.grad.add_(parameter.detach().sign(), alpha=self.l1)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(network)

    @contextmanager
    def averaged(self, network: nn.Module) -> Iterator[None]:
        """Lends the averaged weights, if there are any, to the network."""
        if self.average is None:
            yield
            return
        own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            network.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """What `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
