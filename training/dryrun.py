"""The plan of a training in words, before anything is computed: what trains, how long, in how much memory."""

import torch
from torch import Tensor, nn

from training import flags, model, stages
from training.augment import normalised
from training.config import Recipe
from training.loading import cut
from training.order import permutation
from training.plan import Phase, phases
from training.prepare import Prepared

BYTES = 4
"""Of a float32."""
OPTIMIZER_SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that the optimiser keeps for each parameter."""


def describe(recipe: Recipe, prepared: Prepared) -> str:
    """The resolved recipe, and for each phase its stages, steps and memory.

    Args:
        recipe: Resolved.
        prepared: The data.

    Raises:
        TrainingError: The model or its stages do not fit.
    """
    settings, options = recipe.model, recipe.optim
    loaded = model.load(
        settings.name, len(prepared.data.labels), channels=len(prepared.preprocessing.mean), head=settings.head
    )
    network = loaded.network
    example = normalised(prepared.example(), prepared.preprocessing.mean, prepared.preprocessing.std)
    model.check_takes(network, example)
    activations = activation_numbers(network, example) * options.batch_size // options.accumulate
    parts = stages.stages(network, loaded.head)
    steps = len(cut(permutation(0, 0, len(prepared.train)), options.batch_size))
    lines = [flags.to_toml(recipe)]
    for phase in phases(settings.mode, options.epochs, options.head_epochs, options.lr, options.head_lr):
        trainable = stages.trainable_stages(
            phase.mode, [*parts], last=settings.last, frozen=settings.frozen, reset=settings.reset
        )
        stages.freeze_all_but(network, parts, trainable)
        lines += _phase_lines(phase, parts, trainable, steps)
        counts = [p.numel() for p in network.parameters()], [p.numel() for p in network.parameters() if p.requires_grad]
        numbers = sum(counts[0]) + sum(counts[1]) * (1 + OPTIMIZER_SLOTS[options.optimizer]) + activations
        lines.append(f"  about {numbers * BYTES / 2**20:.0f} MiB for weights, gradients, optimizer and activations")
    return "\n".join(lines)


def _phase_lines(phase: Phase, parts: dict[str, list[nn.Module]], trainable: list[str], steps: int) -> list[str]:
    lines = [f"{phase.mode}: {phase.epochs} epochs of {steps} steps, {phase.epochs * steps} steps; lr {phase.lr:g}"]
    for name, modules in parts.items():
        count = sum(parameter.numel() for module in modules for parameter in module.parameters())
        lines.append(f"  {name:28} {count:>12,} parameters  {'trains' if name in trainable else 'frozen'}")
    return lines


def activation_numbers(network: nn.Module, example: Tensor) -> int:
    """How many numbers the layers put out for one sample: what the backward pass keeps, about."""
    total = 0

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel()

    handles = [
        layer.register_forward_hook(count) for layer in network.modules() if not any(True for _ in layer.children())
    ]
    with torch.inference_mode():
        network.eval()(example)
    for handle in handles:
        handle.remove()
    return total // len(example)
