"""A network as a row of stages, from the input to the head, and which of them train.

A frozen stage is in evaluation mode too: its batch normalisation keeps its statistics, its dropout is off.
"""

import re
from collections.abc import Collection

import torch
from torch import nn

from taxon.training.errors import TrainingError
from taxon.training.suggest import nearest

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
RESIDUAL_STAGE = re.compile(r"(layer|stage|block|trunk)\w*\d+")


def stages(network: nn.Module, head: str) -> dict[str, list[nn.Module]]:
    """Modules by stage name, input first, head last; together they hold all parameters but those that lie
    directly on the network (a class token), which count as `input`.

    A stage is a top-level module (`layer4`), or a part of a top-level sequence (`features.7`, `encoder.layers.3`).
    A normalisation layer belongs to the stage before it.
    """
    found: dict[str, list[nn.Module]] = {}
    for name, module in _parts(network):
        if not any(True for _ in module.parameters()) or name == head or name.startswith(f"{head}."):
            continue
        if found and all(
            "Norm" in type(m).__name__ for m in module.modules() if any(True for _ in m.parameters(False))
        ):
            found[next(reversed(found))].append(module)
        else:
            found[name] = [module]
    return {**found, head: [network.get_submodule(head)]}


def _parts(network: nn.Module) -> list[tuple[str, nn.Module]]:
    parts: list[tuple[str, nn.Module]] = []
    for name, module in network.named_children():
        if isinstance(module, nn.Sequential) and not RESIDUAL_STAGE.fullmatch(name):
            parts += [(f"{name}.{key}", part) for key, part in module.named_children()]
        elif name == "encoder":  # vision transformers
            parts += [
                (f"encoder.{key}.{number}", part) if number else (f"encoder.{key}", part)
                for key, child in module.named_children()
                for number, part in (child.named_children() if isinstance(child, nn.Sequential) else [("", child)])
            ]
        else:
            parts.append((name, module))
    return parts


def trainable_stages(
    mode: str, names: list[str], *, last: int = 1, frozen: Collection[str] = (), reset: Collection[str] = ()
) -> list[str]:
    """The stages that a mode trains.

    Args:
        mode: `head`, `last-n`, `full`, `scratch` or `hybrid`.
        names: All stages, head last.
        last: For `last-n`: stages beside the head.
        frozen: For `hybrid`: the stages that stay as they are.
        reset: For `hybrid`: the stages that start from random weights.

    Raises:
        TrainingError: More stages than there are, an unknown stage, or one both frozen and reset.
    """
    if mode == "head":
        return names[-1:]
    if mode == "last-n":
        if last >= len(names):
            raise TrainingError(f"--last {last} is too many: the network has {len(names) - 1} stages and the head")
        return names[-1 - last :]
    if mode == "hybrid":
        for stage in (*frozen, *reset):
            if stage not in names:
                raise TrainingError(f"there is no stage {stage!r}{nearest(stage, names)}; there are {names}")
        if both := sorted(set(frozen) & set(reset)):
            raise TrainingError(f"the stages {both} are both frozen and reset")
        if names[-1] in frozen:
            raise TrainingError(f"the head {names[-1]!r} is new for these classes: it cannot be frozen")
        return [name for name in names if name not in frozen]
    return names


def freeze_all_but(network: nn.Module, parts: dict[str, list[nn.Module]], trainable: Collection[str]) -> None:
    """Lets only the given stages have gradients. What lies directly on the network trains with the first stage."""
    for parameter in network.parameters():
        parameter.requires_grad_(next(iter(parts)) in trainable)
    for name, modules in parts.items():
        for module in modules:
            module.requires_grad_(name in trainable)


def train_mode(
    network: nn.Module, parts: dict[str, list[nn.Module]], trainable: Collection[str], frozen_norms: Collection[str]
) -> None:
    """Training mode for the given stages, evaluation mode for the others, and for the batch normalisation of the
    stages `frozen_norms`: it keeps its statistics.
    """
    network.train()
    for name, modules in parts.items():
        for module in modules:
            module.train(name in trainable)
            for norm in batch_norms(module) if name in frozen_norms else ():
                norm.eval()


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch normalisation in a module, itself included."""
    return [part for part in module.modules() if isinstance(part, BATCH_NORMS)]


def reset_stages(parts: dict[str, list[nn.Module]], names: Collection[str]) -> None:
    """Gives stages new random weights, layer by layer as torch initialises them."""
    with torch.no_grad():
        for name in names:
            for module in parts[name]:
                for layer in module.modules():
                    if callable(reset := getattr(layer, "reset_parameters", None)):
                        reset()
