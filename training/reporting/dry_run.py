"""The plan of a training in words, before anything is computed: what trains, how long, in how much memory."""

import torch
from torch import Tensor, nn

from taxon.training import flags
from taxon.training.config import Recipe
from taxon.training.loop.augment import normalised
from taxon.training.loop.batches import cut
from taxon.training.loop.distill import Teacher
from taxon.training.loop.order import permutation
from taxon.training.loop.prepare import Found
from taxon.training.network import model, stages
from taxon.training.network.weights import is_file
from taxon.training.plan import Phase, check_parts, check_task, frozen_norms, phases, trainable_in

OPTIMIZER_SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that the optimiser keeps for each parameter."""


def describe(recipe: Recipe, found: Found) -> str:
    """The resolved recipe, and for each phase its stages, steps and memory.

    Args:
        recipe: Resolved.
        found: The data, not decoded.

    Raises:
        TrainingError: The model or its stages do not fit.
    """
    settings, options, preprocessing = recipe.model, recipe.optim, found.preprocessing
    check_task(recipe, found.data.task)
    loaded = model.load(
        settings.name,
        len(found.data.labels),
        channels=len(preprocessing.mean),
        weights=settings.weights if settings.weights != "none" and is_file(settings.weights) else None,
        head=settings.head,
    )
    network = loaded.network
    example = normalised(preprocessing.example(), preprocessing.mean, preprocessing.std)
    model.check_takes(network, example)
    count = len(found.data.split("train"))
    check_parts(loaded, recipe, example, count)
    samples = -(-options.batch_size // options.accumulate)
    parts = stages.stages(network, loaded.head)
    steps = len(cut(permutation(0, 0, count), options.batch_size))
    lines = [flags.to_toml(recipe)]
    teacher = None
    if recipe.distill.teacher is not None:
        teacher = Teacher(recipe.distill, found.data.labels, found.data.task, preprocessing)
        lines.append(
            f"teacher: run {teacher.run_id}, {sum(p.numel() for p in teacher.network.parameters()):,} parameters; "
            f"{teacher.weight:g} of the loss, at temperature {teacher.temperature:g}"
        )
    for phase in phases(settings.mode, options):
        trainable = trainable_in(phase, parts, settings)
        stages.freeze_all_but(network, parts, trainable)
        lines += _phase_lines(phase, parts, trainable, steps)
        stages.train_mode(network, parts, trainable, frozen_norms(settings, parts))
        sizes = {parameter: parameter.numel() * parameter.element_size() for parameter in network.parameters()}
        changing = sum(size for parameter, size in sizes.items() if parameter.requires_grad)
        kept = sum(sizes.values()) + changing * (1 + OPTIMIZER_SLOTS[options.optimizer])
        kept += saved_bytes(network, example) * samples
        kept += sum(p.numel() * p.element_size() for p in teacher.network.parameters()) if teacher else 0
        lines.append(f"  about {kept / 2**20:.0f} MiB for weights, gradients, optimizer and activations, beside torch")
    return "\n".join(lines)


def _phase_lines(phase: Phase, parts: dict[str, list[nn.Module]], trainable: list[str], steps: int) -> list[str]:
    lines = [f"{phase.mode}: {phase.epochs} epochs of {steps} steps, {phase.epochs * steps} steps; lr {phase.lr:g}"]
    for name, modules in parts.items():
        count = sum(parameter.numel() for module in modules for parameter in module.parameters())
        lines.append(f"  {name:28} {count:>12,} parameters  {'trains' if name in trainable else 'frozen'}")
    return lines


def saved_bytes(network: nn.Module, example: Tensor) -> int:
    """Bytes that a forward pass in fp32 keeps for the backward pass, for one sample.

    Args:
        network: With the parameters that do not train frozen, in training mode; its statistics move.
        example: A few samples.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _answer = network(example)  # held, or what it keeps would be freed and its place counted once
    return sum(kept.values()) // len(example)
